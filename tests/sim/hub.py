# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""An endpoint that speaks the Hugging Face Hub's protocol for models: model info, tree, resolve, a CDN with signed addresses.

Repositories are folders: ROOT/OWNER/NAME is revision `main`, ROOT/OWNER/NAME@REV is revision REV. A commit's hash is made
from the files, so it changes when they do. Large files are redirected to the CDN, which is another origin. In tests
`Hub(root)` runs both in threads; in the lab they are a service. With `xet=True` (`--xet`) large files are offered over Xet, too: its
storage (xet.py) has the CDN's origin, and its addresses expire as the CDN's do.

`POST /_sim/faults` (JSON, see Faults) switches faults, `DELETE /_sim/faults` ends them all; `GET /_sim/requests` shows
every request with its headers, `DELETE /_sim/requests` forgets them. Python's standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import io
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from sim import xet

TOKEN = "hf_sim_token"
GATED = "dgx-spark/gated"
LFS_SUFFIXES = {".safetensors", ".bin", ".gguf", ".pt", ".onnx"}
LFS_NAMES = {"tokenizer.json", "tokenizer.model"}
SECRET = b"signs the addresses of the simulated CDN"
CHUNK = 64 * 1024
TOKEN_SECONDS = 900  # how long a token for Xet's storage is good
DATE = "2026-04-05T12:00:00.000Z"


@dataclass
class Faults:
    """What goes wrong. Counts go down with each request that they hit; a file is named by its path in the repository.

    Offsets are those in what is sent: in the file over HTTP, in each of its xorbs over Xet.
    """

    too_many: int = 0  # so many requests are answered 429 …
    retry_after: int = 1  # … with this Retry-After, in seconds
    error: int = 0  # so many requests are answered with …
    error_status: int = 503  # … this status
    only: str = ""  # regular expression: too_many, error, silent hit only matching paths of requests
    cut: dict[str, int] = field(default_factory=dict)  # file → the connection is closed after so many bytes, each time
    cut_times: int = -1  # … so often (-1: always)
    flip: dict[str, int] = field(default_factory=dict)  # file → the byte at this offset is wrong
    rate: float = 0.0  # bytes per second and connection (0: as fast as it goes)
    link: float = 0.0  # bytes per second of all connections together
    silent: float = 0.0  # seconds without an answer before each request is dropped
    stall: dict[str, int] = field(default_factory=dict)  # file → no byte comes after this offset, the connection stays open
    no_ranges: bool = False  # Range is ignored: the whole file with 200
    cdn_seconds: int = 3600  # how long a signed address is good


@dataclass(frozen=True)
class File:
    """One file of a repository."""

    path: str
    size: int
    sha256: str
    git_sha1: str
    source: Path

    @property
    def lfs(self) -> bool:
        """Is it kept in large-file storage?"""
        name = self.path.rsplit("/", 1)[-1]
        return Path(name).suffix in LFS_SUFFIXES or name in LFS_NAMES

    @property
    def etag(self) -> str:
        """The Hub's ETag of the content."""
        return self.sha256 if self.lfs else self.git_sha1

    @property
    def content(self) -> Content:
        """The whole file, to be sent."""
        return Content(self.path, self.size, self.etag, lambda: self.source.open("rb"))

    @property
    def xorbs(self) -> list[xet.Xorb]:
        """What Xet's storage has of it."""
        return xet.xorbs(self.sha256, self.source, self.size)


