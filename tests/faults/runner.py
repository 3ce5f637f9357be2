# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A playbook run through ansible-runner: tests look at events and published results, and not at the terminal."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docs.examples.watch_rollout import Event, Outcome, drive


@dataclass
class Played:
    """All events of a run, and how it ended."""

    events: list[Event] = field(default_factory=list)
    outcome: Outcome = field(default_factory=lambda: Outcome(rc=-1, status="not run"))

    def of(self, kind: str, host: str = "") -> list[Mapping[str, Any]]:
        """The data of the events of one kind, such as runner_on_failed, of one host or of all."""
        found = [event["event_data"] for event in self.events if event["event"] == kind]
        return [data for data in found if not host or data.get("host") == host]

    def tasks(self, host: str) -> list[str]:
        """The tasks that a host began, in order."""
        return [data["task"] for data in self.of("runner_on_start", host)]

    def plays(self) -> list[str]:
        """The plays that began, in order: each batch of a rollout begins its play anew."""
        return [data["play"] for data in self.of("playbook_on_play_start")]

    def row(self, box: str) -> Mapping[str, Any]:
        """The row of the report about a box."""
        return next(row for row in self.outcome.boxes if row["box"] == box)

    def why(self) -> str:
        """What failed, for a test that expected otherwise."""
        failed = [*self.of("runner_on_failed"), *self.of("runner_on_unreachable")]
        return "\n".join(f"{data['host']}: {data['task']}: {data['res'].get('msg', data['res'])}" for data in failed)


def play(
    playbook: Path | str,
    arguments: Sequence[str],
    private: Path,
    variables: Mapping[str, Any] | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    stop: threading.Event | None = None,
) -> Played:
    """Run it to its end, or until C(stop) is set. C(variables) go by a file in C(private), so that secrets may be among them."""
    values = private / "variables.json"
    with os.fdopen(os.open(values, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        json.dump(variables or {}, file)
    folder = private / "runner"
    folder.mkdir(mode=0o700, exist_ok=True)
    played = Played()

    def take(event: Event) -> None:
        played.events.append(event)
        on_event(event)

    played.outcome = drive(str(playbook), [*arguments, "-e", f"@{values}"], folder, take, stop or threading.Event())
    return played
