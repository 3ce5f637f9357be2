# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The module on a fake engine: the ladder, the swap and its way back, the rollback, and what is refused before anything stops."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _container_apply
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import EngineUnavailable
from ansible_collections.dgx.spark.plugins.module_utils._exclusive import exclusive
from ansible_collections.dgx.spark.plugins.module_utils._memory import Memory
from ansible_collections.dgx.spark.plugins.modules import vllm_container
from unit.container_box import IMAGE, NAME, NEXT, PREVIOUS, ROLLED_BACK, SimulatedBox, lay_model
from unit.run_module import run_module

V0192 = "vllm/vllm-openai:v0.19.2"


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> SimulatedBox:
    return SimulatedBox(tmp_path, monkeypatch, capsys)


@pytest.fixture
def serving(box: SimulatedBox) -> SimulatedBox:
    """A box on which the article's container serves; deeds of the start are forgotten."""
    box.run()
    box.forget_deeds()
    return box


# The ladder


def test_missing_options_are_named(box: SimulatedBox, capsys: pytest.CaptureFixture[str]) -> None:
    assert "missing required arguments: name" in run_module(vllm_container.main, capsys)["msg"]
    assert "state is started but all of the following are missing: spec" in run_module(vllm_container.main, capsys, name=NAME)["msg"]
    assert "found in spec" in run_module(vllm_container.main, capsys, name=NAME, spec={"image": "x"})["msg"]
    assert "is not a container's name" in run_module(vllm_container.main, capsys, name="a/b", state="absent")["msg"]


def test_ladder(box: SimulatedBox) -> None:
    would = box.run(check=True)
    assert (would["changed"], would["plan"]["action"], would["reasons"]) == (True, "create", [f"there is no container {NAME}"])
    assert (would["container"], would["missing"], box.engine.deeds) == (None, [], [])

    made = box.run(recipe="gemma4-26b-a4b-nvfp4")
    assert (made["changed"], made["plan"]["action"]) == (True, "create")
    assert made["diff"] == would["diff"]
    assert made["container"]["state"] == "running"
    assert made["container"]["spec_digest"] == box.serving_digest()
    assert box.engine.containers[NAME].labels["dgx.spark.recipe"] == "gemma4-26b-a4b-nvfp4"
    assert box.engine.containers[NAME].restart_policy == "unless-stopped"
    assert made["previous"] is None

    box.forget_deeds()
    again = box.run()
    assert (again["changed"], again["plan"], again["reasons"]) == (False, {"action": "none", "changes": []}, [])
    assert again["diff"]["before"] == again["diff"]["after"]
    assert box.engine.deeds == []

    changed = box.with_args(moe_backend="auto")
    would = box.run(spec=changed, check=True)
    assert box.engine.deeds == []
    swapped = box.run(spec=changed)
    assert swapped["plan"] == would["plan"]
    assert swapped["plan"]["action"] == "swap"
    assert swapped["plan"]["changes"] == [{"what": "args.moe-backend", "before": "marlin", "after": "auto"}]
    assert swapped["reasons"] == ["args.moe-backend: marlin → auto"]
    assert "-  moe-backend" not in swapped["diff"]["before"]
    assert "  moe-backend: marlin\n" in swapped["diff"]["before"]
    assert "  moe-backend: auto\n" in swapped["diff"]["after"]
    assert swapped["previous"]["id"] == made["container"]["id"]
    assert swapped["previous"]["state"] == "exited"
    assert not box.run(spec=changed)["changed"]

    stopped = box.run("stopped")
    assert (stopped["changed"], stopped["plan"]["action"], stopped["container"]["state"]) == (True, "stop", "exited")
    assert not box.run("stopped")["changed"]
    started = box.run(spec=changed)
    assert (started["plan"]["action"], started["reasons"]) == ("start", ["the container is not running (exited, code 0)"])
    assert started["container"]["id"] == swapped["container"]["id"]

    gone = box.run("absent")
    assert (gone["changed"], gone["plan"]["action"], gone["container"], gone["previous"]) == (True, "remove", None, None)
    assert box.engine.containers == {}
    assert not box.run("absent")["changed"]
    assert not box.run("stopped")["changed"]


