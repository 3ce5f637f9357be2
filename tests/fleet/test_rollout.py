# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Four boxes behind a gateway, under a load that never stops: rollout, bad versions and the way back lose no stream.

The tests follow one another on one fleet; each says what it finds and leaves.
"""

from __future__ import annotations

from fleet.behind_gateway import BOXES, Clients, Fleet, outcomes, version


def all_at(number: int) -> dict[str, str]:
    return dict.fromkeys(BOXES, str(number))


def all_up(fleet: Fleet) -> None:
    states = fleet.gateway_state()
    assert {name: state.split()[0] for name, state in states.items()} == dict.fromkeys(BOXES, "UP"), states


def test_a_new_version_goes_to_all_boxes_and_no_stream_is_lost(fleet: Fleet, clients: Clients) -> None:
    assert fleet.versions() == all_at(1)
    run = fleet.play(vllm_env=version(2), rollout_min_available=2)
    assert run.rc == 0, run.output[-6000:]
    assert outcomes(run) == dict.fromkeys(BOXES, "moved")
    assert fleet.versions() == all_at(2)
    all_up(fleet)
    assert clients.lost() == []


def test_a_canary_that_answers_garbage_is_restored_and_no_other_box_is_touched(fleet: Fleet, clients: Clients) -> None:
    before = fleet.served()
    run = fleet.play(vllm_env=version(3, "garbage-empty"))
    assert run.rc == 2
    run.says("no visible text", "What served before was restored and answers again.")
    found = outcomes(run)
    canary = next(name for name, outcome in found.items() if outcome == "restored")
    assert found == dict.fromkeys(BOXES, "untouched") | {canary: "restored"}
    after = fleet.served()
    assert {name for name in BOXES if after[name] != before[name]} == {canary}
    assert after[canary].id == before[canary].id
    all_up(fleet)
    assert clients.lost() == []


def test_a_later_batch_that_fails_stops_the_rollout_and_the_next_run_goes_on_there(fleet: Fleet, clients: Clients) -> None:
    bad = BOXES[2]
    run = fleet.play(vllm_env=version(4, "garbage-empty", only=bad), rollout_batches=[1])
    assert run.rc == 2
    assert outcomes(run) == {BOXES[0]: "moved", BOXES[1]: "moved", bad: "restored", BOXES[3]: "untouched"}
    assert fleet.versions() == {BOXES[0]: "4", BOXES[1]: "4", bad: "2", BOXES[3]: "2"}
    before = fleet.served()

    again = fleet.play(vllm_env=version(4))
    assert again.rc == 0, again.output[-6000:]
    assert outcomes(again) == {BOXES[0]: "untouched", BOXES[1]: "untouched", bad: "moved", BOXES[3]: "moved"}
    assert [fleet.served()[name] for name in BOXES[:2]] == [before[name] for name in BOXES[:2]]
    all_up(fleet)
    assert clients.lost() == []


def test_all_that_were_moved_go_back_when_that_is_asked(fleet: Fleet, clients: Clients) -> None:
    before = fleet.served()
    run = fleet.play(vllm_env=version(5, "garbage-empty", only=BOXES[3]), rollout_on_failure="rollback_all")
    assert run.rc == 2
    found = outcomes(run)
    assert found[BOXES[3]] == "restored"
    assert {found[name] for name in BOXES[:3]} == {"back"}
    assert {name: served.id for name, served in fleet.served().items()} == {name: served.id for name, served in before.items()}
    all_up(fleet)
    assert clients.lost() == []


def test_the_fleet_goes_back_to_the_version_before(fleet: Fleet, clients: Clients) -> None:
    assert fleet.versions() == all_at(4)
    run = fleet.play(vllm_env=version(6), rollout_batches=[2])
    assert run.rc == 0, run.output[-6000:]
    back = fleet.play("rollback", rollout_batches=[2])
    assert back.rc == 0, back.output[-6000:]
    assert outcomes(back) == dict.fromkeys(BOXES, "back")
    assert fleet.versions() == all_at(4)
    all_up(fleet)
    assert clients.lost() == []


def test_too_few_boxes_would_be_left_is_refused_up_front(fleet: Fleet, clients: Clients) -> None:
    before = fleet.served()
    run = fleet.play(vllm_env=version(7), rollout_min_available="75%")
    assert run.rc == 2
    run.says("rollout_min_available is 3 (75% of 4, rounded up)", "4 - 2 = 2 would be left to serve: too few", "Nothing was changed.")
    assert fleet.served() == before


def test_a_second_run_is_refused_while_the_first_one_works(fleet: Fleet, clients: Clients) -> None:
    """Which would also admit again what the first one has drained."""
    log = fleet.inventory.with_name("second.log")
    second = f'ansible-playbook playbooks/gemma4.yml -i {fleet.inventory} -e \'{{"vllm_env": {{"VERSION": "9"}}}}\' > {log} 2>&1'
    first = fleet.play(vllm_env=version(8), rollout_batches=[4], at_task="Stage this box", command=second, limit=BOXES[0])
    assert first.rc == 0, first.output[-6000:]
    flat = " ".join(log.read_text().split())
    assert "the box is held by the run" in flat
    assert "Nothing was changed." in flat
    assert fleet.versions() == {**all_at(4), BOXES[0]: "8"}
    all_up(fleet)
    assert clients.lost() == []


def test_every_stream_of_all_that_time_was_whole(fleet: Fleet, clients: Clients) -> None:
    clients.stop()
    assert clients.lost() == []
    assert len(clients.load.done) > 100
    assert set(BOXES) == {stream.box for stream in clients.load.done}
