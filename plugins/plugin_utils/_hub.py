# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Ask the Hub, on the controller: what belongs to a revision, and where a box that has no token gets each file.

Answers are shared by the processes of a run through files, so the Hub is asked once for a fleet. The token is sent to the Hub's own host
only: a redirect to a content network is not followed, its signed address is what a box gets.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from ansible_collections.dgx.spark.plugins.module_utils._aria2 import check_url, host_of
from ansible_collections.dgx.spark.plugins.module_utils._manifest import (
    MAX_HANDED_OVER,
    Manifest,
    RepoFile,
    SnapshotError,
    make_file,
    manifest_from,
)
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import Digests
from ansible_collections.dgx.spark.plugins.plugin_utils._shared import shared

try:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.file_download import get_hf_file_metadata
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils._http import get_session, hf_raise_for_status

    # The HTTP library's own errors: httpx until huggingface_hub 1, httpx2 since 2. Its name is not ours to know.
    TransportError: Any = HfHubHTTPError.__mro__[1]
except ImportError as _missing:
    MISSING: ImportError | None = _missing
else:
    MISSING = None

REQUEST_TIMEOUT = 30  # seconds
TRIES = 4  # while the Hub answers that it cannot answer
CONNECTS = 3  # while nobody answers
MAX_WAIT = 300  # seconds; the Hub counts requests in windows of this length
MAX_AGE = 600  # seconds for which a signed address is handed out again; the Hub's are good for an hour
SILENCE = 30  # seconds for which a fleet's other boxes do not wait for a Hub that did not answer the first
T = TypeVar("T")


class HubError(SnapshotError):
    """The Hub says no. The message names cause and remedy, and never contains the token."""


class HubUnavailable(HubError):
    """The Hub did not answer, or not now."""


@dataclass(frozen=True)
class Listing:
    """A revision as the Hub shows it. Of a closed repository a box gets nothing by its plain addresses."""

    manifest: Manifest
    closed: bool
    gated: bool