def test_present_creates_and_does_not_start(box: SimulatedBox) -> None:
    made = box.run("present")
    assert (made["plan"]["action"], made["container"]["state"], made["container"]["started_at"]) == ("create", "created", None)
    assert box.waited == []
    assert not box.run("present")["changed"]
    # Some engines start what was only created when the box boots, unless its restart policy is no.
    assert box.engine.containers[NAME].restart_policy == "no"
    assert box.run()["plan"]["action"] == "start"
    assert box.engine.containers[NAME].restart_policy == "unless-stopped"
    assert not box.run("present")["changed"]


def test_present_keeps_what_runs_running(serving: SimulatedBox) -> None:
    assert serving.run("present", spec=serving.with_args(seed=1))["container"]["state"] == "running"
    serving.run("stopped")
    swapped = serving.run("present", spec=serving.with_args(seed=2))
    assert (swapped["plan"]["action"], swapped["container"]["state"]) == ("swap", "created")
    assert serving.engine.states() == {NAME: "created", PREVIOUS: "exited"}


def test_whoever_stops_it_gets_its_memory_back(serving: SimulatedBox) -> None:
    serving.waited.clear()
    stopped = serving.run("stopped")
    assert (stopped["container"]["state"], serving.waited) == ("exited", [0.85 * 120.0])
    assert "warnings" not in stopped
    serving.run("stopped")
    assert len(serving.waited) == 1, "what is stopped already is not waited for"


def test_memory_that_does_not_come_back_after_a_stop_is_a_warning(serving: SimulatedBox) -> None:
    serving.memory = Memory(total=120.0, available=60.0)
    stopped = serving.run("stopped", memory_timeout=90)
    assert (stopped["changed"], stopped["container"]["state"]) == (True, "exited")
    assert "its memory is not back: only 60.0 GiB of memory are available after 90 s" in str(stopped["warnings"])


def test_a_stop_needs_no_room(serving: SimulatedBox) -> None:
    stopped = serving.run("stopped", memory_required_gib=200)
    assert (stopped["changed"], stopped["container"]["state"]) == (True, "exited")


# What is a reason for a swap


def test_other_bytes_are_a_reason_to_swap(serving: SimulatedBox) -> None:
    lay_model(serving.model, commit="decaf")
    assert serving.run(check=True)["reasons"] == ["model: bg-digitalservices/Gemma@c0ffee → bg-digitalservices/Gemma@decaf"]
    lay_model(serving.model, patch=b"# another\n")
    assert [reason.partition(":")[0] for reason in serving.run(check=True)["reasons"]] == ["patches.vllm.model_executor.models.gemma4"]
    lay_model(serving.model)
    new = serving.engine.add_image(IMAGE, "0.19.1")
    swapped = serving.run()
    assert swapped["reasons"] == [f"image: vLLM 0.19.1.dev6+g6d4a8e6d2 (sha256:000000000000) → vLLM 0.19.1 ({new[:19]})"]
    assert swapped["container"]["image_id"] == new


def test_another_recipe_name_or_the_same_bytes_by_digest_are_none(serving: SimulatedBox) -> None:
    digest = "sha256:" + "d" * 64
    image = replace(serving.engine.images[IMAGE], digests=(digest,))
    serving.engine.images |= {IMAGE: image, image.id: image}
    pinned = serving.spec | {"image": f"{IMAGE}@{digest}"}
    assert not serving.run(spec=pinned, recipe="another")["changed"]


def test_a_changed_api_key_swaps_and_never_shows(serving: SimulatedBox) -> None:
    first = serving.run(api_key="sk-first-secret")
    assert first["reasons"] == ["api_key: not set → (set)"]
    assert not serving.run(api_key="sk-first-secret")["changed"]
    second = serving.run(api_key="sk-second-secret")
    assert second["reasons"] == ["api_key: (set) → (set to something else)"]
    assert second["diff"]["before"] != second["diff"]["after"]
    container = serving.engine.containers[NAME]
    assert "-secret" not in repr((first, second, container.labels, serving.engine.creations, serving.engine.deeds))


