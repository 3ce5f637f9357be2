# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A good version after another, back to it, proven again, taken away: the other playbooks."""

from __future__ import annotations

import re

import pytest
from faults.box import BOX, NAME, Run, Served

OTHER = "vllm/vllm-openai:v0.19.1"


def changed(run: Run) -> int:
    found = re.search(rf"{BOX} .*changed=(\d+)", run.output)
    assert found, run.why
    return int(found[1])


def test_swap_and_rollback(served: Served) -> None:
    box = served.box
    check = box.play(vllm_image=OTHER, arguments=["--check"])
    assert check.rc == 0, check.why
    served.still_serves()

    swap = box.play(vllm_image=OTHER)
    assert swap.rc == 0, swap.why
    new = box.container()
    assert new["Id"] != served.id
    assert new["Config"]["Image"] == OTHER
    assert box.container(f"{NAME}-previous")["Id"] == served.id
    assert "Paris" in box.answer()

    again = box.play(vllm_image=OTHER)
    assert (again.rc, changed(again)) == (0, 0)

    back = box.play("rollback")
    assert back.rc == 0, back.why
    served.serves_again()

    twice = box.play("rollback")
    assert twice.rc == 0, twice.why
    served.serves_again()


def test_verify_proves_again_and_changes_nothing_that_serves(served: Served) -> None:
    run = served.box.play("verify")
    assert run.rc == 0, run.why
    run.says("proven")
    served.still_serves()


def test_remove_takes_the_container_and_leaves_the_weights(served: Served) -> None:
    run = served.box.play("remove")
    assert run.rc == 0, run.why
    assert served.box.sh("docker ps -aq") == ""
    assert served.box.sh("ls /srv/models/gemma4-26b-a4b-nvfp4/main/config.json")
    again = served.box.play("remove")
    assert (again.rc, changed(again)) == (0, 0)


@pytest.mark.long
def test_a_first_deployment_that_fails_leaves_nothing_that_serves(served: Served) -> None:
    box = served.box
    assert box.play("remove").rc == 0
    run = box.play(vllm_env={"SIM_SCENARIO": "cutlass-moe"})
    assert run.rc != 0
    run.says("VLLM_CUTLASS", "Nothing served before; the container was stopped and is kept for a look")
    assert box.container()["State"]["Running"] is False
