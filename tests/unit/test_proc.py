# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._proc import (
    ESTABLISHED,
    LISTEN,
    clients_of,
    owners,
    parse_cgroup,
    parse_tcp,
    tcp_sockets,
)

# Of a DGX Spark (aarch64), which is little-endian as x86-64 is.
TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F42 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:2CAA 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 20 4 30 10 -1
"""
TCP6 = """  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 00000000000000000000000000000000:1F42 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4713 1
   1: 0000000000000000FFFF00000100007F:2CAA 0000000000000000FFFF00000100007F:C351 01 00000000:00000000 00:00000000 00000000 0 0 4714 1
   2: 00000000000000000000000001000000:2CAA 00000000000000000000000001000000:C352 01 00000000:00000000 00:00000000 00000000 0 0 4715 1
"""


def test_sockets_are_read_as_the_kernel_writes_them() -> None:
    listening, connected = parse_tcp(TCP)
    assert (listening.local, listening.port, listening.state, listening.inode) == ("0.0.0.0", 8002, LISTEN, "4711")
    assert (connected.local, connected.port, connected.peer, connected.peer_port) == ("127.0.0.1", 11434, "127.0.0.1", 50000)
    assert connected.state == ESTABLISHED


def test_addresses_of_the_new_internet_too() -> None:
    every, mapped, loopback = parse_tcp(TCP6)
    assert (every.local, every.port, every.inode) == ("::", 8002, "4713")
    assert (mapped.peer, mapped.peer_port) == ("127.0.0.1", 50001)
    assert loopback.peer == "::1"


def test_a_listener_of_this_process_is_found_with_its_clients() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (listener,) = (found for found in tcp_sockets() if found.port == port and found.state == LISTEN)
        [owner] = list(owners([listener.inode]).values())
        assert (owner.pid, owner.name) == (os.getpid(), Path("/proc/self/comm").read_text().strip())
        assert clients_of(port) == []
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert clients_of(port) == [f"127.0.0.1:{client.getsockname()[1]}"]


def test_nobody_owns_an_inode_that_is_none() -> None:
    assert owners(["0"]) == {}
    assert owners([]) == {}


ID = "8f9cdd7fcba22f440b36eccb01e3cf37" * 2


@pytest.mark.parametrize(
    "text",
    [
        f"0::/system.slice/docker-{ID}.scope\n",
        f"0::/docker/{ID}\n",
        f"12:memory:/docker/{ID}\n11:cpu,cpuacct:/docker/{ID}\n",
        f"0::/system.slice/docker-{ID}.scope/init.scope\n",
    ],
)
def test_a_processs_container_is_in_its_cgroup(text: str) -> None:
    assert parse_cgroup(text) == ID


@pytest.mark.parametrize("text", ["0::/\n", "0::/user.slice/user-1000.slice/session-2.scope\n", "", f"0::/a{ID}\n"])
def test_other_processes_are_in_none(text: str) -> None:
    assert parse_cgroup(text) is None
