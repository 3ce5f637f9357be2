# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Follows the log of one start, of a container or a file, until it is decided whether the server started.

Docker is asked over its socket with nothing but the standard library: its API takes C(since) in nanoseconds, which python3-docker cuts to
whole seconds, and a plain socket can be waited for with a bound while the container's state is looked at in between.
"""

from __future__ import annotations

import json
import os
import socket
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ansible_collections.dgx.spark.plugins.module_utils._startup_log import StartupLog, nanoseconds

# After the decisive line, wait so long for what was written before it: standard output and standard error are two pipes.
_GRACE = 0.4
# A container that died has so long to hand over the end of its log, and to be started again by who stopped it.
_DRAIN = 1.2
# The exit codes of a process that somebody stopped: by itself after SIGTERM, killed, terminated.
_STOPPED = (0, 137, 143)
# A silent stream is opened anew after this time, in case the engine lost track of a rotated file.
_SILENCE = 15.0
# Docker may take so long to answer.
_ANSWER = 30
_BLOCK = 1 << 18


class LogError(Exception):
    """The log cannot be read; the message says why and what to do."""


@dataclass(frozen=True)
class State:
    """What runs. C(started_at) is Docker's RFC 3339 time, None for a container that never ran and for a file."""

    alive: bool
    status: str = "running"
    started_at: str | None = None
    finished_at: str | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    restarts: int = 0
    tty: bool = False


@dataclass(frozen=True)
class End:
    """How the wait ended.

    C(kind) is one of ready, fatal (a line says so), died, crash_loop, timeout and begins_late (it serves, but its start's lines are gone).
    C(seconds) passed between the container's start and its ready line; None when that is not known. C(waited) is what this wait took.
    """

    kind: str
    waited: float
    seconds: float | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    restarts: int = 0
    # What the start before this one died of, where the log still has it.
    earlier: str = ""
    progress: str = ""


class Stream(Protocol):
    """The log of one start, from its beginning."""

    def read(self, timeout: float) -> bytes | None:
        """The next bytes; None when none came in time; empty when the log has ended."""

    def close(self) -> None: ...


class Source(Protocol):
    """What writes the log."""

    def state(self) -> State: ...

    def open(self, state: State) -> Stream: ...

    def earlier(self, state: State) -> bytes:
        """The end of the log before this start."""


def follow(source: Source, log: StartupLog, timeout: float, poll: float = 1.0, tell: Callable[[str], None] = lambda doing: None) -> End:
    """Feed C(log) with the current start until it is decided, C(timeout) seconds at most; look at the state every C(poll) seconds.

    C(tell) hears as often what it is doing. Raises LogError.
    """
    began = time.monotonic()
    return _Follower(source, log, began, began + timeout, poll, tell).run()