def test_each_container_has_its_own_key_as_long_as_it_is_there(serving: SimulatedBox) -> None:
    serving.run(check=True, api_key="sk-first")
    assert not serving.keys.exists()
    serving.run(api_key="sk-first")
    assert serving.key_of(NAME) == "sk-first"
    serving.run(api_key="sk-second")
    assert (serving.key_of(NAME), serving.key_of(PREVIOUS)) == ("sk-second", "sk-first")
    assert {oct(path.stat().st_mode & 0o777) for path in serving.keys.rglob("*") if path.is_file()} == {"0o600"}
    assert {oct(path.stat().st_mode & 0o777) for path in (serving.keys, *serving.keys.iterdir())} == {"0o700"}
    serving.run("rolled_back")
    assert (serving.key_of(NAME), serving.key_of(ROLLED_BACK)) == ("sk-first", "sk-second")
    serving.run(api_key="sk-third")
    serving.run(api_key="sk-fourth")
    # The one that was rolled back from is kept for a look, with its key; the first is gone.
    assert sorted(path.read_text() for path in serving.keys.rglob("api_key")) == ["sk-fourth\n", "sk-second\n", "sk-third\n"]
    serving.run("absent")
    assert list(serving.keys.iterdir()) == []


def test_a_key_that_no_client_can_send_is_refused(serving: SimulatedBox) -> None:
    for key in ("two words", "schlüssel", "(to be made)"):
        refused = serving.run(api_key=key)
        assert "an API key is one word of printable ASCII characters" in refused["msg"]
    assert serving.run(check=True, api_key="(to be made)")["reasons"] == ["api_key: not set → (set)"]


def test_a_container_made_by_hand_is_swapped_and_kept(box: SimulatedBox) -> None:
    by_hand = box.engine.add_container(NAME, port=8002, restart_policy="always")
    swapped = box.run()
    assert swapped["plan"]["action"] == "swap"
    assert swapped["reasons"] == [f"{NAME} was not made by this version of the collection"]
    assert (swapped["previous"]["id"], swapped["previous"]["spec_digest"]) == (by_hand.id, None)
    # A stopped one with another policy than no comes back when the box boots.
    assert box.engine.containers[PREVIOUS].restart_policy == "no"
    back = box.run("rolled_back")
    assert (back["container"]["id"], box.engine.containers[NAME].restart_policy) == (by_hand.id, "unless-stopped")


def test_a_container_that_crashes_again_and_again_is_not_stopped_by_an_equal_spec(serving: SimulatedBox) -> None:
    serving.engine.containers[NAME] = replace(serving.engine.containers[NAME], status="restarting")
    assert not serving.run()["changed"]
    assert serving.run(spec=serving.with_args(seed=1))["container"]["state"] == "running"


# The swap


def test_nothing_stops_before_the_new_one_could_be_created(serving: SimulatedBox) -> None:
    serving.engine.refuse_create = "invalid IPC mode: nonsense"
    before = serving.serving_digest()
    result = serving.run(spec=serving.with_args(seed=1))
    assert "Docker refused to create gemma4-nvfp4-next: invalid IPC mode: nonsense" in result["msg"]
    assert "nothing that served was touched" in result["msg"]
    assert not any(deed.startswith("stop") and NEXT not in deed for deed in serving.engine.deeds)
    assert (serving.serving_digest(), serving.engine.states()) == (before, {NAME: "running"})


def test_the_order_of_a_swap(serving: SimulatedBox) -> None:
    serving.run(spec=serving.with_args(seed=1))
    serving.forget_deeds()
    serving.run(spec=serving.with_args(seed=2) | {"stop_timeout": 7})
    assert serving.engine.deeds == [
        f"create {NEXT}",
        f"stop {NAME} 7",
        f"restart no {NAME}",
        f"restart unless-stopped {NEXT}",
        f"start {NEXT}",
        f"remove {PREVIOUS}",
        f"rename {NAME} {PREVIOUS}",
        f"rename {NEXT} {NAME}",
    ]


