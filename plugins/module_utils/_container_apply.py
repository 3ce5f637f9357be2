# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Carry a container plan out: its preconditions, its steps in order, and the way back when one fails before the new container runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._container_engine import Creation, Engine, EngineError
from ansible_collections.dgx.spark.plugins.module_utils._container_plan import (
    Create,
    Names,
    Plan,
    Remove,
    Rename,
    Seen,
    Start,
    Step,
    Stop,
    WaitForMemory,
)
from ansible_collections.dgx.spark.plugins.module_utils._memory import (
    Memory,
    MemoryShort,
    drop_caches,
    read_memory,
    required_gib,
    wait_available,
)
from ansible_collections.dgx.spark.plugins.module_utils._ports import PortTaken, check_free, overlap


class ApplyError(Exception):
    """A step failed; the message says which, and what serves now."""


@dataclass(frozen=True)
class MemoryRules:
    """C(required) overrides what the flags reserve (GiB); C(timeout) bounds the wait for it (seconds)."""

    required: float | None
    timeout: float
    drop_caches: bool

    def needed(self, spec: Mapping[str, Any] | None, memory: Memory) -> float:
        if self.required is not None:
            return self.required
        return required_gib(spec["args"], spec["gpus"], spec["image"]["vllm_version"], memory.total) if spec else 0.0


@dataclass
class Box:
    """What the steps act on, and who hears of those that take their time.

    C(wait) and C(memory) are there so that tests need no clock and no /proc.
    """

    engine: Engine
    memory_rules: MemoryRules
    memory: Callable[[], Memory] = read_memory
    wait: Callable[[float, float], None] = wait_available
    tell: Callable[[str], None] = lambda text: None
    warnings: list[str] = field(default_factory=list)


def check_room(plan: Plan, names: Names, seen: Seen, box: Box) -> None:
    """Before anything stops: can what is to be started get its memory and its port at all? Raises MemoryShort, PortTaken, EngineError."""
    for step in plan.steps:
        if not isinstance(step, WaitForMemory) or not step.needed:
            continue
        memory = box.memory()
        needed = box.memory_rules.needed(step.spec, memory)
        if needed > memory.total:
            raise MemoryShort(
                f"{needed:.1f} GiB of memory are needed, the box has {memory.total:.1f} in all: lower gpu-memory-utilization or set"
                " memory_required_gib"
            )
        if step.spec:
            _check_port(step.spec["bind"], step.spec["port"], names, seen, box.engine)


def _check_port(bind: str, port: int, names: Names, seen: Seen, engine: Engine) -> None:
    # What runs under these names is stopped by the plan, or has its place taken over by name.
    ours = (names.current, names.previous, names.next)
    holders = [held.container for held in engine.published() if held.port == port and overlap(held.address, bind)]
    for holder in holders:
        if holder not in ours:
            raise PortTaken(f"port {port} is held by the container {holder}: stop it ('docker stop {holder}') or choose another port")
    # One that crashes again and again holds its port now and then, and Docker does not list it.
    flapping = any(container and container.status == "restarting" for container in (seen.current, seen.previous, seen.next))
    if not holders and not flapping:
        check_free(bind, port)


def apply(plan: Plan, box: Box, creation: Creation | None) -> None:
    """Carry the steps out. C(creation) is what Create creates. Raises ApplyError after the way back was gone as far as possible."""
    done: list[Step] = []
    for step in plan.steps:
        try:
            _carry_out(step, box, creation)
        except (EngineError, MemoryShort) as exc:
            raise ApplyError(f"{exc}. {_go_back(done, step, box.engine)}") from exc
        # From its start on the new container serves: what came before is not taken back any more.
        done = [] if isinstance(step, Start) else [*done, step]


def _carry_out(step: Step, box: Box, creation: Creation | None) -> None:
    engine = box.engine
    match step:
        case Create(name):
            if creation is None:
                raise EngineError(f"nothing says what {name} is: give it a spec")
            engine.create(name, creation)
        case Stop(name, timeout, _, park):
            box.tell(f"stopping {name}, which may take {timeout} s: its streams end first")
            engine.stop(name, timeout)
            if park:
                # Only now: were it done first and this run killed, what serves would not come back after a reboot.
                engine.set_restart_policy(name, "no")
        case WaitForMemory(spec, needed):
            if needed and box.memory_rules.drop_caches:
                warning = drop_caches()
                if warning:
                    box.warnings.append(warning)
            wanted = box.memory_rules.needed(spec, box.memory())
            box.tell(f"waiting until {wanted:.1f} GiB of memory are available, {box.memory().available:.1f} are")
            try:
                box.wait(wanted, box.memory_rules.timeout)
            except MemoryShort as exc:
                if needed:
                    raise
                box.warnings.append(f"It is stopped, but its memory is not back: {exc}")
        case Start(name, restart_policy):
            engine.start(name, restart_policy)
        case Rename(name, new_name):
            engine.rename(name, new_name)
        case Remove(name):
            engine.remove(name)


def _go_back(done: list[Step], failed: Step, engine: Engine) -> str:
    """Undo what was done since the last start. Returns the sentence that says what serves now."""
    steps = [*done, failed]
    created = [step.name for step in steps if isinstance(step, Create)]
    stopped = [step for step in steps if isinstance(step, Stop) and step.revive is not None]
    try:
        if stopped and isinstance(failed, Start) and failed.name not in created:
            _rest(failed.name, engine)
        for name in created:
            # It may run: Docker can fail to answer and start it all the same.
            _rest(name, engine)
        for stop in stopped:
            engine.start(stop.name, stop.revive or "no")
        for name in created:
            engine.remove(name)
    except EngineError as exc:
        names = ", ".join(stop.name for stop in stopped) or ", ".join(created)
        return f"Going back failed too ({exc}): look at 'docker ps -a' and start what should serve with 'docker start {names}'"
    if stopped:
        return f"{stopped[0].name} was started again as it was"
    if created:
        return f"{created[0]} was removed again; nothing that served was touched"
    untouched = all(isinstance(step, WaitForMemory | Start) for step in steps)
    return "Nothing that served was touched" if untouched else "Run again to go on where it stopped"


def _rest(name: str, engine: Engine) -> None:
    """Make sure that a container whose start is taken back does not run and does not come back by itself."""
    found = engine.container(name)
    if found is not None:
        engine.stop(name, found.stop_timeout)
        engine.set_restart_policy(name, "no")
