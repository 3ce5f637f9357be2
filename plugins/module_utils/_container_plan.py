# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""From what is and what is asked to an ordered list of steps. Pure: it looks at nothing and does nothing.

Four names belong to one container NAME: itself, NAME-previous (served before, kept stopped), NAME-rolled-back (was rolled back from, kept
for a look) and NAME-next (being swapped in). A swap is

    create NAME-next · stop NAME · wait for memory · START NAME-next · remove NAME-previous · NAME → NAME-previous · NAME-next → NAME

(or, when NAME-previous is the better way back, see Seen.keeps_previous: … · remove NAME · NAME-next → NAME)

and a rollback

    stop NAME · wait for memory · START NAME-previous · remove NAME-rolled-back · NAME → NAME-rolled-back · NAME-previous → NAME

Names move only after the START, so that whoever is killed at any step leaves a state that tells how far it came:
  * a NAME-next that never ran: the swap had not happened. It is thrown away, and NAME starts again unless the swap is asked again;
  * NAME-next (or NAME-previous) runs, and NAME does not: it had happened. The names that are still to move are moved, first of all.
Before the START an error is undone at once: what was created is removed, what was stopped is started. Nothing is removed before it
that could be needed for that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._container_changes import Change, changes
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import Container
from ansible_collections.dgx.spark.plugins.module_utils._container_spec import stored

# Of a container that is not ours: what it had is overwritten when it is stopped for a swap.
_FOREIGN_RESTART_POLICY = "unless-stopped"


class PlanError(Exception):
    """What is asked cannot be done with what is there; the message names the remedy."""


@dataclass(frozen=True)
class Names:
    """The four names of one container. Raises PlanError when Docker does not take them."""

    current: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", self.current):
            raise PlanError(f"{self.current!r} is not a container's name: letters, digits, '_', '.' and '-', at least two")

    @property
    def previous(self) -> str:
        return f"{self.current}-previous"

    @property
    def next(self) -> str:
        return f"{self.current}-next"

    @property
    def rolled_back(self) -> str:
        return f"{self.current}-rolled-back"


@dataclass(frozen=True)
class Seen:
    """What is there under the four names. C(proven) is the id of the container that the evidence on the box proves."""

    current: Container | None = None
    previous: Container | None = None
    next: Container | None = None
    rolled_back: Container | None = None
    proven: str | None = None

    @property
    def keeps_previous(self) -> bool:
        """When another one takes NAME's place: does NAME-previous stay the way back, because NAME is none?

        So it is when NAME never ran; and when NAME-previous was proven and NAME was not, because somebody gave up before the proof.
        """
        if self.current is None or not self.current.was_started:
            return True
        return self.previous is not None and self.previous.id == self.proven != self.current.id


class Step:
    """One thing that is done to the engine or waited for."""


@dataclass(frozen=True)
class Create(Step):
    name: str


@dataclass(frozen=True)
class Stop(Step):
    """C(revive): should a later step fail, start it again. C(park): it must not come back when the box boots."""

    name: str
    timeout: int
    revive: str | None = None
    park: bool = False


@dataclass(frozen=True)
class WaitForMemory(Step):
    """Until what a container of this resolved spec reserves is available; None is one that is not ours, its needs are not known.

    C(needed) by a start that follows. Where none does, memory that does not come back is a warning.
    """

    spec: Mapping[str, Any] | None
    needed: bool = True


@dataclass(frozen=True)
class Start(Step):
    name: str
    restart_policy: str


@dataclass(frozen=True)
class Rename(Step):
    name: str
    new_name: str


@dataclass(frozen=True)
class Remove(Step):
    name: str


@dataclass(frozen=True)
class Plan:
    """What is done and why. C(action) is none, create, start, swap, stop, remove or roll_back; none has no steps."""

    action: str
    reasons: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    steps: tuple[Step, ...] = ()
    # What will be under NAME: its resolved spec (None: it is not ours) and Docker's word for its state (None: it will not be there).
    after: Mapping[str, Any] | None = None
    status_after: str | None = None


