# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""The documents behind a digest, asked of a registry by its HTTP API, because Docker's own store forgets them after a pull.

What comes is known by its sha256, so it does not matter which mirror gave it.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from urllib.parse import urlencode

from ansible_collections.dgx.spark.plugins.module_utils._container_engine import RegistryAccess
from ansible_collections.dgx.spark.plugins.module_utils._oci import digest_of

_TIMEOUT = 60  # seconds for an answer
_MAX = 8 * 1024 * 1024  # bytes of a document; registries take 4 MiB
_KINDS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json,"
    " application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)


class RegistryError(Exception):
    """No registry gave a document. The message says what each answered."""


class Registry:
    """One repository, as an engine reaches it."""

    def __init__(self, access: RegistryAccess) -> None:
        self._access = access
        # Without proxies of the engine's own, those of the environment.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler(dict(access.proxies) or None)).open

    def document(self, digest: str) -> bytes:
        """The document of that name. Raises RegistryError."""
        answers = []
        for endpoint in self._access.endpoints:
            try:
                content = self._ask(f"{endpoint}/v2/{self._access.repository}/manifests/{digest}")
            except (OSError, ValueError) as exc:
                answers.append(f"{endpoint}: {exc}")
                continue
            if digest_of(content) == digest:
                return content
            answers.append(f"{endpoint}: it gave other bytes")
        raise RegistryError(f"no registry gives the manifest {digest} of {self._access.repository} ({'; '.join(answers)})")

    def _ask(self, url: str) -> bytes:
        try:
            return self._get(url, None)
        except urllib.error.HTTPError as exc:
            if exc.code != 401:
                raise
            challenge = exc.headers.get("WWW-Authenticate", "")
        return self._get(url, self._authorization(challenge))

    def _authorization(self, challenge: str) -> str | None:
        """What answers a registry that asks who we are: a token of the host that it names, or the login itself."""
        kind, _space, rest = challenge.partition(" ")
        login = self._access.login
        basic = f"Basic {base64.b64encode(':'.join(login).encode()).decode()}" if login else None
        if kind.lower() != "bearer":
            return basic
        asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        query = urlencode({key: asked[key] for key in ("service", "scope") if key in asked})
        answer = json.loads(self._get(f"{asked.get('realm', '')}?{query}", basic))
        return f"Bearer {answer.get('token') or answer.get('access_token')}"

    def _get(self, url: str, authorization: str | None) -> bytes:
        request = urllib.request.Request(url, headers={"Accept": _KINDS})
        if authorization:
            request.add_unredirected_header("Authorization", authorization)
        with self._open(request, timeout=_TIMEOUT) as response:
            content: bytes = response.read(_MAX)
        return content