class Hub:
    """One Hub, as one token sees it. C(cache) is a directory of this run, which only its user may read."""

    def __init__(
        self,
        endpoint: str,
        token: str | None,
        cache: Path,
        say: Callable[[str], None] = lambda text: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if MISSING:
            raise HubError(
                f"the controller cannot ask the Hub ({MISSING}): install huggingface_hub >= 1.0 for the Python that runs ansible"
            ) from MISSING
        self.endpoint = endpoint.rstrip("/")
        if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", self.endpoint):
            raise HubError(f"the endpoint {endpoint!r} is no http address: use https://huggingface.co or a mirror's")
        self._token = token or None
        self._cache = cache
        self._say = say
        self._sleep = sleep
        self._clock = clock

    def listing(self, repo: str, revision: str) -> Listing:
        """What belongs to a revision; asked once in a run, so that a branch does not move between boxes. Raises HubError."""
        with self._kept("listing", repo, revision) as kept:
            if not kept:
                with self._kept("silence") as silence:
                    if silence.get("time", 0) > self._clock() - SILENCE:
                        raise HubUnavailable(silence["why"])
                    try:
                        listing = self._ask_listing(repo, revision)
                    except HubUnavailable as exc:
                        silence.update(time=self._clock(), why=str(exc))
                        raise
                kept.update(manifest=listing.manifest.to_json(), closed=listing.closed, gated=listing.gated)
            return Listing(manifest_from(kept["manifest"]), kept["closed"], kept["gated"])

    def addresses(
        self, listing: Listing, paths: Sequence[str], newer_than: float = 0.0, redirect: bool = False
    ) -> dict[str, dict[str, str]]:
        """Where a box gets these files: {path: {"url": …} or {"content": base64}}.

        With C(redirect) it gets the Hub's own addresses of an open repository: the Hub chooses a host for the box then, and not for the
        controller. Kept ones are used again while they are younger than MAX_AGE seconds and than C(newer_than), a time of the clock.
        Raises HubError.
        """
        manifest = listing.manifest
        files = {file.path: file for file in manifest.files}
        if redirect and not listing.closed:
            return {path: {"url": self._plain(manifest, files[path])} for path in paths}
        with self._kept("addresses", manifest.repo, manifest.commit) as kept:
            oldest = max(newer_than, self._clock() - MAX_AGE)
            stale = [path for path in paths if path not in kept or kept[path]["time"] <= oldest]
            now = self._clock()
            with ThreadPoolExecutor(8) as pool:
                found = list(pool.map(lambda path: self._address(listing, files[path]), stale))
            kept.update({path: {"time": now, "address": address} for path, address in zip(stale, found, strict=True)})
            return {path: kept[path]["address"] for path in paths}

    def content(self, listing: Listing, path: str) -> bytes:
        """A small file's content, verified. Raises HubError."""
        manifest = listing.manifest
        file = next((file for file in manifest.files if file.path == path), None)
        if file is None:
            raise HubError(f"{manifest.repo} has no {path} at {manifest.revision} (commit {manifest.commit})")
        if file.size > MAX_HANDED_OVER:
            raise HubError(f"{path} of {manifest.repo} is {file.size} bytes long: at most {MAX_HANDED_OVER} bytes are read here")
        url = f"{self.endpoint}/{manifest.repo}/resolve/{manifest.commit}/{quote(path)}"
        content = base64.b64decode(self._content(manifest, file, url))
        found = Digests.of(content)
        if not found.match(file):
            raise HubError(
                f"{path} came with hash {found.git_sha1 if file.git_sha1 else found.sha256} from {host_of(url)}, which says itself that"
                f" it is {file.digest}: something on the way changes it (a proxy, a cache, a mirror)"
            )
        return content

    @contextlib.contextmanager
    def _kept(self, *what: str) -> Iterator[dict[str, Any]]:
        """What this run knows already; whoever comes second waits for the first. What is put in is kept."""
        key = hashlib.sha256(json.dumps([self.endpoint, self._token, *what]).encode()).hexdigest()
        with shared(self._cache / f"dgx-spark-hub-{key}.json") as known:
            yield known

    # ------------------------------------------------------------------ requests
    def _ask_listing(self, repo: str, revision: str) -> Listing:
        api = HfApi(endpoint=self.endpoint, token=self._token or False)
        info = self._ask(repo, revision, lambda: api.model_info(repo, revision=revision, files_metadata=True, timeout=REQUEST_TIMEOUT))
        if not info.sha or not info.siblings:
            raise HubError(f"{repo} at {revision} has no commit or no files on {self.endpoint}: is it a model's repository?")
        files = []
        for sibling in info.siblings:
            if (large := sibling.lfs) is not None:
                # Its blob is a pointer: git's hash of that says nothing of the content.
                files.append(make_file(sibling.rfilename, large.size, large.sha256, None))
            else:
                files.append(make_file(sibling.rfilename, sibling.size, None, sibling.blob_id))
        gated = bool(info.gated)
        closed = gated or (self._token is not None and info.private is not False)
        return Listing(Manifest(repo, revision, info.sha, tuple(sorted(files, key=lambda file: file.path))), closed, gated)

    def _address(self, listing: Listing, file: RepoFile) -> dict[str, str]:
        manifest = listing.manifest
        plain = self._plain(manifest, file)
        if file.sha256 is None and not listing.closed:
            return {"url": plain}
        found = self._ask(
            manifest.repo,
            manifest.revision,
            lambda: get_hf_file_metadata(plain, token=self._token or False, timeout=REQUEST_TIMEOUT, endpoint=self.endpoint),
        )
        if _origin(found.location) == _origin(plain) and listing.closed:
            return {"content": self._content(manifest, file, plain)}
        try:
            return {"url": check_url(found.location)}
        except ValueError as exc:
            raise HubError(f"the Hub redirects {file.path} to something that cannot be fetched: {exc}") from exc

    def _plain(self, manifest: Manifest, file: RepoFile) -> str:
        return f"{self.endpoint}/{manifest.repo}/resolve/{manifest.commit}/{quote(file.path)}"

    def _content(self, manifest: Manifest, file: RepoFile, url: str) -> str:
        if file.size > MAX_HANDED_OVER:
            raise HubError(
                f"{self.endpoint} gives {file.path} ({file.size} bytes) to holders of a token only, without an address that expires;"
                f" the controller hands over files of up to {MAX_HANDED_OVER} bytes: use https://huggingface.co, or another mirror"
            )

        def read() -> bytes:
            # Redirects are followed; the library drops the token where they leave the host.
            headers = build_hf_headers(token=self._token or False)
            with get_session().stream("GET", url, headers=headers, timeout=REQUEST_TIMEOUT, follow_redirects=True) as response:
                if response.status_code >= 400:
                    response.read()
                hf_raise_for_status(response)
                content = b""
                for piece in response.iter_bytes():
                    content += piece
                    if len(content) > file.size:
                        break
                return content

        content = self._ask(manifest.repo, manifest.revision, read)
        if len(content) != file.size:
            raise HubError(f"{file.path} came with another length than the Hub's {file.size} bytes from {host_of(url)}: run again")
        return base64.b64encode(content).decode()

    def _ask(self, repo: str, revision: str, request: Callable[[], T]) -> T:
        """Ask, and ask again while the Hub may answer another time. Raises HubError."""
        for attempt in range(1, TRIES + 1):
            try:
                return request()
            except HfHubHTTPError as exc:
                status = exc.response.status_code
                wait = _asked_wait(exc.response.headers) if status == 429 else float(2**attempt)
                if (status != 429 and status < 500) or attempt == TRIES or wait > MAX_WAIT:
                    raise self._translated(exc, repo, revision) from None
                self._say(f"{host_of(self.endpoint)} answers HTTP {status}: asking again in {wait:.0f} s ({attempt} of {TRIES - 1})")
                self._sleep(wait)
            except HFValidationError as exc:
                raise HubError(f"{repo!r} is no repository: write OWNER/NAME, as in the address of its page") from exc
            except OfflineModeIsEnabled as exc:
                raise HubUnavailable("the Hub is not asked, because HF_HUB_OFFLINE is set on the controller: unset it") from exc
            except TransportError as exc:
                if attempt == CONNECTS:
                    raise HubUnavailable(
                        f"the controller does not reach {self.endpoint} ({type(exc).__name__}: {self._clean(str(exc))}): check its network,"
                        " name resolution and proxy (https_proxy), or set endpoint to a mirror"
                    ) from None
                self._sleep(1)
            except (ValueError, TypeError, KeyError, AttributeError) as exc:
                raise HubError(
                    f"what answers at {self.endpoint} does not speak the Hub's protocol ({type(exc).__name__}): check endpoint"
                ) from exc
        raise AssertionError("unreachable")

    def _translated(self, exc: HfHubHTTPError, repo: str, revision: str) -> HubError:
        """The Hub's answer, with what to do about it."""
        status, page = exc.response.status_code, f"{self.endpoint}/{repo}"
        said = self._clean(exc.server_message or "no reason given")
        if isinstance(exc, GatedRepoError):
            if self._token:
                return HubError(
                    f"{repo} is gated, and the token's account has no access to it: accept the conditions on {page} with that account"
                )
            return HubError(
                f"{repo} is gated: accept the conditions on {page}, make a token on {self.endpoint}/settings/tokens and set token (in the"
                " role model: HF_TOKEN in the controller's environment, or model_token)"
            )
        if isinstance(exc, RevisionNotFoundError):
            return HubError(f"{repo} has no revision {revision}: see its branches and commits on {page}/tree/main")
        if isinstance(exc, RepositoryNotFoundError):
            also = "or the token's account may not see it" if self._token else "or it is private: then set token"
            return HubError(f"there is no repository {repo} on {self.endpoint}, {also}")
        if isinstance(exc, RemoteEntryNotFoundError):
            return HubError(f"{repo} lists a file that it does not have at {revision}: the repository changes just now; run again")
        if status == 401:
            return HubError(
                f"the Hub refuses the token (HTTP 401): it is wrong or was revoked; make another on {self.endpoint}/settings/tokens"
            )
        if status == 403:
            return HubError(f"the token may not read {repo} (HTTP 403, {said}): give it read access to gated repositories")
        if status == 429:
            return HubUnavailable(
                f"{self.endpoint} takes no more requests for now (HTTP 429): it asks to wait {_asked_wait(exc.response.headers):.0f} s. Run"
                " again then; a token raises the limit, and the boxes behind one address share it"
            )
        if status >= 500:
            return HubUnavailable(f"{self.endpoint} answers HTTP {status} ({said}): the server is at fault; run again later")
        return HubError(f"{self.endpoint} answers HTTP {status} for {repo} at {revision} ({said}): check repo, revision and endpoint")

    def _clean(self, text: str) -> str:
        """One line of somebody else's text, without the token."""
        text = " ".join(text.split())[:300]
        return text.replace(self._token, "…") if self._token else text


def _asked_wait(headers: Mapping[str, str]) -> float:
    """The seconds that a 429 asks for: Retry-After, or the reset of RateLimit; 60 when it does not say."""
    if (value := headers.get("retry-after") or "").isdigit():
        return float(value)
    match = re.search(r"\bt=(\d+)", headers.get("ratelimit") or "")
    return float(match[1]) if match else 60.0


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