def test_a_new_one_that_does_not_start_leaves_everything_as_it_was(serving: SimulatedBox) -> None:
    serving.run(spec=serving.with_args(seed=1))
    before = dict(serving.engine.containers)
    serving.engine.refuse_start = lambda container, creation: "nvml error: driver not loaded" if container.name == NEXT else None
    result = serving.run(spec=serving.with_args(seed=2))
    assert result["failed"]
    assert "gemma4-nvfp4: Docker refused to start gemma4-nvfp4-next: nvml error: driver not loaded." in result["msg"]
    assert "gemma4-nvfp4 was started again as it was" in result["msg"]
    assert (result["plan"]["action"], result["reasons"]) == ("swap", ["args.seed: 1 → 2"])
    assert serving.engine.states() == {NAME: "running", PREVIOUS: "exited"}
    assert {name: container.id for name, container in serving.engine.containers.items()} == {name: c.id for name, c in before.items()}
    assert serving.engine.containers[NAME].restart_policy == "unless-stopped"


def test_memory_that_does_not_come_back_starts_the_old_one_again(serving: SimulatedBox) -> None:
    serving.memory = Memory(total=120.0, available=60.0)
    before = serving.serving_digest()
    result = serving.run(spec=serving.with_args(seed=1), memory_timeout=90)
    assert "only 60.0 GiB of memory are available after 90 s" in result["msg"]
    assert "gemma4-nvfp4 was started again as it was" in result["msg"]
    assert (serving.serving_digest(), serving.engine.states()) == (before, {NAME: "running"})


def test_a_container_that_starts_although_docker_gave_no_answer_is_stopped_for_the_old_one(serving: SimulatedBox) -> None:
    def late(container: Any, creation: Any) -> str | None:
        if container.name != NEXT:
            return None
        serving.engine.containers[NEXT] = replace(container, status="running", started_at="2026-11-23T00:01:00Z")
        return "Read timed out"

    serving.engine.refuse_start = late
    serving.run(spec=serving.with_args(seed=1))
    assert serving.engine.states() == {NAME: "running"}


def test_an_error_after_the_start_leaves_the_new_one_serving(serving: SimulatedBox) -> None:
    serving.engine.refuse_rename = "device busy"
    result = serving.run(spec=serving.with_args(seed=1))
    assert "Docker refused to rename" in result["msg"]
    assert "Run again to go on where it stopped" in result["msg"]
    assert serving.engine.states() == {NAME: "exited", NEXT: "running"}
    serving.engine.refuse_rename = None
    again = serving.run(spec=serving.with_args(seed=1))
    assert (again["changed"], again["plan"]["action"]) == (True, "swap")
    assert again["reasons"] == [f"a swap was interrupted after {NEXT} had started: it is finished"]
    assert serving.engine.states() == {NAME: "running", PREVIOUS: "exited"}


def test_when_going_back_fails_too_both_are_said(serving: SimulatedBox) -> None:
    serving.engine.refuse_start = lambda container, creation: "driver not loaded"
    result = serving.run(spec=serving.with_args(seed=1))
    assert "Docker refused to start gemma4-nvfp4-next: driver not loaded" in result["msg"]
    assert "Going back failed too (Docker refused to start gemma4-nvfp4: driver not loaded)" in result["msg"]
    assert "docker start gemma4-nvfp4" in result["msg"]


def test_what_was_stopped_by_its_user_is_not_started_by_a_failed_swap(serving: SimulatedBox) -> None:
    serving.run("stopped")
    serving.engine.refuse_start = lambda container, creation: "driver not loaded" if container.name == NEXT else None
    result = serving.run(spec=serving.with_args(seed=1))
    assert serving.engine.states() == {NAME: "exited"}
    assert "nothing that served was touched" in result["msg"]


def test_a_first_start_that_fails_leaves_nothing(box: SimulatedBox) -> None:
    box.engine.refuse_start = lambda container, creation: "driver not loaded"
    result = box.run()
    assert "gemma4-nvfp4 was removed again" in result["msg"]
    assert box.engine.containers == {}