@dataclass
class _Draft:
    """Recovery first, then the plan itself. C(finished) is the action of an earlier run that is finished by this one."""

    names: Names
    seen: Seen
    steps: list[Step] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    finished: str | None = None

    def finish_earlier(self) -> None:
        """Move the names that an interrupted swap or rollback had still to move."""
        names, seen = self.names, self.seen
        serves = seen.current is not None and seen.current.running
        if seen.next is not None and not serves and (seen.next.running or (seen.current is None and seen.next.was_started)):
            self.reasons.append(f"a swap was interrupted after {names.next} had started: it is finished")
            self.next_takes_over(seen.next)
            self.finished = "swap"
        elif seen.previous is not None and seen.previous.running and not serves:
            if seen.current is not None:
                if seen.rolled_back is not None:
                    self.steps.append(Remove(names.rolled_back))
                self.steps.append(Rename(names.current, names.rolled_back))
            self.steps.append(Rename(names.previous, names.current))
            self.seen = replace(seen, current=seen.previous, previous=None, rolled_back=seen.current or seen.rolled_back)
            self.reasons.append(f"a rollback was interrupted after {names.previous} had started: it is finished")
            self.finished = "roll_back"

    def next_takes_over(self, started: Container | None) -> None:
        """Move the names after NAME-next has started. C(started) is None for one that is still to be created."""
        names, seen = self.names, self.seen
        previous = seen.previous
        if seen.keeps_previous:
            if seen.current is not None:
                self.steps.append(Remove(names.current))
                if seen.current.was_started:
                    self.reasons.append(f"{names.current} was never proven, so {names.previous} stays the way back")
        else:
            if previous is not None:
                self.steps.append(Remove(names.previous))
            self.steps.append(Rename(names.current, names.previous))
            previous = seen.current
        self.steps.append(Rename(names.next, names.current))
        self.seen = replace(seen, current=started, previous=previous, next=None)

    def drop_next(self) -> bool:
        """Throw a NAME-next away that did not come to serve."""
        left = self.seen.next
        if left is None:
            return False
        if left.running:
            self.steps.append(Stop(self.names.next, left.stop_timeout))
        self.steps.append(Remove(self.names.next))
        self.reasons.append(f"{self.names.next} is left over from an interrupted swap")
        self.seen = replace(self.seen, next=None)
        return True

    def plan(self, action: str, after: Mapping[str, Any] | None, found: list[Change] | None = None, status: str | None = None) -> Plan:
        """Without C(status), NAME runs if something is started, and else stays as it is."""
        if status is None and any(isinstance(step, Start) for step in self.steps):
            status = "running"
        elif status is None and self.seen.current is not None:
            status = self.seen.current.status
        return Plan(action, tuple(self.reasons), tuple(found or ()), tuple(self.steps), after, status)


def comes_to_serve(names: Names, seen: Seen) -> Container | None:
    """The container that will be called NAME once an interrupted run is finished."""
    draft = _Draft(names, seen)
    draft.finish_earlier()
    return draft.seen.current


def make_plan(state: str, name: str, seen: Seen, wanted: Mapping[str, Any] | None = None) -> Plan:
    """The plan for a C(state) of vllm_container. C(wanted) is the resolved spec, for started and present. Raises PlanError."""
    if state == "absent":
        return _absent(Names(name), seen)
    draft = _Draft(Names(name), seen)
    draft.finish_earlier()
    if state == "stopped":
        return _stopped(draft)
    if state == "rolled_back":
        return _rolled_back(draft)
    if wanted is None:
        raise PlanError(f"state {state} needs a spec: say what {name} is")
    return _there(draft, wanted, start=state == "started")


def _there(draft: _Draft, wanted: Mapping[str, Any], start: bool) -> Plan:
    names = draft.names
    # A NAME-next beside a stopped NAME: the swap that was interrupted had stopped it, so it served.
    interrupted = draft.seen.next is not None
    dropped = draft.drop_next()
    current = draft.seen.current
    if current is None:
        draft.reasons.append(f"there is no container {names.current}")
        draft.steps.append(Create(names.current))
        if start:
            draft.steps += [WaitForMemory(wanted), Start(names.current, wanted["restart_policy"])]
        return draft.plan("create", wanted, status="running" if start else "created")
    spec = stored(current.labels)
    if spec != wanted:
        found = changes(spec, wanted) if spec else []
        draft.reasons += [str(change) for change in found] or [f"{names.current} was not made by this version of the collection"]
        start = start or current.running
        _swap(draft, current, wanted, served=current.running or interrupted, start=start)
        return draft.plan("swap", wanted, found, status="running" if start else "created")
    if start and (not current.running or current.status == "paused"):
        draft.reasons.append(_not_running(current))
        previous = draft.seen.previous
        if previous is not None and not previous.running and previous.restart_policy != "no":
            # A rollback was interrupted when it was about to start it.
            draft.steps.append(Stop(names.previous, previous.stop_timeout, park=True))
        if current.status != "paused":  # a paused one still has its memory and its port
            draft.steps.append(WaitForMemory(wanted))
        draft.steps.append(Start(names.current, wanted["restart_policy"]))
        return draft.plan("start", wanted)
    return draft.plan(draft.finished or ("remove" if dropped else "none"), wanted)


