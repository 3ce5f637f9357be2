# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter dgx.spark.preloaded: what workers need is loaded before they are forked.

Ansible forks a worker for each task of each host. A worker that uses a plugin loads it, with its documentation, and its end forgets that.
What the process has loaded from which workers are forked, they have. Templates of a play's own keywords are read there.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

from ansible.plugins.loader import connection_loader, filter_loader

PACKAGE = __name__.rpartition(".")[0]
# One plugin by two names is loaded twice: that of the default, and the full one, which inventories give.
CONNECTIONS = ("ssh", "ansible.builtin.ssh")
COLLECTION = ".".join(PACKAGE.split(".")[1:3])


def names() -> Iterator[str]:
    """Every filter of the collection."""
    package = importlib.import_module(PACKAGE)
    for module in pkgutil.iter_modules(package.__path__):
        yield from importlib.import_module(f"{PACKAGE}.{module.name}").FilterModule().filters()


def preloaded(value: Any) -> Any:
    for name in names():
        filter_loader.get(f"{COLLECTION}.{name}")
    for name in CONNECTIONS:
        connection_loader.get(name, class_only=True)
    return value


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"preloaded": preloaded}