def test_a_start_that_fails_keeps_the_container(serving: SimulatedBox) -> None:
    serving.engine.crash(NAME, 137)
    serving.engine.refuse_start = lambda container, creation: "driver not loaded"
    result = serving.run()
    assert result["reasons"] == ["the container is not running (exited, code 137)"]
    assert result["msg"].endswith("driver not loaded. Nothing that served was touched")
    assert serving.engine.states() == {NAME: "exited"}


def test_a_container_that_never_ran_is_no_way_back(serving: SimulatedBox) -> None:
    serving.run(spec=serving.with_args(seed=1))
    good = serving.engine.containers[PREVIOUS].id
    serving.run("stopped")
    serving.run("present", spec=serving.with_args(seed=2))  # the one with seed 1 becomes the way back
    ran = serving.engine.containers[PREVIOUS].id
    assert ran != good
    serving.run(spec=serving.with_args(seed=3))
    assert serving.engine.containers[PREVIOUS].id == ran


def test_a_proven_way_back_is_not_given_up_for_one_that_was_not_proven(serving: SimulatedBox) -> None:
    serving.prove()
    good = serving.engine.containers[NAME].id
    serving.run(spec=serving.with_args(seed=1))  # and then somebody gives up, before the proof
    swapped = serving.run(spec=serving.with_args(seed=2))
    assert swapped["reasons"] == ["args.seed: 1 → 2", f"{NAME} was never proven, so {PREVIOUS} stays the way back"]
    assert serving.engine.states() == {NAME: "running", PREVIOUS: "exited"}
    assert serving.run("rolled_back")["container"]["id"] == good


@pytest.mark.parametrize("evidence", ["", "[]", '{"verdict": "proven"}', '{"container": {"id": "other"}, "verdict": "proven"}'])
def test_evidence_that_says_nothing_about_them_changes_nothing(serving: SimulatedBox, evidence: str) -> None:
    serving.evidence.mkdir()
    (serving.evidence / f"{NAME}.json").write_text(evidence)
    serving.run(spec=serving.with_args(seed=1))
    second = serving.engine.containers[NAME].id
    serving.run(spec=serving.with_args(seed=2))
    assert serving.engine.containers[PREVIOUS].id == second


def test_a_failed_proof_is_none(serving: SimulatedBox) -> None:
    serving.run(spec=serving.with_args(seed=1))
    serving.prove(PREVIOUS, verdict="failed")
    second = serving.engine.containers[NAME].id
    serving.run(spec=serving.with_args(seed=2))
    assert serving.engine.containers[PREVIOUS].id == second


# Memory and ports


def test_a_start_waits_for_what_the_flags_reserve(box: SimulatedBox) -> None:
    box.run()
    assert box.waited == [pytest.approx(102.0)]  # 0.85 of 120
    box.run("absent")
    box.run(spec=box.spec | {"gpus": "none"})
    box.run("absent")
    box.run(memory_required_gib=3)
    assert box.waited[1:] == [0.0, 3.0]


def test_more_memory_than_there_is_is_refused_before_anything_stops(serving: SimulatedBox) -> None:
    result = serving.run(spec=serving.with_args(seed=1), memory_required_gib=121)
    assert "121.0 GiB of memory are needed, the box has 120.0 in all" in result["msg"]
    assert serving.engine.deeds == []


def test_the_page_cache_is_dropped_when_asked_and_a_refusal_is_a_warning(box: SimulatedBox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_container_apply, "drop_caches", lambda: "The page cache was not dropped")
    assert not box.run().get("warnings")
    box.run("absent")
    result = box.run(drop_caches=True)
    assert result["container"]["state"] == "running"
    assert "The page cache was not dropped" in str(result["warnings"])


