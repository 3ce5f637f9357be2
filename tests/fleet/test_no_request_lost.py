# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Three streams a box of 5 to 20 s each, through a rollout, a rollback, a reload of the gateway and the sudden death of a box."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Iterator

import pytest
from fleet.behind_gateway import BOXES, GATEWAY, Clients, Fleet, Watch, new_version, outcomes, version
from load.streams import WHOLE

# The scripted server decodes 51.6 tok/s.
SECONDS_5_TO_20 = (258, 1032)
DEAD = BOXES[-1]


@pytest.fixture(scope="module")
def clients(fleet: Fleet) -> Iterator[Clients]:
    made = Clients(fleet.url, fleet.key, streams=3 * len(BOXES), tokens=SECONDS_5_TO_20)
    yield made
    made.stop()


def in_time(fleet: Fleet, wanted: dict[str, str], seconds: float) -> None:
    """The gateway has each box in this state, at the latest after so many seconds."""
    end = time.monotonic() + seconds
    while (states := {name: state.split()[0] for name, state in fleet.gateway_state().items()}) != wanted:
        assert time.monotonic() < end, states
        time.sleep(0.5)


def test_a_rollout_in_which_the_gateway_is_reloaded_loses_no_stream(fleet: Fleet, clients: Clients) -> None:
    """The reload comes while a box is drained: it stays so."""
    target = new_version()
    with Watch(fleet) as watch:
        run = fleet.play(
            vllm_env=target,
            rollout_batches=[1],
            at_task="Get the memory back from Ollama",
            command=f"docker exec {GATEWAY} systemctl reload haproxy",
        )
    assert run.rc == 0, run.why
    assert outcomes(run) == dict.fromkeys(BOXES, "moved")
    assert fleet.versions() == dict.fromkeys(BOXES, target["VERSION"])
    assert clients.lost() == []
    assert watch.fewest == len(BOXES) - 1
    # Clients come through the gateway, and by no other way.
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://{fleet.boxes[BOXES[0]].address}:8002/health", timeout=5)


@pytest.mark.long
def test_a_rollback_loses_no_stream(fleet: Fleet, clients: Clients) -> None:
    before = fleet.versions()
    moved = fleet.play(vllm_env=new_version(), rollout_batches=[2])
    assert moved.rc == 0, moved.why
    with Watch(fleet) as watch:
        run = fleet.play("rollback", rollout_batches=[2])
    assert run.rc == 0, run.why
    assert outcomes(run) == dict.fromkeys(BOXES, "back")
    assert fleet.versions() == before
    assert clients.lost() == []
    assert watch.fewest == len(BOXES) - 2


@pytest.mark.long
def test_a_comparison_with_ollama_loses_no_stream(fleet: Fleet, clients: Clients) -> None:
    """The box leaves the gateway before its vLLM is stopped, and comes back when that is proven again."""
    compared, before = BOXES[1], fleet.served()
    workload = {"warmup": 0, "sequential": {"runs": 1, "tokens": 40}, "parallel": {"requests": 2, "tokens": 20}}
    with Watch(fleet) as watch:
        run = fleet.play("compare", vllm_env=version(before[compared].version), rollout_hosts=compared, compare_workload=workload)
    assert run.rc == 0, run.why
    run.says("vLLM NVFP4 Ollama Q4_K_M")
    assert clients.lost() == []
    assert watch.fewest == len(BOXES) - 1
    after = fleet.served()
    assert [name for name in BOXES if after[name] != before[name]] == [compared]
    in_time(fleet, dict.fromkeys(BOXES, "UP"), 10)


@pytest.mark.long
def test_a_box_that_dies_in_a_rollout_breaks_its_own_streams_alone(fleet: Fleet, clients: Clients) -> None:
    """It is named, the rollout stops before it, and once it is back the gateway takes it again by itself."""
    before, target = fleet.served(), new_version()
    try:
        run = fleet.play(
            vllm_env=target,
            rollout_batches=[1],
            spark_lost_seconds=3,
            ansible_ssh_timeout=3,
            at_task="Drain",
            command=f"docker kill {DEAD}",
        )
        assert run.rc == 2, run.why
        assert outcomes(run) == {**dict.fromkeys(BOXES[:-1], "moved"), DEAD: "lost"}
        run.says(f"{DEAD} was lost")
        in_time(fleet, {**dict.fromkeys(BOXES[:-1], "UP"), DEAD: "DOWN"}, 30)
        clients.load.stop_soon()
    finally:
        subprocess.run(["docker", "start", DEAD], check=True, stdout=subprocess.DEVNULL)
    clients.stop()
    broken = [stream for stream in clients.load.done if stream.kind != WHOLE]
    assert {stream.box for stream in broken} == {DEAD}, clients.lost()
    assert len(broken) <= 3 + 1, clients.lost()  # those that it was answering
    in_time(fleet, dict.fromkeys(BOXES, "UP"), 120)
    assert fleet.served()[DEAD].id == before[DEAD].id
