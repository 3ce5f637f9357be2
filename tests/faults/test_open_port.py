# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Somebody who has no business there tries to get in, and looks for the key everywhere."""

from __future__ import annotations

import json
import re
import secrets
import socket
import subprocess
from pathlib import Path

import pytest
from faults.box import BOX, KEY_FILE, NAME, NEIGHBOUR, ROOT, Box, Served

KEYS = "/var/lib/dgx-spark/api-keys"
_KNOCK = """
import socket, sys, time
knocking = socket.socket(type=socket.SOCK_DGRAM)
for _ in range(40):
    knocking.sendto(b"hello", (sys.argv[1], int(sys.argv[2])))
    time.sleep(0.2)
"""


@pytest.fixture
def key(served: Served) -> str:
    return KEY_FILE.read_text().strip()


def write_key(path: Path) -> str:
    """What a user does who wants a new key."""
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32) + "\n")
    return path.read_text().strip()


def test_without_the_key_nobody_gets_in(served: Served, key: str) -> None:
    assert oct(KEY_FILE.stat().st_mode & 0o777) == "0o600"
    for wrong in ("", "sk-guessed", key[:-1]):
        assert served.box.for_neighbour("/v1/models", wrong) == 401
    assert served.box.for_neighbour("/v1/models", key) == 200
    # Without a gateway, who watches the boxes may do so from anywhere.
    assert served.box.for_neighbour("/health") == served.box.for_neighbour("/metrics") == 200
    evidence = json.loads(served.box.sh(f"cat /var/lib/dgx-spark/evidence/{NAME}.json"))
    assert evidence["container"]["wants_key"] is True
    assert [probe["ok"] for probe in evidence["probes"] if probe["name"] == "api_key"] == [True]


def test_a_new_key_is_a_reason_is_seen_nowhere_and_the_way_back_has_the_old_one(served: Served, key: str, tmp_path: Path) -> None:
    box, file = served.box, tmp_path / "new"
    new = write_key(file)
    run = box.play(api_key_file=str(file), arguments=["--diff", "-vvv"])
    assert run.rc == 0, run.why
    run.says("api_key: (set) → (set to something else)", f'-H "Authorization: Bearer $(cat {file})"')
    assert (box.for_neighbour("/v1/models", key), box.for_neighbour("/v1/models", new)) == (401, 200)

    reports = [path.read_text() for path in (ROOT / ".cache" / "faults" / BOX).rglob("*") if path.is_file()]
    shown = "docker inspect $(docker ps -aq); for c in $(docker ps -aq); do docker logs $c; done; ps axww; journalctl --no-pager"
    seen = "\n".join([run.output, *reports, box.sh(f"({shown}) 2>&1")])
    assert "dgx_spark_guard.RequireKey" in seen
    assert [name for name, secret in (("old", key), ("new", new)) if secret in seen] == []
    places = "/etc /home /root /run /srv /tmp /var/lib/dgx-spark /var/log /var/tmp"
    files = box.sh(f"grep -rlF -e {key} -e {new} {places} 2>/dev/null || true").splitlines()
    assert len(files) == 2
    assert {re.sub(r"\.[0-9a-f]{16}/", ".ID/", path) for path in files} == {f"{KEYS}/{NAME}.ID/api_key"}
    assert set(box.sh(f"stat -c '%a %U' {KEYS} {' '.join(files)}").splitlines()) == {"700 root", "600 root"}

    back = box.play("rollback", api_key_file=str(file))
    assert back.rc == 0, back.why
    back.says("proven")
    served.serves_again()
    assert box.for_neighbour("/v1/models", new) == 401


@pytest.mark.long
def test_an_open_port_is_opened_by_name_only_and_said_to_be_open(served: Served) -> None:
    box = served.box
    run = box.play(vllm_api_key="", vllm_bind=box.address)
    assert run.rc == 0, run.why
    run.says("api_key: (set) → not set", f"bind: 0.0.0.0 → {box.address}", f"No API key on {BOX}: whoever reaches the port may use it.")
    assert "Authorization" not in run.output
    assert "Paris" in box.answer(key="")
    assert box.sh("curl -s -m 3 -o /dev/null -w '%{http_code}' http://127.0.0.1:8002/health || true") == "000"
    assert box.play("rollback", vllm_api_key="").rc == 0
    served.serves_again()


@pytest.mark.long
def test_what_is_restored_is_proven_with_the_key_it_had(served: Served) -> None:
    run = served.box.play(vllm_api_key="", vllm_env={"SIM_SCENARIO": "cutlass-moe"})
    assert run.rc != 0
    run.says("VLLM_CUTLASS", "What served before was restored and answers again.")
    served.serves_again()


def test_a_controller_without_the_fleets_key_makes_no_other(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere"
    run = served.box.play(api_key_file=str(file))
    assert run.rc != 0
    run.says(f"What serves on {BOX} wants an API key that was not made here: there is no {file}", "Nothing that serves was touched.")
    assert not file.exists()
    # To look is another matter.
    verified = served.box.play("verify", api_key_file=str(file))
    assert verified.rc == 0, verified.why
    served.still_serves()


def test_check_mode_makes_no_key_and_a_key_that_others_may_read_is_refused(served: Served, tmp_path: Path) -> None:
    box, file = served.box, tmp_path / "key"
    assert box.play("remove").rc == 0
    assert box.sh(f"ls {KEYS}") == ""
    check = box.play(api_key_file=str(file), arguments=["--check"])
    assert check.rc == 0, check.why
    assert not file.exists()
    write_key(file)
    file.chmod(0o644)
    run = box.play(api_key_file=str(file))
    assert run.rc != 0
    run.says(f"can be read by others: 'chmod 600 {file}'")


def this_machine(box: Box) -> str:
    """The address that the box sees of the machine where the tests run."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((box.address, 9))
        return str(probe.getsockname()[0])


def neighbour_gets_through_by_udp(box: Box, port: int) -> bool:
    """Does a datagram of the neighbour's reach the box?"""
    listen = f"import socket; s = socket.socket(type=2); s.bind(('', {port})); s.settimeout(10); print(s.recv(9))"
    with subprocess.Popen(["docker", "exec", NEIGHBOUR, "python3", "-c", _KNOCK, box.address, str(port)]):
        return "hello" in box.sh(f'python3 -c "{listen}" || true')


@pytest.mark.long
def test_where_some_are_named_only_they_reach_the_port(served: Served, key: str) -> None:
    """A gateway is named by its group: tests/fleet has one."""
    box = served.box
    for changed in (True, False):
        run = box.play(vllm_allow_from=[this_machine(box)])
        assert run.rc == 0, run.why
        assert (f"{BOX} " in run.output, " changed=0 " in run.output) == (True, not changed)
    for path in ("/health", "/metrics", "/v1/models"):
        assert box.for_neighbour(path, key) == 0
    assert neighbour_gets_through_by_udp(box, 8002)
    served.still_serves()
    assert box.sh("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8002/health") == "200"

    # Docker makes its own rules anew when it starts, and somebody flushes everything.
    box.sh(f"systemctl restart docker && docker start {NAME}")
    assert box.for_neighbour("/health") == 0
    box.sh("nft delete table inet dgx_spark")
    allowed = box.play(vllm_allow_from=["172.30.99.0/24"])
    assert allowed.rc == 0, allowed.why
    assert box.for_neighbour("/metrics") == 200

    assert box.play().rc == 0
    assert box.sh("nft list ruleset | grep -c dgx_spark || true") == "0"
    assert box.sh("systemctl list-unit-files 'dgx-spark-firewall*' --no-legend || true") == ""
