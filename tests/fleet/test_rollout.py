# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Four boxes behind a gateway, under a load that never stops: rollout, bad versions and the way back lose no stream."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._run_lock import LOCK
from fleet.behind_gateway import BOXES, GATEWAY, LIGHT, Clients, Fleet, new_version, outcomes, remote_runs, version, with_scenario


def all_up(fleet: Fleet, clients: Clients) -> None:
    """Every box takes part, and no stream was lost so far."""
    states = fleet.gateway_state()
    assert {name: state.split()[0] for name, state in states.items()} == dict.fromkeys(BOXES, "UP"), states
    assert clients.lost() == []


@pytest.mark.long
def test_a_new_version_goes_to_all_boxes_and_no_stream_is_lost(fleet: Fleet, clients: Clients) -> None:
    target = new_version()
    run = fleet.play(vllm_env=target, rollout_min_available=2)
    assert run.rc == 0, run.why
    assert outcomes(run) == dict.fromkeys(BOXES, "moved")
    assert fleet.versions() == dict.fromkeys(BOXES, target["VERSION"])
    all_up(fleet, clients)


def test_a_canary_that_answers_garbage_is_restored_and_no_other_box_is_touched(fleet: Fleet, clients: Clients) -> None:
    before = fleet.served()
    run = fleet.play(vllm_env=with_scenario(new_version(), "garbage-empty"))
    assert run.rc == 2
    run.says("no visible text", "What served before was restored and answers again.")
    assert outcomes(run) == {BOXES[0]: "restored", **dict.fromkeys(BOXES[1:], "untouched")}
    after = fleet.served()
    assert after[BOXES[0]].id == before[BOXES[0]].id
    assert [after[name] for name in BOXES[1:]] == [before[name] for name in BOXES[1:]]
    all_up(fleet, clients)


@pytest.mark.long
def test_a_later_batch_that_fails_stops_the_rollout_and_the_next_run_goes_on_there(fleet: Fleet, clients: Clients) -> None:
    before, target = fleet.served(), new_version()
    run = fleet.play(vllm_env=with_scenario(target, "garbage-empty", only=BOXES[1]), rollout_batches=[1])
    assert run.rc == 2
    assert outcomes(run) == {BOXES[0]: "moved", BOXES[1]: "restored", BOXES[2]: "untouched", BOXES[3]: "untouched"}
    between = fleet.served()
    assert [between[name].id for name in BOXES[1:]] == [before[name].id for name in BOXES[1:]]

    again = fleet.play(vllm_env=target, rollout_batches=[3])
    assert again.rc == 0, again.why
    assert outcomes(again) == {BOXES[0]: "untouched", **dict.fromkeys(BOXES[1:], "moved")}
    assert fleet.served()[BOXES[0]] == between[BOXES[0]]
    assert fleet.versions() == dict.fromkeys(BOXES, target["VERSION"])
    all_up(fleet, clients)


@pytest.mark.long
def test_all_that_were_moved_go_back_when_that_is_asked(fleet: Fleet, clients: Clients) -> None:
    before = fleet.served()
    bad = with_scenario(new_version(), "garbage-empty", only=BOXES[2])
    run = fleet.play(vllm_env=bad, rollout_on_failure="rollback_all", rollout_batches=[2])
    assert run.rc == 2
    # A peer of the bad one in its batch is finished before the way back begins.
    assert outcomes(run) == {BOXES[0]: "back", BOXES[1]: "back", BOXES[2]: "restored", BOXES[3]: "back"}
    assert {name: served.id for name, served in fleet.served().items()} == {name: served.id for name, served in before.items()}
    all_up(fleet, clients)


@pytest.mark.long
def test_the_fleet_goes_back_to_the_version_before(fleet: Fleet, clients: Clients) -> None:
    before = fleet.served()
    run = fleet.play(vllm_env=new_version(), rollout_batches=[2])
    assert run.rc == 0, run.why
    back = fleet.play("rollback", rollout_batches=[2])
    assert back.rc == 0, back.why
    assert outcomes(back) == dict.fromkeys(BOXES, "back")
    assert {name: served.id for name, served in fleet.served().items()} == {name: served.id for name, served in before.items()}
    all_up(fleet, clients)


def test_nothing_to_do_is_seen_by_few_questions(fleet: Fleet, clients: Clients) -> None:
    """A Spark may be the gateway, too: then both sums are its own."""
    before = fleet.served()
    run = fleet.play(vllm_env=version(before[BOXES[0]].version), arguments=["-vvv"])
    assert run.rc == 0, run.why
    assert not re.search(r"changed=[1-9]", run.output)
    assert fleet.served() == before
    asked = remote_runs(run)
    assert set(asked) == {fleet.address, *(box.address for box in fleet.boxes.values())}
    assert max(asked[box.address] for box in fleet.boxes.values()) + asked[fleet.address] <= 12, asked


