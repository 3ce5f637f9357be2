# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import socket

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._ports import PortTaken, check_free, overlap


def listener(address: str) -> tuple[socket.socket, int]:
    made = socket.create_server((address, 0))
    return made, made.getsockname()[1]


def test_a_listener_is_named() -> None:
    made, port = listener("127.0.0.1")
    with made, pytest.raises(PortTaken, match=rf"port {port} is held by .* \(pid {os.getpid()}\): stop it or choose another port"):
        check_free("0.0.0.0", port)
    check_free("0.0.0.0", port)


def test_another_address_is_another_port() -> None:
    made, port = listener("127.0.0.1")
    with made:
        check_free("127.0.0.2", port)


def test_a_connection_that_fades_away_does_not_hold_its_port() -> None:
    made, port = listener("127.0.0.1")
    client = socket.create_connection(("127.0.0.1", port))
    server, _address = made.accept()
    # Whoever closes first keeps the connection for a while.
    server.close()
    client.close()
    made.close()
    check_free("0.0.0.0", port)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(PortTaken, match="192.0.2.1 is no address of this box"):
        check_free("192.0.2.1", 8002)


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        ("0.0.0.0", "127.0.0.1", True),
        ("", "127.0.0.1", True),
        ("10.0.0.1", "::", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "127.0.0.1", False),
    ],
)
def test_addresses_get_in_each_others_way(one: str, other: str, answer: bool) -> None:
    assert [overlap(*pair) for pair in ((one, other), (other, one))] == [answer, answer]