def _swap(draft: _Draft, current: Container, wanted: Mapping[str, Any], served: bool, start: bool) -> None:
    names = draft.names
    draft.steps.append(Create(names.next))
    if current.was_started:
        # Also when it does not run: it may be parked no more than half, by somebody who was interrupted.
        draft.steps.append(_stop_to_replace(current, names.current, wanted["stop_timeout"], revive=served))
    if start:
        draft.steps += [WaitForMemory(wanted), Start(names.next, wanted["restart_policy"])]
    draft.next_takes_over(None)


def _stop_to_replace(container: Container, name: str, timeout: int, revive: bool) -> Stop:
    policy = container.restart_policy
    if policy == "no":
        # Perhaps only because an interrupted run has parked it.
        policy = _restart_policy(container) if stored(container.labels) or not container.running else "no"
    return Stop(name, timeout, revive=policy if revive else None, park=True)


def _restart_policy(container: Container) -> str:
    """The policy to start a parked container with."""
    spec = stored(container.labels)
    return str(spec["restart_policy"]) if spec else _FOREIGN_RESTART_POLICY


def _not_running(container: Container) -> str:
    how = f"{container.status}, code {container.exit_code}" if container.status == "exited" else container.status
    return f"the container is not running ({how})"


def _stopped(draft: _Draft) -> Plan:
    current = draft.seen.current
    spec = stored(current.labels) if current else None
    if current is None or not current.running:
        return draft.plan(draft.finished or "none", spec)
    draft.reasons.append(f"{draft.names.current} is {current.status}")
    # Whoever stops it wants its memory, which a GB10 gives back late.
    draft.steps += [Stop(draft.names.current, current.stop_timeout), WaitForMemory(spec, needed=False)]
    return draft.plan("stop", spec, status="exited")


def _rolled_back(draft: _Draft) -> Plan:
    names = draft.names
    interrupted = draft.seen.next is not None
    draft.drop_next()
    current, previous = draft.seen.current, draft.seen.previous
    if current is not None and not current.running and interrupted:
        draft.reasons.append(f"the swap had stopped {names.current}: it serves again")
        return _start_again(draft, "roll_back", current)
    if previous is not None:
        spec = stored(previous.labels)
        if current is not None:
            draft.reasons.append(f"{names.previous} takes the place of {names.current} ({current.status})")
            draft.steps.append(_stop_to_replace(current, names.current, current.stop_timeout, revive=current.running))
        else:
            draft.reasons.append(f"{names.previous} takes its place again: there is no {names.current}")
        draft.steps += [WaitForMemory(spec), Start(names.previous, _restart_policy(previous))]
        if current is not None:
            if draft.seen.rolled_back is not None:
                draft.steps.append(Remove(names.rolled_back))
            draft.steps.append(Rename(names.current, names.rolled_back))
        draft.steps.append(Rename(names.previous, names.current))
        before = stored(current.labels) if current else None
        return draft.plan("roll_back", spec, changes(before, spec) if before and spec else None)
    if draft.finished == "roll_back":
        return draft.plan("roll_back", stored(current.labels) if current else None)
    if current is None or draft.seen.rolled_back is None:
        raise PlanError(
            f"there is no {names.previous} to go back to: a container is kept under that name when another one takes its place."
            " Deploy the version that you want instead"
        )
    if not current.running:
        draft.reasons.append(_not_running(current))
        return _start_again(draft, "start", current)
    return draft.plan("remove" if draft.steps else "none", stored(current.labels))


def _start_again(draft: _Draft, action: str, current: Container) -> Plan:
    spec = stored(current.labels)
    draft.steps += [WaitForMemory(spec), Start(draft.names.current, _restart_policy(current))]
    return draft.plan(action, spec)


def _absent(names: Names, seen: Seen) -> Plan:
    draft = _Draft(names, seen)
    # The one that may serve comes last: whoever is interrupted has taken away the least.
    for name, container in (
        (names.next, seen.next),
        (names.rolled_back, seen.rolled_back),
        (names.previous, seen.previous),
        (names.current, seen.current),
    ):
        if container is None:
            continue
        if container.running:
            draft.steps.append(Stop(name, container.stop_timeout))
        draft.steps.append(Remove(name))
        draft.reasons.append(f"{name} is there ({container.status})")
    return Plan("remove" if draft.steps else "none", tuple(draft.reasons), steps=tuple(draft.steps))
