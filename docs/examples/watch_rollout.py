# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run a playbook of dgx.spark from Python and watch it box by box: `python watch_rollout.py PLAYBOOK [arguments of ansible-playbook]`.

    python docs/examples/watch_rollout.py playbooks/gemma4.yml -i inventories/mine

Needs the package ansible-runner. The exit code is that of the run, and 130 after Ctrl-C. docs/python.md explains it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ansible_runner

PATIENCE = 30.0  # seconds that Ansible gets to end by itself after Ctrl-C
INTERRUPTED = 130
Event = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    C(boxes) are the rows of the report: mappings of box, state, evidence, failed and why. They and C(report_dir) are empty when the run
    ended before there was a report. C(unreachable) are boxes that were lost: Ansible's exit code alone does not name them.
    """

    rc: int
    status: str
    boxes: Sequence[Mapping[str, Any]] = ()
    report_dir: str = ""
    unreachable: Sequence[str] = ()


def drive(playbook: str, arguments: Sequence[str], private: Path, on_event: Callable[[Event], None], stop: threading.Event) -> Outcome:
    """Run a playbook and hand each event to C(on_event) as it happens; setting C(stop) ends it.

    C(private) is an empty directory that nobody else may read, for what ansible-runner writes. The caller removes it.
    """
    process: set[int] = set()
    asked: list[float] = []
    last: dict[str, Any] = {}

    def take(event: dict[str, Any]) -> bool:
        if event["event"] == "playbook_on_start":
            process.add(event["pid"])
        elif event["event"] == "playbook_on_stats":
            last.update(event["event_data"])
        on_event(event)
        return False  # nobody reads them again from the disk

    def remove_environment(status: Mapping[str, Any], runner_config: Any) -> None:
        # The file has the whole environment, HF_TOKEN among it. It is needed for nothing, and Ansible has not started yet.
        if status["status"] == "running":
            (Path(runner_config.artifact_dir) / "command").unlink()

    def cancel() -> bool:
        """Ask Ansible to stop; true, which kills it, when it was asked long ago."""
        if not stop.is_set():
            return False
        if not asked:
            asked.append(time.monotonic())
            for pid in process:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
        return not process or time.monotonic() - asked[0] > PATIENCE

    runner = ansible_runner.run(
        private_data_dir=str(private),
        project_dir=os.getcwd(),
        playbook=playbook,
        cmdline=shlex.join(arguments),
        envvars={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            # ansible-runner turns the check off unless somebody says otherwise.
            "ANSIBLE_HOST_KEY_CHECKING": os.environ.get("ANSIBLE_HOST_KEY_CHECKING", "True"),
        },
        suppress_env_files=True,
        fact_cache_type="memory",
        quiet=True,
        event_handler=take,
        status_handler=remove_environment,
        cancel_callback=cancel,
    )
    # What playbooks/tasks/report.yml publishes with set_stats.
    published = (last.get("artifact_data") or {}).get("dgx_spark") or {}
    return Outcome(
        rc=INTERRUPTED if stop.is_set() else runner.rc,
        status="interrupted" if stop.is_set() else runner.status,
        boxes=published.get("boxes") or (),
        report_dir=published.get("report_dir") or "",
        unreachable=sorted(last.get("dark") or ()),
    )


@dataclass
class Box:
    """What is known of a box while the run goes on."""

    was: str = ""
    doing: str = ""
    progress: str = ""
    verdict: str = ""


@dataclass
class Table:
    """All boxes, kept up to date by events."""

    boxes: dict[str, Box] = field(default_factory=dict)

    def take(self, event: Event) -> str:
        """Learn from an event; returns the name of the box of which something new is known by it, or nothing."""
        data = event.get("event_data") or {}
        if event["event"] == "verbose":
            # Modules that take minutes say now and then what they do: `box: words`.
            name, _colon, words = str(event.get("stdout", "")).partition(": ")
            if name not in self.boxes or self.boxes[name].progress == words.strip():
                return ""
            self.boxes[name].progress = words.strip()
            return name
        name = str(data.get("host", ""))
        if not name or name == "localhost":
            return ""
        box = self.boxes.setdefault(name, Box())
        before, result = replace(box), data.get("res") or {}
        match event["event"]:
            case "runner_on_start":
                box.doing, box.progress = ": ".join(str(data[key]) for key in ("role", "task") if data.get(key)), ""
            case "runner_on_ok":
                box.was = str((result.get("ansible_facts") or {}).get("preflight_state", box.was))
            case "runner_on_failed" if not data.get("ignore_errors"):
                box.verdict = f"failed: {result.get('msg', 'it does not say why')}"
            case "runner_on_unreachable":
                box.verdict = f"lost: {result.get('msg', '')}"
        return name if box != before else ""

    def finish(self, outcome: Outcome) -> None:
        """Take the verdicts from the report, which outweighs what was seen on the way: a box may fail, and serve again what it served."""
        for row in outcome.boxes:
            box = self.boxes.setdefault(row["box"], Box())
            evidence = row.get("evidence") or {}
            box.was, box.doing, box.progress = row["state"], "", ""
            box.verdict = f"failed: {row['why']}" if row["why"] else evidence.get("verdict", "no evidence")
        for name in outcome.unreachable:
            self.boxes.setdefault(name, Box()).verdict = "lost"
        for box in self.boxes.values():
            # A host that nobody looked at as at a box is a gateway; a report has no row for it.
            box.verdict = box.verdict or ("not in the report" if box.was or not outcome.boxes else "done")

    def line(self, name: str) -> str:
        box = self.boxes[name]
        now = f"{box.doing} - {box.progress}" if box.progress else box.doing
        width = max(map(len, self.boxes))
        return f"{name:{width}}  {box.was or '-':8.8}  {' '.join((box.verdict or now).split())}"


class Screen:
    """Draws the table again and again on a terminal; elsewhere prints a line for each change."""

    def __init__(self, table: Table) -> None:
        self.table, self.live, self.drawn = table, sys.stdout.isatty(), 0

    def take(self, event: Event) -> None:
        name = self.table.take(event)
        if name:
            self.draw() if self.live else print(self.table.line(name), flush=True)

    def draw(self) -> None:
        size = os.get_terminal_size()
        # Those that are worked on come first, when not all have room.
        names = sorted(self.table.boxes, key=lambda name: (self.table.boxes[name].verdict != "", name))[: size.lines - 1]
        lines = [self.table.line(name)[: size.columns - 1] for name in names]
        up = f"\x1b[{self.drawn}F" if self.drawn else ""
        print(up + "".join(f"{line}\x1b[K\n" for line in lines), end="", flush=True)
        self.drawn = len(lines)

    def end(self, outcome: Outcome) -> None:
        self.table.finish(outcome)
        print(*(self.table.line(name) for name in sorted(self.table.boxes)), sep="\n")
        print(f"{outcome.status}, exit code {outcome.rc}" + (f". Report: {outcome.report_dir}/index.html" if outcome.report_dir else ""))


def main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    screen = Screen(Table())
    # In memory where that is possible; nobody else may read it, and it does not stay.
    with tempfile.TemporaryDirectory(prefix="dgx-spark-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as private:
        outcome = drive(arguments[0], arguments[1:], Path(private), screen.take, stop)
    screen.end(outcome)
    return outcome.rc


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