class _Follower:
    def __init__(self, source: Source, log: StartupLog, began: float, deadline: float, poll: float, tell: Callable[[str], None]) -> None:
        self.source, self.log = source, log
        self.began, self.deadline, self.poll, self.tell = began, deadline, poll, tell

    def run(self) -> End:
        state = self.source.state()
        while state.started_at or state.alive:
            self.log.restart()
            after = self.one_start(state)
            if isinstance(after, End):
                return after
            # Somebody started it again: what counts is the new start.
            state = after
        return self.end("died", state)

    def one_start(self, start: State) -> End | State:
        """Follow one start; the state of the next one if there is another before this one is decided."""
        while True:
            stream = self.source.open(start)
            try:
                after = self.read(start, stream)
            finally:
                stream.close()
            if after is not None:
                return after
            # The engine closed the log of a container that lives (its own restart, a rotation), or was silent for long: read this start's
            # log again, which adds nothing twice.
            time.sleep(min(0.2, max(0.0, self.deadline - time.monotonic())))

    def read(self, start: State, stream: Stream) -> End | State | None:
        """Read one stream to a decision, or to where it has to be opened again (None)."""
        checked = heard = time.monotonic()
        caught_up = False
        while True:
            data = stream.read(min(self.poll, max(0.0, self.deadline - time.monotonic())))
            now = time.monotonic()
            caught_up = caught_up or data is None or len(data) < 1 << 12
            if data:
                heard = now
                self.log.feed(data)
            elif data == b"":
                self.log.close()
            if self.log.ended:
                end = self.decided(start, stream)
                if end is not None:
                    return end
            if not data or now - checked >= self.poll:
                checked = now
                self.tell(self.log.progress())
                after = self.changed(start, stream, drained=data == b"", silent=data is None)
                if after is not None:
                    return after
            if now >= self.deadline and (caught_up or now >= self.deadline + 30):
                return self.end("timeout", start)
            if data == b"" or now - heard > _SILENCE:
                return None

    def changed(self, start: State, stream: Stream, drained: bool, silent: bool = False) -> End | State | None:
        """What became of the container since C(start): how it ended, its next start, or None while this start goes on."""
        seen = self.source.state()
        if seen.started_at != start.started_at:
            return self.end("crash_loop", seen) if seen.restarts > start.restarts else seen
        # A restart by Docker is a death; one from before we came counts unless this start gets ready at once.
        if seen.status == "restarting" or (start.restarts > 0 and silent):
            return self.end("crash_loop", seen)
        return None if seen.alive else self.died(start, seen, stream, drained)

    def decided(self, start: State, stream: Stream) -> End | State | None:
        """The end that the log shows, unless the container did not live to see it or another start has begun in its log."""
        until = time.monotonic() + _GRACE
        drained = False
        while not drained and (left := until - time.monotonic()) > 0:
            data = stream.read(left)
            drained = data == b""
            if data:
                self.log.feed(data)
        if self.log.fatal:
            return self.end("fatal", self.source.state())
        if self.log.ready:
            return self.changed(start, stream, drained) or self.end("ready", start)
        return self.end("begins_late", start) if self.log.begins_late else None

    def died(self, start: State, seen: State, stream: Stream, drained: bool) -> End | State:
        """How it died; the new start instead, if somebody stopped it only to start it again."""
        until = time.monotonic() + _DRAIN
        while not drained and (left := until - time.monotonic()) > 0:
            data = stream.read(left)
            drained = data == b""
            if data:
                self.log.feed(data)
        self.log.close()
        if self.log.fatal:
            return self.end("fatal", seen)
        while seen.exit_code in _STOPPED and time.monotonic() < until:
            time.sleep(0.1)
            now = self.source.state()
            if now.started_at != start.started_at:
                return self.end("crash_loop", now) if now.restarts > start.restarts else now
        return self.end("died", seen)

    def end(self, kind: str, state: State) -> End:
        earlier = ""
        if kind == "crash_loop" and not self.log.fatal:
            earlier = self.log.last_error or _cause(self.source.earlier(state))
        return End(
            kind=kind,
            waited=round(time.monotonic() - self.began, 2),
            seconds=_between(state.started_at, self.log.ready_at) if kind == "ready" else None,
            exit_code=None if state.alive and state.status != "restarting" else state.exit_code,
            oom_killed=state.oom_killed,
            error=state.error,
            restarts=state.restarts,
            earlier=earlier,
            progress=self.log.progress(),
        )


def _cause(text: bytes) -> str:
    log = StartupLog()
    log.feed(text)
    log.close()
    return log.fatal.line if log.fatal else log.last_error


def _between(started_at: str | None, ready_at: str | None) -> float | None:
    if not started_at or not ready_at:
        return None
    return round(max(0, nanoseconds(ready_at) - nanoseconds(started_at)) / 1e9, 2)


def begins(state: State) -> int:
    """From when on lines belong to this start, in nanoseconds since 1970.

    The engine notes StartedAt after the process runs, so its first lines may be older, and it stamps the last lines of the process before
    when it reads them, so they may be younger than FinishedAt. The middle between the two separates them.
    """
    started = nanoseconds(state.started_at or "1970-01-01T00:00:00Z")
    margin = 50_000_000
    if state.finished_at and nanoseconds(state.finished_at) < started:
        margin = min(1_000_000_000, (started - nanoseconds(state.finished_at)) // 2)
    elif state.alive:
        margin = 1_000_000_000
    return started - margin


class FileSource:
    """A file with the log of one or more starts; the newest counts. It may grow, shrink and be replaced."""

    def __init__(self, path: str) -> None:
        self.path = path
        if not os.path.isfile(path):
            raise LogError(f"there is no file {path}")

    def state(self) -> State:
        return State(alive=True)

    def open(self, state: State) -> FileStream:
        return FileStream(self.path)

    def earlier(self, state: State) -> bytes:
        return b""


class FileStream:
    def __init__(self, path: str) -> None:
        self._path = path
        self._file = _open(path)

    def read(self, timeout: float) -> bytes | None:
        until = time.monotonic() + timeout
        while True:
            data = self._file.read(_BLOCK) or self._after_a_rotation()
            if data:
                return data
            left = until - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(0.1, left))

    def _after_a_rotation(self) -> bytes:
        """What comes next if the file was replaced or cut, else nothing."""
        here = os.fstat(self._file.fileno())
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return b""  # between two files of a rotation
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            # It may have grown once more before it was replaced.
            rest = self._file.read(_BLOCK)
            if rest:
                return bytes(rest)
            self._file.close()
            self._file = _open(self._path)
        elif there.st_size < self._file.tell():
            self._file.seek(0)
        else:
            return b""
        return bytes(self._file.read(_BLOCK))

    def close(self) -> None:
        self._file.close()


def _open(path: str) -> Any:
    try:
        return open(path, "rb", buffering=0)
    except OSError as exc:
        raise LogError(f"cannot read {path}: {exc.strerror}") from exc


