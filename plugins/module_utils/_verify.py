# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Verify what has come while the rest still comes, and give it to the fleet at once, if this box is its seed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from ansible_collections.dgx.spark.plugins.module_utils._manifest import RepoFile
from ansible_collections.dgx.spark.plugins.module_utils._seed import Seed
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import Digests, read_one

READERS = 2  # files that are read at the same time; the link has the other cores


class Verifier:
    """Reads in the background. `verified` has the sha256 of every right content, by digest; what is wrong is for the caller to see to."""

    def __init__(self, seed: Seed | None = None) -> None:
        self.verified: dict[str, str] = {}
        self.wrong: set[str] = set()
        self._seed = seed
        self._pool = ThreadPoolExecutor(READERS)
        self._jobs: dict[str, Future[None]] = {}

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *_of: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def in_pieces(self) -> bool:
        """Are the hashes of pieces needed?"""
        return self._seed is not None

    def look(self, file: RepoFile, path: str) -> None:
        """Begin to read a file that is complete, unless that has begun."""
        if file.digest not in self._jobs:
            self._jobs[file.digest] = self._pool.submit(self._read, file, path)

    def look_all(self, paths: Mapping[str, str], files: Iterable[RepoFile]) -> None:
        """The same for many: C(paths) has where each file of the manifest is that is there, by its path in the repository."""
        for file in files:
            if file.path in paths:
                self.look(file, paths[file.path])

    def forget(self, digest: str) -> None:
        """It will be fetched again."""
        self._jobs.pop(digest, None)
        self.wrong.discard(digest)

    def wait(self) -> None:
        """Until all that was begun is read."""
        for job in list(self._jobs.values()):
            job.result()

    def found(self, file: RepoFile, path: str, digests: Digests) -> bool:
        """Is this content right? Then the fleet may have it."""
        if not digests.match(file):
            self.wrong.add(file.digest)
            return False
        self.verified[file.digest] = digests.sha256
        if self._seed:
            self._seed.offer(file, path, digests.pieces)
        return True

    def _read(self, file: RepoFile, path: str) -> None:
        # What cannot be read now is read once more in the end, and the error is told there.
        with contextlib.suppress(OSError):
            self.found(file, path, read_one(path, file, self.in_pieces))
