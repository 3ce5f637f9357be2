# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The Makefile's helpers: packages come from where pip takes them; a stage's end is seen, whatever it does."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools import stages
from tools.make_venv import pip_settings, uv_settings


def start(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-uc", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def test_the_environment_outweighs_the_files() -> None:
    listing = (
        ":env:.index-url='https://env/simple'\nglobal.index-url='https://global/simple'\ninstall.no-index='false'\nlist.format='columns'\n"
    )
    assert pip_settings(listing) == {"index-url": "https://env/simple", "no-index": "false"}


def test_uv_is_told_all_that_pip_knows() -> None:
    listing = r"""
global.index-url='https://mirror.example/simple'
global.extra-index-url='\nhttps://a.example/simple\nfile:///srv/index'
global.find-links='/srv/wheels'
global.trusted-host='mirror.example'
global.cert='/etc/ca.pem'
global.proxy='http://proxy.example:3128'
global.default-timeout='180'
global.timeout='60'
"""
    arguments, environment = uv_settings(pip_settings(listing))
    assert arguments == [
        *("--index-strategy", "unsafe-best-match"),
        *("--default-index", "https://mirror.example/simple"),
        *("--index", "https://a.example/simple", "--index", "file:///srv/index"),
        *("--find-links", "/srv/wheels"),
        *("--allow-insecure-host", "mirror.example"),
    ]
    assert environment == {"SSL_CERT_FILE": "/etc/ca.pem", "ALL_PROXY": "http://proxy.example:3128", "UV_HTTP_TIMEOUT": "60"}


def test_uv_is_told_nothing_that_nobody_said() -> None:
    assert uv_settings({"no-index": "false"}) == (["--index-strategy", "unsafe-best-match"], {})
    assert "--no-index" in uv_settings({"no-index": "true"})[0]


def test_a_silent_stage_is_seen_to_live(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    process = start("import time; print('one', end=''); time.sleep(1.8); print(' two')")
    stages.follow(process, "slow", log, quiet=0.5)
    assert process.wait(timeout=5) == 0
    assert log.read_text() == "one two\n"
    assert "── slow: running for" in capfd.readouterr().out


def test_a_stage_that_exceeds_its_bound_is_ended_with_its_children(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as main does
    started = time.monotonic()
    process = start("import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])")
    stages.follow(process, "endless", tmp_path / "log", bound=1)
    assert process.poll() not in (None, 0)
    assert time.monotonic() - started < 10


def test_what_a_stage_leaves_running_does_not_hold_it(tmp_path: Path) -> None:
    started = time.monotonic()
    process = start("import subprocess; print(subprocess.Popen(['sleep', '20']).pid)")
    try:
        stages.follow(process, "daemon", tmp_path / "log")
        assert process.wait(timeout=5) == 0
        assert time.monotonic() - started < 10
    finally:
        subprocess.run(["kill", (tmp_path / "log").read_text().strip()], check=True)


@pytest.mark.parametrize(
    ("line", "closing"),
    [
        ("12 passed in 3.45s", ["12 passed in 3.45s"]),
        ("==== 1 failed, 2 passed in 65.00s (0:01:05) ====", ["1 failed, 2 passed in 65.00s (0:01:05)"]),
        ("ok: 12 passed in 3.45s", []),
        ("12 files already formatted", []),
        ("FAILED tests/unit/test_a.py::test_b[c d] - assert 1 == 2", ["FAILED tests/unit/test_a.py::test_b[c d] - assert 1 == 2"]),
        ("ERROR: could not find a file", []),
    ],
)
def test_pytests_closing_lines_are_found(line: str, closing: list[str]) -> None:
    assert [found.decode() for found in stages.PYTEST_END.findall(f"before\n{line}\nafter\n".encode())] == closing
