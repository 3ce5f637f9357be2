# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Is a TCP port of this machine free, and who holds it?"""

from __future__ import annotations

import errno
import socket

from ansible_collections.dgx.spark.plugins.module_utils._proc import LISTEN, owners, tcp_sockets


class PortTaken(Exception):
    """The port cannot be listened on; the message says who does."""


def overlap(one: str, other: str) -> bool:
    """Do listeners on these two addresses of one port get in each other's way? Empty, 0.0.0.0 and :: are every address."""
    every = ("", "0.0.0.0", "::")
    return one == other or one in every or other in every


def check_free(bind: str, port: int) -> None:
    """Could something listen there now? Raises PortTaken with the process that does. Connections that only fade away do not count."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
            probe.listen(1)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise PortTaken(f"port {port} is held by {holder(port)}: stop it or choose another port") from exc
            if exc.errno == errno.EADDRNOTAVAIL:
                raise PortTaken(f"{bind} is no address of this box: bind to one of its own, or to 0.0.0.0") from exc
            if exc.errno != errno.EACCES:  # a low port, and we are not root: Docker is
                raise


def holder(port: int) -> str:
    """The process that listens on a port, as C(name (pid 123)); of another user's only root sees it."""
    listeners = [found.inode for found in tcp_sockets() if found.port == port and found.state == LISTEN]
    for process in owners(listeners).values():
        return f"{process.name} (pid {process.pid})"
    return "another process"
