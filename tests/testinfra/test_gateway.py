# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A gateway that was just set up, before a box that was not admitted and on which nothing serves."""

from __future__ import annotations

import time

from testinfra.host import Host

testinfra_hosts = ["docker://spark-sim-3"]
AGENT = "dgx-spark-gateway-agent"
USER = "dgx-spark-gateway"
KEY = "sk-of-the-lab"


def state(host: Host) -> str:
    """The line of HAProxy's server state that is about the box."""
    ask = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock'); s.sendall(b'show servers state vllm\\n');"
    )
    ask += " print(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
    with host.sudo():
        shown: str = host.check_output("python3 -c %s", ask)
    return next(line for line in shown.splitlines() if " spark-sim-3 " in line)


def test_both_services_run_and_start_with_the_host(host: Host) -> None:
    for name in ("haproxy", AGENT):
        assert host.service(name).is_running
        assert host.service(name).is_enabled


def test_the_api_is_open_and_stats_metrics_and_the_agent_are_for_the_host_alone(host: Host) -> None:
    assert host.socket("tcp://0.0.0.0:8000").is_listening
    for port in (8404, 8405, 8406):
        assert host.socket(f"tcp://127.0.0.1:{port}").is_listening
        assert not host.socket(f"tcp://0.0.0.0:{port}").is_listening


def test_without_a_box_that_takes_part_the_gateway_says_so(host: Host) -> None:
    curl = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8000"
    assert host.check_output(f"{curl}/health") == "503"
    assert host.check_output(f"{curl}/v1/models") == "503"


def test_vllm_s_other_doors_are_shut(host: Host) -> None:
    for path in ("/metrics", "/tokenize", "/v1"):
        assert host.check_output(f"curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:8000{path}") == "404"


def test_prometheus_finds_what_it_looks_for(host: Host) -> None:
    assert 'haproxy_server_status{proxy="vllm",server="spark-sim-3"' in host.check_output("curl -s http://127.0.0.1:8405/metrics")


def test_a_box_that_is_new_is_under_maintenance_also_after_a_reload_and_a_restart(host: Host) -> None:
    assert state(host).split()[6] == "5"
    with host.sudo():
        host.check_output("systemctl reload haproxy")
        assert host.file("/var/lib/haproxy/server-state").contains(" spark-sim-3 ")
        host.check_output("systemctl restart haproxy")
    assert state(host).split()[6] == "5"


def test_the_key_is_for_the_agent_alone(host: Host) -> None:
    with host.sudo():
        file = host.file("/etc/dgx-spark/gateway-api-key")
        assert (file.user, file.mode) == (USER, 0o600)
        assert file.content_string.strip() == KEY
        for path in (f"/etc/systemd/system/{AGENT}.service", "/etc/dgx-spark/gateway-agent.json", "/etc/haproxy/haproxy.cfg"):
            assert not host.file(path).contains(KEY)
        assert KEY not in host.check_output("ps -eo args")
        assert USER in host.check_output("ps -eo user:32,args | grep [_]haproxy_agent")


def test_the_agent_finds_out_that_nothing_serves(host: Host) -> None:
    ask = "import socket; s = socket.create_connection(('127.0.0.1', 8406)); s.sendall(b'spark-sim-3\\n'); print(s.recv(999).decode())"
    end = time.monotonic() + 60
    while not (answer := host.check_output("python3 -c %s", ask)).startswith("down #"):
        assert time.monotonic() < end, answer
        time.sleep(1)
    assert "cannot be reached" in answer