class ContainerSource:
    """A container of the Docker engine behind a Unix socket (C(DOCKER_HOST), else /var/run/docker.sock)."""

    def __init__(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        host = (os.environ if environment is None else environment).get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        if not host.startswith("unix://"):
            raise LogError(
                f"DOCKER_HOST is {host}, but the log is read over a Unix socket only: unset it, or run this on the engine's own host"
            )
        self._socket = host.removeprefix("unix://")

    def state(self) -> State:
        connection, code, early = self._ask("json", {})
        body = early + _drain(connection)
        if code == 404:
            raise LogError(f"there is no container {self.name} on this box: see 'docker ps -a'")
        if code != 200:
            raise LogError(f"Docker cannot look at {self.name}: {_message(body) or code}")
        document = json.loads(body)
        state = document["State"]
        return State(
            alive=bool(state.get("Running") or state.get("Paused") or state.get("Restarting")),
            status=state.get("Status") or "",
            started_at=_time(state.get("StartedAt")),
            finished_at=_time(state.get("FinishedAt")),
            exit_code=state.get("ExitCode"),
            oom_killed=bool(state.get("OOMKilled")),
            error=state.get("Error") or "",
            restarts=int(document.get("RestartCount") or 0),
            tty=bool((document.get("Config") or {}).get("Tty")),
        )

    def open(self, state: State) -> DockerStream:
        return self._logs(state, since=begins(state), follow="1")

    def earlier(self, state: State) -> bytes:
        if not state.started_at:
            return b""
        start = begins(state)
        # An hour is more than a start takes; the newest of it says why the process before this one died.
        stream = self._logs(state, since=start - 3600 * 1_000_000_000, follow="0", until=_seconds(start))
        text = b""
        try:
            while data := stream.read(5):
                text = (text + data)[-_BLOCK:]
        finally:
            stream.close()
        return text

    def _logs(self, state: State, since: int, **query: str) -> DockerStream:
        wanted = {"stdout": "1", "stderr": "1", "timestamps": "1", "since": _seconds(since), **query}
        connection, code, early = self._ask("logs", wanted)
        if code == 200:
            return DockerStream(connection, early, state.tty)
        message = _message(early + _drain(connection)) or code
        raise LogError(
            f"Docker cannot show the log of {self.name}: {message}. Its log driver must be readable, such as json-file or local"
            " ('docker inspect -f {{.HostConfig.LogConfig.Type}}')"
        )

    def _ask(self, what: str, query: Mapping[str, str]) -> tuple[socket.socket, int, bytes]:
        """Send one request: the connection, the status, and what came of the body already."""
        path = f"/containers/{urllib.parse.quote(self.name, safe='')}/{what}?{urllib.parse.urlencode(query)}"
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_ANSWER)
        try:
            connection.connect(self._socket)
            # HTTP/1.0: the body comes as it is and ends with the connection.
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                data = connection.recv(_BLOCK)
                if not data:
                    raise OSError("it closed the connection without an answer")
                head += data
        except OSError as exc:
            connection.close()
            raise LogError(f"Docker does not answer on {self._socket} ({exc}): see 'systemctl status docker'") from exc
        head, early = head.split(b"\r\n\r\n", 1)
        return connection, int(head.split(None, 2)[1]), early


class DockerStream:
    """The body of a logs request. Without a terminal it comes in frames: eight bytes that end with the length, then the text."""

    def __init__(self, connection: socket.socket, early: bytes, tty: bool) -> None:
        self._connection, self._early, self._tty = connection, early, tty
        self._rest = b""

    def read(self, timeout: float) -> bytes | None:
        until = time.monotonic() + timeout
        while True:
            data, self._early = self._early, b""
            if not data:
                self._connection.settimeout(max(0.001, until - time.monotonic()))
                try:
                    data = self._connection.recv(_BLOCK)
                except TimeoutError:
                    return None
                except OSError as exc:
                    raise LogError(f"Docker stopped sending the log ({exc}): see 'systemctl status docker'") from exc
                if not data:
                    return b""
            text = data if self._tty else self._unframe(self._rest + data)
            if text:
                return text

    def _unframe(self, data: bytes) -> bytes:
        at, texts = 0, []
        while at + 8 <= len(data):
            end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "big")
            if end > len(data):
                break
            texts.append(data[at + 8 : end])
            at = end
        self._rest = data[at:]
        return b"".join(texts)

    def close(self) -> None:
        self._connection.close()


def _drain(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    try:
        with connection:
            return b"".join(iter(lambda: connection.recv(_BLOCK), b""))
    except OSError as exc:
        raise LogError(f"Docker stopped in the middle of an answer ({exc}): see 'systemctl status docker'") from exc


def _message(body: bytes) -> str:
    """The words of one of Docker's error answers."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace").strip()


def _seconds(nanos: int) -> str:
    return f"{nanos // 1_000_000_000}.{nanos % 1_000_000_000:09d}"


def _time(stamp: str | None) -> str | None:
    """Docker's time, None where it means never."""
    return None if not stamp or stamp.startswith("0001-") else stamp
