# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Carry out the plan of a snapshot: fetch, verify, then put all files in place at once, and the marker last.

Until every byte is verified nothing visible changes, so a container that serves from the directory never starts with a mixture.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ansible_collections.dgx.spark.plugins.module_utils import _aria2, _checkpoint
from ansible_collections.dgx.spark.plugins.module_utils._atomic import replace_file
from ansible_collections.dgx.spark.plugins.module_utils._manifest import MARKER, PARTIAL, Manifest, RepoFile, SnapshotError
from ansible_collections.dgx.spark.plugins.module_utils._pace import Pace, amount, share
from ansible_collections.dgx.spark.plugins.module_utils._peer import PeersLost, Seeding, Swarm
from ansible_collections.dgx.spark.plugins.module_utils._seed import Seed
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import (
    Plan,
    Present,
    digests,
    inside,
    marker_text,
    partial_bytes,
    partial_path,
    read_all,
    silent,
)
from ansible_collections.dgx.spark.plugins.module_utils._verify import Verifier

PEERS_LOOK_S = 0.5
MAX_WAIT = 300  # seconds; a host that asks for more is not waited for
# The Hub answers one of these for an address that has expired, and a mirror may take any of them.
REFUSED = frozenset({400, 401, 403, 404, 410})


@dataclass(frozen=True)
class Address:
    """Where the box gets a file: an http address, or the content itself (base64) when only the controller may read it."""

    url: str | None = None
    content: str | None = None


@dataclass(frozen=True)
class Limits:
    """How a download goes about its work. Seconds."""

    connections: int = 8
    timeout: float = 14400
    rounds: int = 3  # without a byte, then it gives up
    pause: float = 5  # between two rounds
    patience: _aria2.Patience = field(default_factory=_aria2.Patience)

    @property
    def silence(self) -> float:
        """No byte of any file for so long: every connection was given up and made again, in vain."""
        return 2 * self.patience.silence + self.patience.wait


@dataclass
class Came:
    """Bytes that came over the network: from the Hub, and from other boxes of the fleet."""

    from_hub: int = 0
    from_peers: int = 0


@dataclass(frozen=True)
class Fleet:
    """This box' part in a fleet's download: it gives what it has (seed), or takes what another has (seeding), or neither."""

    seed: Seed | None = None
    seeding: Seeding | None = None


class Stuck(SnapshotError):
    """Bytes do not come this way, whatever is tried; another address may lead another way."""


class Refused(Exception):
    """A host refuses addresses: they may have expired, and fresh ones would help."""

    def __init__(self, host: str, status: int | None, path: str) -> None:
        self.host, self.status, self.path = host, status, path
        super().__init__(f"{host} refuses the address of {path} (HTTP {status})")