@dataclass(frozen=True)
class Content:
    """Something to send: a file, or a xorb that holds a part of it. C(path) is the file's, by which faults know it."""

    path: str
    size: int
    etag: str
    open: Callable[[], io.BufferedIOBase]


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit."""

    repo: str
    revision: str
    commit: str
    files: dict[str, File]


class Store:
    """The repositories below a folder; files are hashed once and again when they change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._hashes: dict[Path, tuple[tuple[int, int], str, str]] = {}
        self._lock = threading.Lock()

    def _file(self, folder: Path, source: Path) -> File:
        stat = source.stat()
        seen = (stat.st_size, stat.st_mtime_ns)
        known = self._hashes.get(source)
        if known is None or known[0] != seen:
            data = source.read_bytes()
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            known = self._hashes[source] = (seen, hashlib.sha256(data).hexdigest(), git)
        return File(source.relative_to(folder).as_posix(), stat.st_size, known[1], known[2], source)

    def _snapshot(self, repo: str, revision: str, folder: Path) -> Snapshot:
        with self._lock:
            files = [self._file(folder, p) for p in sorted(folder.rglob("*")) if p.is_file()]
        listing = "".join(f"{f.path} {f.sha256}\n" for f in files)
        commit = hashlib.sha1(f"{repo}\n{listing}".encode()).hexdigest()
        return Snapshot(repo, revision, commit, {f.path: f for f in files})

    def snapshots(self, repo: str) -> list[Snapshot]:
        """All revisions of a repository, `main` first; empty when there is no such repository."""
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo) or ".." in repo:
            return []
        main = self.root / repo
        found = [self._snapshot(repo, "main", main)] if main.is_dir() else []
        others = sorted(main.parent.glob(f"{main.name}@*")) if main.parent.is_dir() else []
        return found + [self._snapshot(repo, path.name.split("@", 1)[1], path) for path in others if path.is_dir()]

    def repos(self) -> list[str]:
        """The names of all repositories."""
        return sorted({f"{p.parent.name}/{p.name.split('@')[0]}" for p in self.root.glob("*/*") if p.is_dir()})

    def large(self) -> list[File]:
        """All files in large-file storage, of all repositories."""
        return [f for repo in self.repos() for s in self.snapshots(repo) for f in s.files.values() if f.lfs]


def _find(snapshots: list[Snapshot], revision: str) -> Snapshot | None:
    return next((s for s in snapshots if revision in (s.revision, s.commit)), None)


class State:
    """What the Hub and its CDN share."""

    def __init__(self, root: Path, token: str, *, xet: bool) -> None:
        self.store = Store(root)
        self.token = token
        self.xet = xet
        self.faults = Faults()
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.cdn_port = 0
        self._link_free = 0.0  # when the link has sent what was given to it
        self._link_lock = threading.Lock()

    def over_the_link(self, count: int) -> None:
        """Wait until a link of C(faults.link) bytes per second, which all connections share, has sent so many bytes more."""
        if self.faults.link > 0:
            with self._link_lock:
                self._link_free = max(self._link_free, time.monotonic()) + count / self.faults.link
                wait = self._link_free - time.monotonic()
            time.sleep(max(0.0, wait))

    def take(self, count: str, path: str) -> bool:
        """Does this fault hit the request? Counts it down."""
        with self.lock:
            left: int = getattr(self.faults, count)
            if left <= 0 or not re.search(self.faults.only, path):
                return False
            setattr(self.faults, count, left - 1)
            return True


