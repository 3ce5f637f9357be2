# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The real aria2c against the lab's Hub: how each failure comes back, and that nothing of an address does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _aria2
from ansible_collections.dgx.spark.plugins.module_utils._aria2 import (
    Aria2Missing,
    Failure,
    Job,
    Outcome,
    Patience,
    check_url,
    parse_failures,
    run,
)
from sim.hub import Hub

REPO = "o/r"
LARGE = os.urandom(6_000_000)
QUICK = Patience(tries=2, wait=0, silence=2)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    (root / REPO).mkdir(parents=True)
    (root / REPO / "model.safetensors").write_bytes(LARGE)
    (root / REPO / "config.json").write_text("{}")
    return root


@pytest.fixture
def hub(root: Path) -> Iterator[Hub]:
    with Hub(root) as running:
        yield running


def job(hub: Hub, path: str = "model.safetensors", name: str = "large") -> Job:
    return Job(f"{hub.url}/{REPO}/resolve/{hub.commit(REPO)}/{path}", name)


def fetch(jobs: list[Job], directory: Path, **options: Any) -> Outcome:
    return run(jobs, str(directory), **{"connections": 4, "timeout": 20, "patience": QUICK, "split_size": "1M", **options})


def whole(path: Path) -> bool:
    """Is it the large file? (Not compared in an assertion, which would print megabytes.)"""
    return path.read_bytes() == LARGE


def fetched_again(hub: Hub, directory: Path) -> int:
    """Complete the large file in a second run; the bytes that this one got. Slow enough that no buffer holds much."""
    hub.faults.rate = 3_000_000
    first = len(hub.requests)
    assert fetch([job(hub)], directory, connections=2) == Outcome({}, False)
    assert whole(directory / "large")
    return sum(request["bytes"] for request in hub.requests[first:])


def test_it_fetches_with_several_connections_and_leaves_only_the_files(hub: Hub, tmp_path: Path) -> None:
    hub.faults.rate = 5_000_000
    assert fetch([job(hub), job(hub, "config.json", "small")], tmp_path) == Outcome({}, False)
    assert whole(tmp_path / "large")
    assert sorted(os.listdir(tmp_path)) == ["large", "small"]
    ranges = {request["headers"].get("Range") for request in hub.requests if request["origin"] == "cdn"}
    assert len(ranges) >= 3


