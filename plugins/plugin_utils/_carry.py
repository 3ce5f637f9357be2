# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Large files between controller and box over Ansible's own connection: in slices, so that it goes on where it was interrupted.

Nothing but SSH is needed between the two. What comes is verified by whoever asked for it.
"""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.dgx.spark.plugins.module_utils._pace import Pace
from ansible_collections.dgx.spark.plugins.plugin_utils._background_job import LOST_S, every

# Large enough that a command for each costs little at 1 Gbit/s, small enough for the memory of a controller with twenty boxes.
SLICE = 64 * 1024 * 1024
# On the way here a slice is a file on both sides.
PIECE = 128 * 1024 * 1024
PAUSE_S = 3.0


class CarryError(Exception):
    """A file does not come. The message names it, and what the other side said."""


class Carrier:
    """Carries files for an action plugin, with a line on the terminal now and then. C(total) are the bytes of all of them."""

    def __init__(
        self,
        action: ActionBase,
        task_vars: Mapping[str, Any],
        setting: Any,
        say: Callable[[str], None],
        total: int,
        done: int = 0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._action = action
        self._interval = every(setting, len(task_vars.get("ansible_play_batch") or ()))
        self._host = task_vars.get("inventory_hostname", "")
        self._say = say
        self._sleep = sleep
        self._done = done
        self._pace = Pace(total, done)
        self._began = self._said = time.monotonic()
        self.carried = 0  # bytes

    def push(self, source: Path, target: str, have: int = 0) -> None:
        """Bring a file of the controller to a path on the box, of which C(have) bytes are there. Raises CarryError, OSError."""
        size, quoted = source.stat().st_size, shlex.quote(target)
        with source.open("rb") as stream:
            while have < size:
                stream.seek(have)
                piece = stream.read(SLICE)
                # What a lost connection left behind this place goes first.
                command = f"truncate -s {have} {quoted} && cat >> {quoted} && stat -c %s {quoted}"
                ended = self._patiently(lambda command=command, piece=piece: self._run(command, piece))  # type: ignore[misc]
                have += len(piece)
                if ended.get("rc") != 0 or ended["stdout"].split()[-1:] != [str(have)]:
                    why = " ".join(f"{ended.get('stderr', '')} {ended.get('stdout', '')}".split())[-300:]
                    raise CarryError(f"{source} does not come to {target}: {why or 'it ended early'}")
                self._count(len(piece), f"{source.name} to the box")

    def pull(self, source: str, target: Path, size: int) -> None:
        """Bring a file of the box, which the SSH user may read, to a path on the controller. Raises CarryError, OSError."""
        part, piece = (target.with_name(f"{target.name}.{suffix}") for suffix in ("part", "piece"))
        target.parent.mkdir(parents=True, exist_ok=True)
        have = min(part.stat().st_size, size) if part.exists() else 0
        self._done += have
        # A file that the box gives by itself goes as it is; of a large one, a copy of a slice.
        copy = self._as_user("mktemp -t dgx-spark.XXXXXXXX") if size - have > PIECE or have else ""
        try:
            with part.open("ab") as stream:
                stream.truncate(have)
                while have < size:
                    length = min(PIECE, size - have)
                    if copy:
                        self._as_user(f"tail -c +{have + 1} {shlex.quote(source)} | head -c {length} > {shlex.quote(copy)}")
                    self._fetch(copy or source, piece)
                    if piece.stat().st_size != length:
                        raise CarryError(f"{source} does not come from the box: it has another size now")
                    with piece.open("rb") as content:
                        shutil.copyfileobj(content, stream, SLICE)
                    have += length
                    self._count(length, f"{target.name} from the box")
        finally:
            piece.unlink(missing_ok=True)
            if copy:
                self._as_user(f"rm -f {shlex.quote(copy)}")
        part.rename(target)

    def _fetch(self, source: str, target: Path) -> None:
        try:
            self._patiently(lambda: self._action._connection.fetch_file(source, str(target)))
        except AnsibleError as exc:
            raise CarryError(f"{source} does not come from the box: {exc}") from exc

    def _as_user(self, command: str) -> str:
        """The last line of what a command says, as the user that Ansible connects as: files come as that user, too. Raises CarryError."""
        code, out, err = self._patiently(lambda: self._action._connection.exec_command(command, in_data=None, sudoable=False))
        if code != 0:
            raise CarryError(f"the box does not give a file: {' '.join(err.decode('utf-8', 'replace').split())[-300:]}")
        # A login may greet first.
        return str(out.decode("utf-8", "replace").strip().rpartition("\n")[2])

    def _run(self, command: str, content: bytes) -> dict[str, Any]:
        found: dict[str, Any] = self._action._low_level_execute_command(command, in_data=content)
        return found

    def _patiently(self, attempt: Callable[[], Any]) -> Any:
        """Try again while the box is not reached. Raises CarryError when that is too long."""
        lost = time.monotonic()
        while True:
            try:
                return attempt()
            except AnsibleConnectionFailure as exc:
                if time.monotonic() - lost > LOST_S:
                    raise CarryError(f"the box is not reached any more: {exc}. What came is kept; run again") from exc
                self._sleep(PAUSE_S)

    def _count(self, size: int, what: str) -> None:
        self._done += size
        self.carried += size
        words = self._pace.at(self._done)
        if self._interval and time.monotonic() - self._said >= self._interval:
            self._said = time.monotonic()
            self._say(f"{self._host}: carrying {what}: {words} ({self._said - self._began:.0f} s)")