class HubServer(ThreadingHTTPServer):
    """One of the two origins: the Hub or its CDN. Clients take a redirect to another origin for the way to a large file."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], state: State, origin: str) -> None:
        super().__init__(address, _Handler)
        self.state = state
        self.origin = origin

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nothing to report."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    server_version = "SimulatedHub"
    protocol_version = "HTTP/1.1"
    timeout = 60

    def setup(self) -> None:
        """A small buffer, so that what is counted as sent is little more than what the client took before it went away."""
        super().setup()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * CHUNK)

    @property
    def hub(self) -> State:
        """What the origins share."""
        return self.server.state

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are recorded, not printed."""

    # ------------------------------------------------------------------ answers
    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, kind: str = "application/json") -> None:
        self.record["status"] = status
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        if kind:
            self.send_header("Content-Type", kind)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, document: Any, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self._send(status, json.dumps(document).encode(), headers)

    def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        named = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self._json({"error": message}, named, status)

    # ------------------------------------------------------------------ requests
    def do_GET(self) -> None:
        """Any GET."""
        self._request()

    do_HEAD = do_POST = do_DELETE = do_GET  # noqa: N815

    def _request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        headers = dict(self.headers.items())
        request = {"origin": self.server.origin, "method": self.command, "path": self.path, "headers": headers}
        self.record: dict[str, Any] = {**request, "status": None, "bytes": 0}
        if path.startswith("/_sim/"):
            self._control(path, body)
            return
        with self.hub.lock:
            self.hub.requests.append(self.record)
        faults = self.hub.faults
        if faults.silent > 0 and re.search(faults.only, path):
            time.sleep(faults.silent)
            self.close_connection = True
            return
        if self.hub.take("too_many", path):
            wait = str(faults.retry_after)
            self._error(429, "", "Too many requests", {"Retry-After": wait, "RateLimit": f'"resolvers";r=0;t={wait}'})
        elif self.hub.take("error", path):
            self._error(faults.error_status, "", "A simulated failure")
        else:
            self._route(path, query, body)

    def _route(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        # A revision is one part of the address: its slashes are sent as %2F.
        raw = urlsplit(self.path).path
        if path == "/api/whoami-v2":
            self._whoami()
        elif path.startswith("/cdn/"):
            self._cdn(path, query)
        elif self.hub.xet and path.startswith("/v2/reconstructions/"):
            self._reconstruction(path.removeprefix("/v2/reconstructions/"))
        elif self.hub.xet and path.startswith("/xorbs/"):
            self._xorb(path, query)
        elif match := re.fullmatch(
            r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|paths-info|refs|xet-read-token)(?:/([^/]*)(?:/(.*))?)?)?", raw
        ):
            self._api(unquote(match[1]), match[2] or "", unquote(match[3] or "main"), unquote(match[4] or ""), query, body)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", raw):
            self._resolve(unquote(match[1]), unquote(match[2]), unquote(match[3]))
        else:
            self._error(404, "", "Sorry, we can't find the page you are looking for.")

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ").strip()

    def _bad_token(self) -> bool:
        """Answers, and is true, when there is a token and it is not good."""
        if not self._token() or self._token() == self.hub.token:
            return False
        self._error(401, "", "Invalid credentials in Authorization header")
        return True

    def _whoami(self) -> None:
        if not self._bad_token():
            if self._token():
                self._json({"type": "user", "name": "simulated", "auth": {"type": "access_token"}})
            else:
                self._error(401, "", "Invalid username or password.")

    def _snapshots(self, repo: str) -> list[Snapshot]:
        """The repository's snapshots; answers when there are none."""
        found = self.hub.store.snapshots(repo)
        if not found:
            # The Hub does not tell a stranger whether a repository is missing or private.
            status = 404 if self._token() else 401
            self._error(status, "RepoNotFound", "Repository not found" if status == 404 else "Invalid username or password.")
        return found

    def _snapshot(self, repo: str, revision: str) -> Snapshot | None:
        snapshots = self._snapshots(repo)
        found = _find(snapshots, revision)
        if snapshots and found is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    # ------------------------------------------------------------------ API
    def _api(self, repo: str, what: str, revision: str, below: str, query: dict[str, list[str]], body: bytes) -> None:
        if self._bad_token():
            return
        if what == "refs":
            if snapshots := self._snapshots(repo):
                branches = [{"name": s.revision, "ref": f"refs/heads/{s.revision}", "targetCommit": s.commit} for s in snapshots]
                self._json({"branches": branches, "tags": [], "converts": []})
            return
        snapshot = self._snapshot(repo, revision)
        if snapshot is None:
            return
        if what in ("", "revision"):
            self._info(snapshot, blobs=query.get("blobs", [""])[0].lower() in ("true", "1"))
        elif what == "tree":
            self._tree(snapshot, below, query)
        elif what == "xet-read-token":
            self._xet_token(repo)
        else:
            self._paths_info(snapshot, body)

    def _info(self, snapshot: Snapshot, *, blobs: bool) -> None:
        siblings: list[dict[str, Any]] = []
        for file in snapshot.files.values():
            sibling: dict[str, Any] = {"rfilename": file.path}
            if blobs:
                sibling |= {"size": file.size, "blobId": file.git_sha1}
                if file.lfs:
                    sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": 135}
            siblings.append(sibling)
        self._json(
            {
                "_id": snapshot.commit[:24],
                "id": snapshot.repo,
                "modelId": snapshot.repo,
                "author": snapshot.repo.split("/")[0],
                "sha": snapshot.commit,
                "lastModified": DATE,
                "createdAt": DATE,
                "private": False,
                "disabled": False,
                "gated": "manual" if snapshot.repo == GATED else False,
                "downloads": 0,
                "likes": 0,
                "tags": ["safetensors"],
                "siblings": siblings,
                "usedStorage": sum(file.size for file in snapshot.files.values()),
            }
        )

    def _entry(self, file: File) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "oid": file.git_sha1, "size": file.size, "path": file.path}
        if file.lfs:
            entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 135}
            if self.hub.xet:
                entry["xetHash"] = xet.file_hash(file.sha256)
        return entry

    def _tree(self, snapshot: Snapshot, below: str, query: dict[str, list[str]]) -> None:
        recursive = query.get("recursive", [""])[0].lower() in ("true", "1")
        prefix = below.strip("/") + "/" if below.strip("/") else ""
        entries: dict[str, dict[str, Any]] = {}
        for file in snapshot.files.values():
            if not file.path.startswith(prefix):
                continue
            folders = file.path[len(prefix) :].split("/")[:-1]
            for depth in range(1, len(folders) + 1 if recursive else min(len(folders), 1) + 1):
                name = prefix + "/".join(folders[:depth])
                oid = hashlib.sha1(f"{snapshot.commit} {name}".encode()).hexdigest()
                entries.setdefault(name, {"type": "directory", "oid": oid, "size": 0, "path": name})
            if recursive or not folders:
                entries[file.path] = self._entry(file)
        if prefix and not entries:
            self._error(404, "EntryNotFound", f'{below} does not exist on "{snapshot.revision}"')
            return
        listing = [entries[name] for name in sorted(entries)]
        limit = max(1, min(int(query.get("limit", ["1000"])[0]), 1000))
        start = int(query.get("cursor", ["0"])[0] or 0)
        headers = {}
        if start + limit < len(listing):
            following = {**{k: v[0] for k, v in query.items()}, "limit": limit, "cursor": start + limit}
            headers["Link"] = f'<{self._origin()}{urlsplit(self.path).path}?{urlencode(following)}>; rel="next"'
        self._json(listing[start : start + limit], headers)

    def _paths_info(self, snapshot: Snapshot, body: bytes) -> None:
        kind = self.headers.get("Content-Type", "")
        text = body.decode()
        paths = json.loads(text).get("paths", []) if "json" in kind else parse_qs(text).get("paths", [])
        self._json([self._entry(snapshot.files[path]) for path in paths if path in snapshot.files])

    # ------------------------------------------------------------------ files
    def _origin(self) -> str:
        host = self.headers.get("Host") or "{}:{}".format(*self.server.server_address[:2])
        return f"http://{host}"

    def _cdn_origin(self) -> str:
        return f"http://{urlsplit(self._origin()).hostname}:{self.hub.cdn_port}"

    def _gated(self, repo: str) -> bool:
        """Answers, and is true, when the repository wants a token and there is none."""
        if repo != GATED or self._token():
            return False
        message = f"Access to model {repo} is restricted. You must have access to it and be authenticated to access it. Please log in."
        self._error(401, "GatedRepo", message)
        return True

    def _resolve(self, repo: str, revision: str, path: str) -> None:
        if self._bad_token():
            return
        snapshots = self._snapshots(repo)
        if not snapshots or self._gated(repo):
            return
        snapshot = _find(snapshots, revision)
        if snapshot is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        file = snapshot.files.get(path)
        if file is None:
            self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": snapshot.commit})
            return
        headers = {"X-Repo-Commit": snapshot.commit, "Accept-Ranges": "bytes"}
        if file.lfs:
            relative = file.source.relative_to(self.hub.store.root).as_posix()
            address = self._signed(f"/cdn/{file.sha256}/{quote(relative)}")
            linked = {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.sha256}"', "Location": address}
            if self.hub.xet:
                tokens = f"{self._origin()}/api/models/{repo}/xet-read-token/{snapshot.commit}"
                linked |= {"X-Xet-Hash": xet.file_hash(file.sha256), "Link": f'<{tokens}>; rel="xet-auth"'}
            self._send(302, f"Found. Redirecting to {linked['Location']}".encode(), {**headers, **linked}, "text/plain; charset=utf-8")
        else:
            self._content(file.content, headers, "text/plain; charset=utf-8")

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(SECRET, f"{path} {expires}".encode(), hashlib.sha256).hexdigest()

    def _good(self, path: str, expires: str, signature: str) -> bool:
        """Is it our signature, and is it not too late?"""
        return hmac.compare_digest(signature, self._signature(path, expires)) and int(expires) > time.time()

    def _signed(self, path: str) -> str:
        """The address of a path (as it stands in an address) on the CDN, signed until it expires."""
        expires = str(int(time.time()) + self.hub.faults.cdn_seconds)
        signed = urlencode({"Expires": expires, "Signature": self._signature(unquote(path), expires)})
        return f"{self._cdn_origin()}{path}?{signed}"

    def _denied(self, path: str, query: dict[str, list[str]]) -> bool:
        """Answers, and is true, when the address is not signed, or has expired."""
        if self._good(path, query.get("Expires", ["0"])[0], query.get("Signature", [""])[0]):
            return False
        self._send(403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", kind="application/xml")
        return True

    def _missing(self) -> None:
        self._send(404, b"<Error><Code>NoSuchKey</Code></Error>", kind="application/xml")

    def _cdn(self, path: str, query: dict[str, list[str]]) -> None:
        if self._denied(path, query):
            return
        sha256, owner, folder, name = path.removeprefix("/cdn/").split("/", 3)
        snapshots = self.hub.store.snapshots(f"{owner}/{folder.split('@')[0]}")
        file = next((f for s in snapshots for f in s.files.values() if f.sha256 == sha256 and f.path == name), None)
        if file is None:
            self._missing()
            return
        self._content(file.content, {"Accept-Ranges": "bytes"}, "application/octet-stream")

    def _range(self, size: int) -> tuple[int, int] | None:
        """First and last byte asked for; None for the whole file. Raises ValueError when it cannot be satisfied."""
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "").strip())
        if not match or match.groups() == ("", ""):
            return None
        if not match[1]:
            first, last = max(0, size - int(match[2])), size - 1
        else:
            first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
        if first > last:
            raise ValueError("not satisfiable")
        return first, last

    def _content(self, content: Content, headers: dict[str, str], kind: str) -> None:
        named = {"ETag": f'"{content.etag}"', "Content-Disposition": f'inline; filename="{content.path.rsplit("/", 1)[-1]}";'}
        headers = {**headers, **named}
        if self.headers.get("If-None-Match") == headers["ETag"]:
            self._send(304, b"", {**headers, "Content-Length": "0"}, kind)
            return
        try:
            wanted = None if self.hub.faults.no_ranges else self._range(content.size)
        except ValueError:
            self._send(416, b"", {"Content-Range": f"bytes */{content.size}"}, kind)
            return
        first, last = wanted or (0, content.size - 1)
        headers["Content-Length"] = str(last - first + 1)
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{last}/{content.size}"
        self._send(206 if wanted else 200, b"", headers, kind)
        if self.command != "HEAD":
            self._stream(content, first, last + 1)

    def _stream(self, content: Content, position: int, end: int) -> None:
        """Send bytes [position, end) with the faults that this file has."""
        faults, path = self.hub.faults, content.path
        with self.hub.lock:
            cuts = path in faults.cut and faults.cut_times != 0 and position <= faults.cut[path] < end
            if cuts and faults.cut_times > 0:
                faults.cut_times -= 1
        stop = faults.cut[path] if cuts else end
        stalls = path in faults.stall and position <= faults.stall[path] < end
        stop = faults.stall[path] if stalls else stop
        for piece in _pieces(content, position, stop, faults.flip.get(path, -1), faults.rate):
            # Counted before it is sent: who has the last byte finds it counted.
            self.record["bytes"] += len(piece)
            self.hub.over_the_link(len(piece))
            self.wfile.write(piece)
        self.wfile.flush()
        if stalls:
            _until_gone(self.connection)
        if cuts or stalls:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    # ------------------------------------------------------------------ Xet
    def _xet_token(self, repo: str) -> None:
        """Where Xet's storage is, and a token for it: in a document and, as huggingface_hub wants it, in headers."""
        if not self.hub.xet:
            self._error(404, "", "Xet is not offered")
        elif not self._gated(repo):
            expires = str(int(time.time()) + TOKEN_SECONDS)
            token = f"{expires}.{self._signature('xet-read-token', expires)}"
            headers = {"X-Xet-Cas-Url": self._cdn_origin(), "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": expires}
            self._json({"casUrl": self._cdn_origin(), "accessToken": token, "exp": int(expires)}, headers)

    def _reconstruction(self, file_hash: str) -> None:
        """Which parts of which xorbs the wanted bytes of a file are. Version 2, which hf-xet asks first; 404 is its answer for 1."""
        expires, _dot, signature = self._token().partition(".")
        if not expires.isdigit() or not self._good("xet-read-token", expires, signature):
            self._error(401, "", "Missing or expired token")
            return
        file = next((f for f in self.hub.store.large() if xet.file_hash(f.sha256) == file_hash), None)
        if file is None:
            self._error(404, "", "File does not exist")
            return
        try:
            first, last = self._range(file.size) or (0, file.size - 1)
        except ValueError:
            self._error(416, "", "The range begins behind the end of the file")
            return
        self._json(xet.reconstruction(file.xorbs, first, last, lambda xorb: self._signed(f"/xorbs/default/{xorb.hash}")))

    def _xorb(self, path: str, query: dict[str, list[str]]) -> None:
        """Bytes of a xorb."""
        if self._denied(path, query):
            return
        name = path.rsplit("/", 1)[-1]
        found = next(((f, x) for f in self.hub.store.large() for x in f.xorbs if x.hash == name), None)
        if found is None:
            self._missing()
            return
        file, xorb = found
        self._content(Content(file.path, xorb.size, xorb.hash, xorb.open), {"Accept-Ranges": "bytes"}, "application/octet-stream")

    # ------------------------------------------------------------------ control
    def _control(self, path: str, body: bytes) -> None:
        server = self.hub
        if path == "/_sim/requests":
            with server.lock:
                shown = list(server.requests)
                if self.command == "DELETE":
                    server.requests.clear()
            self._json(shown)
        elif path == "/_sim/faults":
            if self.command == "DELETE":
                server.faults = Faults()
            elif self.command == "POST":
                try:
                    server.faults = Faults(**{**asdict(server.faults), **json.loads(body)})
                except (TypeError, ValueError) as error:
                    known = ", ".join(f.name for f in fields(Faults))
                    self._error(400, "", f"{error}; known faults: {known}")
                    return
            self._json(asdict(server.faults))
        elif path == "/_sim/repos":
            snapshots = [s for repo in server.store.repos() for s in server.store.snapshots(repo)]
            self._json([{"repo": s.repo, "revision": s.revision, "commit": s.commit, "files": sorted(s.files)} for s in snapshots])
        else:
            self._error(404, "", "No such control")