@contextlib.contextmanager
def alone(dest: str) -> Iterator[None]:
    """Only one run at a time fetches into a directory. Raises SnapshotError when another one does."""
    handle = os.open(dest, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise SnapshotError(
                f"another run is fetching into {dest}: wait for it, or end it (it may be one whose controller was interrupted;"
                " pgrep -a aria2c shows it)"
            ) from exc
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def wait_for_another(dest: str, timeout: float, tell: Callable[[str], None] = silent, pause: float = 1.0) -> None:
    """Wait while another run fetches into a directory: one whose controller was interrupted goes on, and this one has less to do then.

    Raises SnapshotError when it takes longer than C(timeout) seconds, OSError.
    """
    began = time.monotonic()
    while os.path.isdir(dest):
        try:
            with alone(dest):
                return
        except SnapshotError:
            if time.monotonic() - began > timeout:
                raise
        parts = os.path.join(dest, PARTIAL)
        there = sum(os.lstat(entry).st_blocks * 512 for entry in os.scandir(parts)) if os.path.isdir(parts) else 0
        tell(f"waiting for another run that fetches into {dest}, {amount(there)} are there")
        time.sleep(pause)


class Transfer:
    """Fetches and verifies the files of a plan, into the directory of parts. `came` counts the bytes that came over the network."""

    def __init__(
        self,
        dest: str,
        plan: Plan,
        addresses: Mapping[str, Address],
        limits: Limits,
        verifier: Verifier,
        fleet: Fleet = Fleet(),  # noqa: B008  frozen
        tell: Callable[[str], None] = silent,
    ) -> None:
        self.dest = dest
        self.plan = plan
        self.limits = limits
        self.came = Came()
        self._addresses = addresses
        self._fleet = fleet
        self._verifier = verifier
        self._files = {file.digest: file for file in plan.fetch}
        self._bad: set[str] = set()
        self._started = time.monotonic()
        self._tell = tell
        self._pace = Pace(plan.size)
        self._silent_for = 0.0  # seconds, when that was too long

    def run(self) -> dict[str, str]:
        """Fetch all. Returns the sha256 of every content, by digest.

        Raises SnapshotError, Stuck, Refused, PeersLost, Aria2Missing, OSError.
        """
        self._prepare()
        left = self._settle(self._files)
        if left and self._fleet.seeding:
            self._from_peers(left, self._fleet.seeding)
            left = []
        # A seed fetches one file after the other: each travels on while the next one comes, the largest first.
        seeds = self._fleet.seed is not None
        if seeds:
            left.sort(key=lambda digest: -self._files[digest].size)
        fruitless = 0
        while left:
            before = self._there(left)
            self._pace = Pace(self.plan.size, self._there(self._files))
            outcome = _aria2.run(
                [_aria2.Job(self._url(digest), digest) for digest in left],
                os.path.join(self.dest, PARTIAL),
                self.limits.connections,
                self.limits.timeout - self._seconds(),
                self.limits.patience,
                watch=self._goes_on,
                files=1 if seeds else 2,
            )
            gained = max(0, self._there(left) - before)
            self.came.from_hub += gained
            left = self._settle(left)
            if not left:
                break
            if outcome.timed_out or self._seconds() >= self.limits.timeout:
                raise self._too_late()
            failures = {digest: outcome.failures[digest] for digest in left if digest in outcome.failures}
            self._give_up_on(failures)
            fruitless = 0 if gained else fruitless + 1
            if fruitless >= self.limits.rounds or self._silent_for:
                raise self._last_words(failures, left)
            self._wait(failures)
        return self._verifier.verified

    def _from_peers(self, wanted: Sequence[str], seeding: Seeding) -> None:
        """Fetch from the fleet. Raises PeersLost when that does not end well; what has come stays. Aria2Missing, OSError."""
        before, silent_since = self._there(self._files), time.monotonic()
        self._pace = Pace(self.plan.size, before)
        verified, wrong = self._verifier.verified, self._verifier.wrong
        try:
            with Swarm(seeding, os.path.join(self.dest, PARTIAL), self.limits.patience.silence) as swarm:
                while left := {digest: self._files[digest] for digest in wanted if digest not in verified}:
                    swarm.step(left)
                    for digest in swarm.complete & left.keys():
                        self._verifier.look(left[digest], partial_path(self.dest, left[digest]))
                    for digest in wrong & left.keys():
                        self._drop(digest)
                        raise PeersLost(f"{left[digest].path} came wrong from the fleet")
                    self._keep("" if swarm.under_way else f"waiting for the seed, which says: {swarm.says or 'working'}")
                    if self._pace.silence() < 1 or not swarm.under_way:
                        silent_since = time.monotonic()
                    if time.monotonic() - silent_since > self.limits.silence:
                        raise PeersLost(f"no byte came from the fleet for {self.limits.silence:.0f} s")
                    if self._seconds() >= self.limits.timeout:
                        raise self._too_late()
                    time.sleep(PEERS_LOOK_S)
        finally:
            self.came.from_peers += max(0, self._there(self._files) - before)

    def _goes_on(self) -> bool:
        """Verify what is complete, and say how far it is. False when nothing has come for too long."""
        for file in self._files.values():
            path = partial_path(self.dest, file)
            if os.path.exists(path) and not os.path.exists(path + _checkpoint.RECORD) and os.stat(path).st_blocks * 512 >= file.size:
                self._verifier.look(file, path)
        self._keep()
        if self._pace.silence() > self.limits.silence:
            self._silent_for = self._pace.silence()
        return not self._silent_for

    def _keep(self, waits: str = "") -> None:
        """Say how far it is, or that it waits, and see that what is there survives a power cut."""
        there = self._there(self._files)
        pace = self._pace.at(there)
        self._tell(f"{share(there, self.plan.size)}, {waits}" if waits else pace)
        _checkpoint.keep(os.path.join(self.dest, PARTIAL), self._files)

    def progress(self) -> str:
        """How far it is: `fetched 3.1 of 16.5 GB, 12.0 MB/s`."""
        there = self._there(self._files)
        rate = (self.came.from_hub + self.came.from_peers) / max(self._seconds(), 0.001)
        return f"fetched {amount(there)} of {amount(self.plan.size)}, {amount(rate)}/s"

    def _too_late(self) -> SnapshotError:
        return SnapshotError(
            f"the download did not end within {self.limits.timeout:.0f} s: {self.progress()}. Run again, it goes on from there;"
            " or raise timeout"
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _there(self, which: Iterable[str]) -> int:
        return sum(partial_bytes(self.dest, self._files[digest]) for digest in which)

    def _url(self, digest: str) -> str:
        # What has none came with its content, and was settled first.
        return self._address(self._files[digest]).url or ""

    def _address(self, file: RepoFile) -> Address:
        return self._addresses.get(file.path, Address())

    def _prepare(self) -> None:
        """Make the directory of parts, remove what cannot be continued, and write what the controller handed over."""
        parts = os.path.join(self.dest, PARTIAL)
        os.makedirs(parts, mode=0o700, exist_ok=True)
        _checkpoint.restore(parts)
        for entry in list(os.scandir(parts)):
            if entry.name != _checkpoint.BOOT and _checkpoint.part_of(entry.name) not in self._files:
                shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
        for digest, file in self._files.items():
            if not partial_bytes(self.dest, file):
                self._drop(digest)
            content = "" if file.size == 0 else self._address(file).content
            if content is not None:
                self._drop(digest)
                with open(partial_path(self.dest, file), "wb") as stream:
                    stream.write(_decoded(content, file.path))

    def _drop(self, digest: str) -> None:
        path = partial_path(self.dest, self._files[digest])
        for name in (path, path + _checkpoint.RECORD, path + _checkpoint.COPY):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)

    def _settle(self, which: Iterable[str]) -> list[str]:
        """Verify what is complete; a wrong content is dropped, and an error the second time. Returns what is still to be fetched."""
        self._verifier.wait()
        complete, left = {}, []
        for digest in which:
            if digest in self._verifier.verified:
                continue
            path = partial_path(self.dest, self._files[digest])
            if os.path.exists(path) and not os.path.exists(path + _checkpoint.RECORD):
                complete[digest] = path
            else:
                left.append(digest)
        files = self._files
        paths = {files[digest].path: path for digest, path in complete.items()}
        read = read_all(paths, (files[digest] for digest in complete), self._tell, self._verifier.in_pieces)
        for digest, path in complete.items():
            file, found = files[digest], read[files[digest].path]
            if self._verifier.found(file, path, found):
                continue
            what = self._wrong(file, os.path.getsize(path), found.git_sha1 or found.sha256)
            self._drop(digest)
            self._verifier.forget(digest)
            if digest in self._bad or self._address(file).url is None:
                raise SnapshotError(what)
            self._bad.add(digest)
            left.append(digest)
        return left

    def _wrong(self, file: RepoFile, size: int, found: str) -> str:
        source = self._address(file).url
        where = f"twice from {_aria2.host_of(source)}" if source else "from the controller"
        if size != file.size:
            seen = f"{size} bytes, the Hub says {file.size}"
        else:
            seen = f"a content with hash {found}, the Hub says {file.digest}"
        return (
            f"{file.path} came wrong {where}: {seen}. Something on the way changes it (a proxy, a cache, a mirror),"
            " or the memory or disk of this box is bad. It was not put in place"
        )

    def _give_up_on(self, failures: Mapping[str, _aria2.Failure]) -> None:
        """Raise what another try cannot mend."""
        for digest, failure in failures.items():
            file = self._files[digest]
            if failure.code == _aria2.NO_ROOM:
                room = shutil.disk_usage(self.dest).free
                missing = self.plan.size - self._there(self._files)
                raise SnapshotError(
                    f"the disk became full: {self.dest} has {amount(room)} left, and {amount(missing)} are still to be fetched"
                    f" ({self.progress()}). Make room there and run again, it goes on from there"
                )
            if failure.code == _aria2.CORRUPT_RECORD:
                self._drop(digest)
            if failure.status in REFUSED:
                raise Refused(failure.host, failure.status, file.path)

    def _last_words(self, failures: Mapping[str, _aria2.Failure], left: list[str]) -> SnapshotError:
        digest = next(iter(failures), left[0])
        path, host = self._files[digest].path, _aria2.host_of(self._url(digest))
        failure = failures.get(digest)
        if failure and failure.status == 429:
            return _limited(host, None, self.progress())
        if failure and failure.status and failure.status >= 500:
            cause = f"{host} answers HTTP {failure.status} for {path}"
            remedy = "The server is at fault: run again later"
        else:
            why = f"no byte came for {self._silent_for:.0f} s" if self._silent_for else failure.text if failure else "it ended early"
            cause = f"{path} cannot be fetched from {host}: {why}"
            remedy = "This box reaches that host itself: check its network, name resolution and proxy (https_proxy), then run again"
        return Stuck(f"{cause} ({self.progress()}). {remedy}; it goes on from there")

    def _wait(self, failures: Mapping[str, _aria2.Failure]) -> None:
        limited = next((digest for digest, failure in failures.items() if failure.status == 429), None)
        pause = self.limits.pause
        if limited is not None:
            host, asked = _aria2.host_of(self._url(limited)), asked_to_wait(self._url(limited))
            pause = max(pause, asked or 0)
            if pause > MAX_WAIT:
                raise _limited(host, asked, self.progress())
            self._tell(f"{self.progress()}; waiting {pause:.0f} s, because {host} takes no more requests for now (HTTP 429)")
        time.sleep(max(0.0, min(pause, self.limits.timeout - self._seconds())))


def _limited(host: str, asked: float | None, progress: str) -> SnapshotError:
    wait = f"{asked:.0f} s" if asked else "some minutes"
    return SnapshotError(
        f"{host} lets this box make no more requests for now (HTTP 429): {progress}. Wait {wait} and run again, it goes on from there;"
        " boxes behind one address share a limit"
    )


def _decoded(content: str, path: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as exc:
        raise SnapshotError(f"the content of {path} that the controller handed over is no base64: run again") from exc


def asked_to_wait(url: str) -> float | None:
    """The seconds that a host which answers 429 asks for, if it does."""
    request = urllib.request.Request(url, headers={"Range": "bytes=0-0"})
    try:
        with urllib.request.build_opener().open(request, timeout=10):
            return None
    except urllib.error.HTTPError as exc:
        with exc:
            value = exc.headers.get("Retry-After", "")
        return float(value) if value.isdigit() else None
    except OSError:
        return None


def put_in_place(dest: str, manifest: Manifest, plan: Plan, sha256: Mapping[str, str]) -> dict[str, Present]:
    """Make the verified files visible, take the old ones away, write the marker. Returns what is there now.

    Raises SnapshotError, OSError.
    """
    sources: dict[str, str] = {}
    for file in plan.fetch:
        source = partial_path(dest, file)
        if source in sources.values():
            # One content under two names.
            source = shutil.copyfile(source, f"{source}.{len(sources)}")
        os.chmod(source, 0o644)
        _checkpoint.to_disk(source)
        sources[file.path] = source
    # From here on it is a matter of milliseconds.
    for path in plan.remove:
        remove_file(dest, path)
    for file in plan.fetch:
        target = inside(dest, file.path)
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        os.replace(sources[file.path], target)
    present = dict(plan.keep)
    for file in plan.fetch:
        present[file.path] = Present.of(os.stat(inside(dest, file.path)), sha256[file.digest])
    # A file that its marker vouched for without a sha256 is read once, so that the marker has it.
    for file in manifest.files:
        here = present[file.path]
        if here.sha256 is None and file.sha256 is None:
            present[file.path] = replace(here, sha256=digests(inside(dest, file.path)).sha256)
    replace_file(os.path.join(dest, MARKER), marker_text(manifest, present), mode=0o644)
    remove_parts(dest)
    return present


def remove_parts(dest: str) -> None:
    """Remove what came and is not in place."""
    shutil.rmtree(os.path.join(dest, PARTIAL), ignore_errors=True)


def remove_file(dest: str, path: str) -> None:
    """Remove a file that was in place, and the directories that it leaves empty. Raises SnapshotError, OSError."""
    target = inside(dest, path)
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        os.unlink(target)
    parent = os.path.dirname(target)
    while parent != os.path.realpath(dest):
        try:
            os.rmdir(parent)
        except OSError:
            return  # not empty
        parent = os.path.dirname(parent)


def carry_out(
    dest: str,
    manifest: Manifest,
    plan: Plan,
    addresses: Mapping[str, Address],
    limits: Limits,
    count: Callable[[Came], None],
    tell: Callable[[str], None] = silent,
    fleet: Fleet = Fleet(),  # noqa: B008  frozen
) -> dict[str, Present]:
    """Do what a plan says, in C(dest), which is made if it is not there.

    C(count) is told the bytes that came over the network, also when it fails; C(tell) hears how far it is. Returns what is there now.
    Raises SnapshotError, Stuck, Refused, PeersLost, Aria2Missing, OSError.
    """
    os.makedirs(dest, mode=0o755, exist_ok=True)
    with alone(dest), Verifier(fleet.seed) as verifier:
        transfer = Transfer(dest, plan, addresses, limits, verifier, fleet, tell)
        try:
            sha256 = transfer.run() if plan.fetch else {}
        finally:
            count(transfer.came)
        return put_in_place(dest, manifest, plan, sha256)