def test_a_taken_port_names_its_holder_before_anything_stops(serving: SimulatedBox) -> None:
    serving.engine.add_container("webui", port=8003)
    moved = serving.spec | {"port": 8003}
    assert "port 8003 is held by the container webui: stop it ('docker stop webui')" in serving.run(spec=moved)["msg"]
    serving.held_ports[8004] = "nginx (pid 7)"
    assert "port 8004 is held by nginx (pid 7)" in serving.run(spec=serving.spec | {"port": 8004})["msg"]
    assert serving.engine.deeds == []
    # In check mode the plan is still worth having.
    checked = serving.run(spec=moved, check=True)
    assert checked["reasons"] == ["port: 8002 → 8003"]
    assert "held by the container webui" in str(checked["warnings"])


def test_a_port_on_another_address_is_not_taken(serving: SimulatedBox) -> None:
    other = serving.engine.add_container("webui", port=8003)
    serving.engine.ports[other.id] = ("127.0.0.1", 8003)
    moved = serving.spec | {"port": 8003, "bind": "10.0.0.5"}
    assert serving.run(spec=moved, check=True).get("warnings") is None


def test_the_port_that_the_old_one_holds_is_free_for_the_new_one(serving: SimulatedBox) -> None:
    serving.held_ports[8002] = "docker-proxy (pid 9)"
    assert serving.run(spec=serving.with_args(seed=1))["container"]["state"] == "running"


def test_one_that_crashes_again_and_again_may_hold_the_port_now_and_then(serving: SimulatedBox) -> None:
    crashing = serving.engine.containers[NAME]
    serving.engine.containers[NAME] = replace(crashing, status="restarting")
    del serving.engine.ports[crashing.id]
    serving.held_ports[8002] = "docker-proxy (pid 9)"
    assert serving.run(spec=serving.with_args(seed=1))["container"]["state"] == "running"


# Refused before anything stops


def refusals() -> list[tuple[str, dict[str, Any], str]]:
    patch = {"file": "gemma4_patched.py", "module": "vllm.model_executor.models.gemma4", "vllm_versions": ">=0.19.0,<0.20"}
    return [
        ("vllm/vllm-openai:gemma4", {}, "image vllm/vllm-openai:gemma4 contains vLLM 0.18.2.dev0, the recipe needs >=0.19.0,<0.20: "),
        (
            "vllm/vllm-openai:v0.20.2",
            {"vllm_versions": ""},
            "the patch gemma4_patched.py is for vLLM >=0.19.0,<0.20, image vllm/vllm-openai:v0.20.2 contains 0.20.2: ",
        ),
        ("ubuntu:24.04", {"vllm_versions": ""}, "image ubuntu:24.04 contains no vLLM: "),
        ("vllm/vllm-openai:nowhere", {}, "image vllm/vllm-openai:nowhere is not on the box: pull it with"),
        (IMAGE, {"digest": "sha256:" + "1" * 64}, f"image {IMAGE} with digest sha256:{'1' * 64} is not on the box"),
        (IMAGE, {"model_path": "/nowhere"}, "the model in /nowhere is missing or incomplete"),
        (IMAGE, {"patches": [patch | {"file": "nowhere.py"}]}, "nowhere.py cannot be read (No such file or directory)"),
        (IMAGE, {"patches": [patch | {"sha256": "0" * 64}]}, f"the recipe or its lock pins {'0' * 64}"),
        (IMAGE, {"args": {"port": 1}}, "args.port is set by the module itself"),
    ]


@pytest.mark.parametrize(("image", "changed", "words"), refusals())
def test_it_is_refused_and_what_served_serves(serving: SimulatedBox, image: str, changed: dict[str, Any], words: str) -> None:
    for name, vllm in {"vllm/vllm-openai:gemma4": "0.18.2.dev0", "vllm/vllm-openai:v0.20.2": "0.20.2", "ubuntu:24.04": None}.items():
        serving.engine.add_image(name, vllm)
    result = serving.run(spec=serving.spec | {"image": image} | changed)
    assert result["failed"]
    assert result["msg"].startswith("gemma4-nvfp4: ")
    assert words in result["msg"]
    assert (serving.engine.deeds, serving.engine.states()) == ([], {NAME: "running"})