def test_no_address_is_an_argument(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    real = subprocess.Popen

    def spy(arguments: list[str], **options: Any) -> Any:
        seen.append(arguments)
        return real(arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", spy)
    fetch([job(hub)], tmp_path)
    assert seen
    assert [text for text in seen[0] if "http" in text or hub.url in text] == []


@pytest.mark.parametrize(
    ("faults", "code", "status", "text"),
    [
        ({"error": 99, "error_status": 403}, 22, 403, "status=403"),
        ({"error": 99, "error_status": 401}, 24, 401, ""),
        ({"error": 99, "error_status": 404}, 3, 404, "Resource not found"),
        ({"error": 99, "error_status": 500}, 22, 500, "status=500"),
        ({"error": 99, "error_status": 503}, 29, 503, "status=503"),
        ({"too_many": 99}, 22, 429, "status=429"),
        ({"cut": {"model.safetensors": 2_500_000}}, 1, None, "Got EOF from the server"),
        ({"silent": 9}, 2, None, "Timeout"),
    ],
)
def test_a_failure_has_its_code_status_and_words(
    hub: Hub, tmp_path: Path, faults: dict[str, Any], code: int, status: int | None, text: str
) -> None:
    for name, value in faults.items():
        setattr(hub.faults, name, value)
    outcome = fetch([job(hub)], tmp_path, patience=Patience(tries=1, wait=1, silence=1))
    failure = outcome.failures["large"]
    assert (failure.code, failure.status, failure.host) == (code, status, hub.url.removeprefix("http://"))
    assert text in failure.text
    assert not outcome.timed_out
    assert "http" not in failure.text and "Signature" not in failure.text


def test_nobody_there_and_no_such_name(tmp_path: Path) -> None:
    jobs = [Job("http://127.0.0.1:9/x?secret=1", "refused"), Job("http://nowhere.invalid/x?secret=1", "unknown")]
    failures = fetch(jobs, tmp_path).failures
    assert "Connection refused" in failures["refused"].text
    assert failures["unknown"].code == 19
    assert "nowhere.invalid" in failures["unknown"].text
    assert "secret" not in str(failures)


def test_each_file_has_its_own_failure(hub: Hub, tmp_path: Path) -> None:
    jobs = [job(hub, "none.json", "none"), job(hub, "config.json", "small"), Job("http://127.0.0.1:9/x", "refused")]
    outcome = fetch(jobs, tmp_path)
    assert sorted(outcome.failures) == ["none", "refused"]
    assert outcome.failures["none"].status == 404
    assert (tmp_path / "small").exists()


def test_a_server_without_ranges_is_good_enough(hub: Hub, tmp_path: Path) -> None:
    hub.faults.no_ranges = True
    fetch([job(hub)], tmp_path)
    assert whole(tmp_path / "large")


def test_it_ends_at_its_bound_and_goes_on_from_there(hub: Hub, tmp_path: Path) -> None:
    hub.faults.rate = 800_000
    started = time.monotonic()
    assert fetch([job(hub)], tmp_path, timeout=1.2, connections=2).timed_out
    assert time.monotonic() - started < 10
    assert (tmp_path / "large.aria2").exists()
    there = (tmp_path / "large").stat().st_blocks * 512
    assert fetched_again(hub, tmp_path) <= len(LARGE) - there + 200_000


def fetches_into(directory: Path) -> bool:
    """Does an aria2 run that writes there?"""
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return f"--dir={directory}" in listed


@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_a_process_that_is_killed_takes_aria2_with_it_and_a_new_one_goes_on(
    hub: Hub, tmp_path: Path, kill: Callable[[int, int], None]
) -> None:
    """With os.killpg aria2 is killed at the same moment, as by a machine that goes down."""
    hub.faults.rate = 400_000
    target = job(hub)
    program = (
        "import sys; from ansible_collections.dgx.spark.plugins.module_utils._aria2 import Job, run;"
        "run([Job(sys.argv[1], 'large')], sys.argv[2], 2, 60, split_size='1M')"
    )
    search = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-c", program, target.url, str(tmp_path)]
    victim = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": search}, start_new_session=True)
    end = time.monotonic() + 15
    while time.monotonic() < end and not ((tmp_path / "large").exists() and (tmp_path / "large").stat().st_blocks * 512 > 1_200_000):
        time.sleep(0.05)
    kill(victim.pid, signal.SIGKILL)
    victim.wait()
    # Left alone it would go on for longer than this.
    end = time.monotonic() + 3
    while time.monotonic() < end and fetches_into(tmp_path):
        time.sleep(0.1)
    assert not fetches_into(tmp_path)
    there = (tmp_path / "large").stat().st_blocks * 512
    assert 1_200_000 < there < 4_000_000
    # At most what came after the last record, which is a second old.
    assert fetched_again(hub, tmp_path) <= len(LARGE) - there + 1_000_000


@pytest.mark.parametrize("record", [b"", b"junk" * 30])
def test_a_record_that_is_broken_is_told_apart(hub: Hub, tmp_path: Path, record: bytes) -> None:
    (tmp_path / "large").write_bytes(b"x" * 1000)
    (tmp_path / "large.aria2").write_bytes(record)
    assert fetch([job(hub)], tmp_path).failures["large"].code == _aria2.CORRUPT_RECORD


FULL_DISK = """
11/23 21:44:37 [ERROR] CUID#7 - Download aborted. URI=http://cdn/x?Signature=s3cret
Exception: [AbstractCommand.cc:403] errorCode=9 URI=http://cdn/x?Signature=s3cret
  -> [DownloadCommand.cc:124] errorCode=9 Write disk cache flush failure index=3

11/23 21:44:37 [ERROR] Error when trying to flush write cache
Exception: [AbstractDiskWriter.cc:453] errNum=28 errorCode=9 Failed to write into the file /d/large, cause: No space left on device

11/23 21:44:37 [NOTICE] Download GID#27f20c1292a4265d not complete: /d/large
"""


def test_a_full_disk_is_told_apart() -> None:
    failures = parse_failures(FULL_DISK.splitlines(), [Job("http://cdn/x?Signature=s3cret", "large")])
    assert failures == {"large": Failure("cdn", _aria2.NO_ROOM, None, "Write disk cache flush failure index=3")}
    # Without a line of its own the file is named where it is given up.
    rest = FULL_DISK.split("\n\n", 1)[1].splitlines()
    assert parse_failures(rest, [Job("http://cdn/x", "large")])["large"].code == _aria2.NO_ROOM


def test_without_aria2_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(Aria2Missing, match="apt install aria2"):
        run([Job("http://x/y", "y")], str(tmp_path), 4, 5, program="aria2c-that-is-not-there")


@pytest.mark.parametrize("url", ["ftp://x/y", "http://x/y z", "http://x/y\n dir=/etc", "http://x/y\tz", "file:///etc/passwd", "http://"])
def test_an_address_cannot_bring_options_with_it(url: str) -> None:
    with pytest.raises(ValueError):
        check_url(url)