def _pieces(content: Content, position: int, end: int, flipped: int, rate: float) -> Iterator[bytes]:
    """The bytes [position, end) of what is sent, the one at `flipped` wrong, at `rate` bytes per second."""
    size = CHUNK if rate <= 0 else max(1, min(CHUNK, int(rate / 10)))
    started, sent = time.monotonic(), 0
    with content.open() as stream:
        stream.seek(position)
        while position < end and (data := stream.read(min(size, end - position))):
            if position <= flipped < position + len(data):
                wrong = bytearray(data)
                wrong[flipped - position] ^= 0xFF
                data = bytes(wrong)
            yield data
            position += len(data)
            sent += len(data)
            if rate > 0:
                time.sleep(max(0.0, sent / rate - (time.monotonic() - started)))


def _until_gone(connection: socket.socket) -> None:
    """Wait until the client closes the connection (at most ten minutes)."""
    connection.settimeout(600)
    try:
        while connection.recv(1):
            pass
    except OSError:
        pass


class Hub:
    """A Hub and its CDN in threads: `with Hub(root) as hub: … hub.url, hub.faults, hub.requests`."""

    def __init__(
        self, root: Path, *, token: str = TOKEN, bind: str = "127.0.0.1", port: int = 0, cdn_port: int = 0, xet: bool = False
    ) -> None:
        self.state = State(root, token, xet=xet)
        self.servers = [HubServer((bind, port), self.state, "hub"), HubServer((bind, cdn_port), self.state, "cdn")]
        self.state.cdn_port = int(self.servers[1].server_address[1])
        self.url = "http://{}:{}".format(*self.servers[0].server_address[:2])
        loop = {"poll_interval": 0.05}
        self.threads = [threading.Thread(target=server.serve_forever, kwargs=loop, daemon=True) for server in self.servers]

    def __enter__(self) -> Hub:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    @property
    def faults(self) -> Faults:
        """The faults; set their fields."""
        return self.state.faults

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests so far: origin ("hub" or "cdn"), method, path, headers, status, bytes of files sent."""
        with self.state.lock:
            return list(self.state.requests)

    def commit(self, repo: str, revision: str = "main") -> str:
        """The commit that a revision stands for. Raises KeyError."""
        found = _find(self.state.store.snapshots(repo), revision)
        if found is None:
            raise KeyError(f"{repo}@{revision}")
        return found.commit


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="A stand-in for the Hugging Face Hub")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--cdn-port", type=int, default=8081)
    parser.add_argument("--token", default=TOKEN)
    parser.add_argument("--xet", action="store_true", help="offer large files over Xet, too")
    options = parser.parse_args()
    with Hub(**vars(options)) as hub:
        hub.threads[0].join()


if __name__ == "__main__":
    main()