def test_too_few_boxes_would_be_left_is_refused_up_front(fleet: Fleet, clients: Clients) -> None:
    before = fleet.served()
    run = fleet.play(vllm_env=new_version(), rollout_min_available="75%")
    assert run.rc == 2
    run.says("rollout_min_available is 3 (75% of 4, rounded up)", "4 - 2 = 2 would be left to serve: too few", "Nothing was changed.")
    assert fleet.served() == before


def test_a_configuration_that_haproxy_refuses_touches_no_box_and_the_gateway_goes_on(fleet: Fleet, clients: Clients) -> None:
    before = fleet.served()
    run = fleet.play(vllm_env=new_version(), gateway_tls_certificate="/etc/ssl/private/nobody-wrote-it.pem")
    assert run.rc == 2
    run.says(
        f"HAProxy on {GATEWAY} does not take its new configuration, and goes on with the one that it has.",
        "unable to stat SSL certificate from file '/etc/ssl/private/nobody-wrote-it.pem'",
        "No box was touched.",
    )
    assert fleet.served() == before
    all_up(fleet, clients)


@pytest.mark.long
def test_nobody_who_confirms_the_canary_stops_the_rollout_after_it(fleet: Fleet, clients: Clients) -> None:
    """The canary has served for a while, was proven once more, and goes on to serve."""
    before, target = fleet.served(), new_version()
    run = fleet.play(vllm_env=target, rollout_soak=2, rollout_confirm=True, limit=f"{BOXES[0]},{BOXES[1]},{GATEWAY}")
    assert run.rc == 2
    run.says("Pausing for 2 seconds", "Nobody said yes after the canary")
    assert outcomes(run) == {BOXES[0]: "moved", BOXES[1]: "untouched"}
    after = fleet.served()
    assert after[BOXES[0]].version == target["VERSION"]
    assert [after[name] for name in BOXES[1:]] == [before[name] for name in BOXES[1:]]
    all_up(fleet, clients)


@pytest.mark.long
def test_a_proven_box_that_a_killed_run_left_drained_is_admitted_and_not_touched(fleet: Fleet, clients: Clients) -> None:
    target, limit = new_version(), f"{BOXES[0]},{GATEWAY}"
    killed = fleet.play(vllm_env=target, at_task="Admit the box", command="kill -9 $PPID", limit=limit)
    assert killed.rc == -9, killed.why
    assert fleet.gateway_state()[BOXES[0]].startswith("DRAIN")
    before = fleet.served()
    run = fleet.play(vllm_env=target, limit=limit)
    assert run.rc == 0, run.why
    run.says("the lock was taken over from the run")
    assert fleet.served() == before
    all_up(fleet, clients)


@pytest.mark.long
def test_a_second_run_is_refused_while_the_first_one_works(fleet: Fleet, clients: Clients) -> None:
    before, target, log = fleet.served(), new_version(), fleet.inventory.with_name("second.log")
    second = f"ansible-playbook playbooks/gemma4.yml -i {fleet.inventory} -e vllm_port=8002 > {log} 2>&1"
    # For other boxes, but behind the same gateway.
    second += f"; {second} -l {BOXES[1]},{GATEWAY}".replace(str(log), f"{log}.other")
    asked = json.dumps({**LIGHT, "vllm_env": version(before[BOXES[1]].version), "rollout_hosts": BOXES[1]})
    second += f"; ansible-playbook playbooks/compare.yml -i {fleet.inventory} -e {shlex.quote(asked)} > {log}.compare 2>&1"
    first = fleet.play(vllm_env=target, at_task="Get the memory back from Ollama", command=second, limit=f"{BOXES[0]},{GATEWAY}")
    assert first.rc == 0, first.why
    words = {"": "", ".other": "That is the gateway's lock", ".compare": f"{BOXES[1]} was not compared: "}
    for said, word in ((log.with_name(log.name + suffix), word) for suffix, word in words.items()):
        flat = " ".join(said.read_text().split())
        assert "the box is held by the run" in flat
        assert "Nothing was changed." in flat
        assert word in flat
    after = fleet.served()
    assert after[BOXES[0]].version == target["VERSION"]
    assert [after[name] for name in BOXES[1:]] == [before[name] for name in BOXES[1:]]
    # Who was refused keeps nothing.
    assert {name: box.sh(f"cat {LOCK} 2>/dev/null || true") for name, box in fleet.boxes.items()} == dict.fromkeys(BOXES, "")
    all_up(fleet, clients)


def test_every_stream_of_all_that_time_was_whole(fleet: Fleet, clients: Clients) -> None:
    clients.stop()
    assert clients.lost() == []
    assert clients.load.done