def test_no_docker_is_said_plainly(box: SimulatedBox, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> None:
        raise EngineUnavailable("Docker does not answer (refused): see 'systemctl status docker'")

    monkeypatch.setattr(vllm_container, "DockerEngine", unavailable)
    assert "Docker does not answer" in box.run("stopped")["msg"]


# Check mode


def test_check_mode_plans_on_a_virgin_box(box: SimulatedBox, tmp_path: Path) -> None:
    spec = box.spec | {"image": "vllm/vllm-openai:not-pulled", "model_path": "/srv/models/none"}
    result = box.run(spec=spec, check=True)
    assert (result["changed"], result["plan"]["action"]) == (True, "create")
    assert [missing.partition(" is ")[0].partition(" cannot")[0] for missing in result["missing"]] == [
        "image vllm/vllm-openai:not-pulled",
        "the model in /srv/models/none",
        "the patch /srv/models/none/gemma4_patched.py",
    ]
    assert "commit: (to be staged)" in result["diff"]["after"]
    assert box.engine.deeds == []
    assert not (tmp_path / "images").exists()


def test_check_mode_says_that_a_missing_image_will_be_brought(serving: SimulatedBox) -> None:
    result = serving.run(spec=serving.spec | {"image": V0192}, check=True)
    assert result["reasons"][0] == "image: vLLM 0.19.1.dev6+g6d4a8e6d2 (sha256:000000000000) → (to be staged)"
    assert f"image {V0192} is not on the box" in result["missing"][0]


def test_check_mode_refuses_a_wrong_vllm_that_is_there(serving: SimulatedBox) -> None:
    serving.engine.add_image("vllm/vllm-openai:gemma4", "0.18.2.dev0")
    assert "contains vLLM 0.18.2.dev0" in serving.run(spec=serving.spec | {"image": "vllm/vllm-openai:gemma4"}, check=True)["msg"]


@pytest.mark.parametrize("state", ["stopped", "rolled_back", "absent", "present"])
def test_check_mode_touches_nothing(serving: SimulatedBox, state: str) -> None:
    serving.run(spec=serving.with_args(seed=1))
    before = copy.deepcopy(serving.engine.containers)
    serving.forget_deeds()
    result = serving.run(state, check=True)
    assert result["changed"]
    assert (serving.engine.deeds, serving.engine.containers) == ([], before)


# The rollback


def test_rolling_back_ladder(serving: SimulatedBox) -> None:
    first = serving.engine.containers[NAME].id
    serving.run(spec=serving.with_args(seed=1))
    second = serving.engine.containers[NAME].id
    serving.forget_deeds()
    back = serving.run("rolled_back")
    assert (back["changed"], back["plan"]["action"]) == (True, "roll_back")
    assert back["reasons"] == [f"{PREVIOUS} takes the place of {NAME} (running)"]
    assert back["plan"]["changes"] == [{"what": "args.seed", "before": 1, "after": None}]
    assert "  seed: 1\n" in back["diff"]["before"]
    assert "  seed: 1\n" not in back["diff"]["after"]
    assert (back["container"]["id"], back["container"]["state"], back["previous"]) == (first, "running", None)
    assert serving.engine.containers[ROLLED_BACK].id == second
    assert serving.engine.states() == {NAME: "running", ROLLED_BACK: "exited"}
    assert {name: c.restart_policy for name, c in serving.engine.containers.items()} == {NAME: "unless-stopped", ROLLED_BACK: "no"}
    assert serving.engine.deeds[0] == f"stop {NAME} 120"
    assert serving.waited[-1] == pytest.approx(102.0)

    again = serving.run("rolled_back")
    assert (again["changed"], again["plan"]["action"]) == (False, "none")
    serving.engine.crash(NAME)
    assert serving.run("rolled_back")["plan"]["action"] == "start"

    # A newer one can be rolled back too; the one rolled back before makes room.
    serving.run(spec=serving.with_args(seed=2))
    serving.run("rolled_back")
    assert serving.engine.containers[NAME].id == first
    assert serving.engine.containers[ROLLED_BACK].id != second
    assert serving.run("absent")["plan"]["action"] == "remove"
    assert serving.engine.containers == {}


def test_nothing_to_go_back_to_is_an_error(serving: SimulatedBox) -> None:
    result = serving.run("rolled_back")
    assert f"there is no {PREVIOUS} to go back to" in result["msg"]
    assert serving.engine.states() == {NAME: "running"}


def test_nothing_at_all_to_go_back_to_is_an_error(box: SimulatedBox) -> None:
    assert f"there is no {PREVIOUS} to go back to" in box.run("rolled_back")["msg"]


def test_a_previous_one_that_does_not_start_leaves_everything_as_it_was(serving: SimulatedBox) -> None:
    serving.run(spec=serving.with_args(seed=1))
    before = serving.serving_digest()
    serving.engine.refuse_start = lambda container, creation: "driver not loaded" if container.name == PREVIOUS else None
    result = serving.run("rolled_back")
    assert "gemma4-nvfp4 was started again as it was" in result["msg"]
    assert serving.serving_digest() == before
    assert serving.engine.states() == {NAME: "running", PREVIOUS: "exited"}
    assert serving.engine.containers[PREVIOUS].restart_policy == "no"


def test_rolling_back_does_not_revive_what_crashed(serving: SimulatedBox) -> None:
    serving.run(spec=serving.with_args(seed=1))
    serving.engine.crash(NAME)
    serving.engine.refuse_start = lambda container, creation: "driver not loaded" if container.name == PREVIOUS else None
    serving.run("rolled_back")
    assert serving.engine.states() == {NAME: "exited", PREVIOUS: "exited"}


def test_a_name_that_is_missing_is_taken_by_the_previous_one(serving: SimulatedBox) -> None:
    first = serving.engine.containers[NAME].id
    serving.run(spec=serving.with_args(seed=1))
    serving.engine.crash(NAME)
    serving.engine.remove(NAME)
    back = serving.run("rolled_back")
    assert back["reasons"] == [f"{PREVIOUS} takes its place again: there is no {NAME}"]
    assert (serving.engine.containers[NAME].id, serving.engine.states()) == (first, {NAME: "running"})


def test_a_draft_model_that_is_not_there_yet_is_missing_in_check_mode_and_refused_otherwise(box: SimulatedBox, tmp_path: Path) -> None:
    spec = box.with_args(speculative_config={"method": "mtp", "num_speculative_tokens": 2}) | {"draft_path": str(tmp_path / "draft")}
    would = box.run(spec=spec, check=True)
    assert len(would["missing"]) == 1
    assert str(tmp_path / "draft") in would["missing"][0]
    refused = box.run(spec=spec)
    assert f"the model in {tmp_path / 'draft'} is missing or incomplete" in refused["msg"]
    assert box.engine.deeds == []

    lay_model(tmp_path / "draft", commit="d1")
    assert box.run(spec=spec)["changed"]
    assert not box.run(spec=spec)["changed"]
    lay_model(tmp_path / "draft", commit="d2")
    moved = box.run(spec=spec, check=True)
    assert moved["reasons"] == ["draft: bg-digitalservices/Gemma@d1 → bg-digitalservices/Gemma@d2"]


def test_a_module_that_still_works_there_is_waited_for(serving: SimulatedBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose controller was killed works on in the background of the box."""
    monkeypatch.setattr(vllm_container, "OTHERS_S", 0)
    serving.forget_deeds()
    with exclusive(f"{vllm_container.LOCK_DIR}/{NAME}.lock", 0):
        refused = serving.run(spec=serving.with_args(seed=2))
        assert "another process has held" in refused["msg"]
        assert serving.engine.deeds == []
        assert "failed" not in serving.run(spec=serving.with_args(seed=2), check=True)
    assert serving.run(spec=serving.with_args(seed=2))["changed"]


def test_it_says_which_container_the_evidence_proves(serving: SimulatedBox) -> None:
    assert serving.run()["container"]["proven"] is False
    serving.prove()
    assert serving.run()["container"]["proven"] is True
    swapped = serving.run(spec=serving.with_args(seed=2))
    assert (swapped["container"]["proven"], swapped["previous"]["proven"]) == (False, True)
