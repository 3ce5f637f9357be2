# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._container_changes import changes, text
from ansible_collections.dgx.spark.plugins.module_utils._container_spec import (
    ContainerSpec,
    NotStaged,
    Patch,
    Snapshot,
    SpecError,
    check_patch_version,
    creation,
    digest,
    patch_sha256,
    patch_target,
    read_snapshot,
    render_args,
    resolve,
    size_bytes,
    stored,
)
from ansible_collections.dgx.spark.plugins.module_utils._image import ImageInfo
from hypothesis import given
from hypothesis import strategies as st
from unit.container_box import PATCH, article, lay_model

SITE = "/usr/local/lib/python3.12/dist-packages/vllm"
IMAGE = ImageInfo(
    "vllm/vllm-openai:gemma4-cu130", "vllm/vllm-openai:gemma4-cu130", "sha256:" + "a" * 64, None, "arm64", "0.19.1", SITE, "3.12"
)
DEFAULTS: dict[str, Any] = {
    "digest": None,
    "draft_path": None,
    "draft_mount": "/models/draft",
    "env": {},
    "bind": "0.0.0.0",
    "port": 8002,
    "gpus": "all",
    "ipc": "host",
    "shm_size": "64gb",
    "restart_policy": "unless-stopped",
    "stop_timeout": 120,
    "log_max_size": "50m",
    "log_max_files": 3,
}
PATCHED = Patch("gemma4_patched.py", "vllm.model_executor.models.gemma4", ">=0.19.0,<0.20", None)


def params(model: Path = Path("/srv/models/gemma4"), **changed: Any) -> dict[str, Any]:
    patches = [patch | {"sha256": None} for patch in article(model)["patches"]]
    return DEFAULTS | article(model) | {"patches": patches} | changed


def resolved(api_key: str = "", salt: str | None = None, found: ImageInfo = IMAGE, commit: str = "c1", **changed: Any) -> dict[str, Any]:
    spec = ContainerSpec.from_params(params(**changed))
    return resolve(spec, found, Snapshot("bg/gemma", commit), ["ff" * 32] * len(spec.patches), api_key, salt)


def test_args_are_rendered_as_vllm_writes_them() -> None:
    argv = render_args(
        {
            "quantization": "modelopt",
            "enable-auto-tool-choice": True,
            "enforce-eager": False,
            "seed": None,
            "gpu-memory-utilization": 0.85,
            "max-model-len": 131072,
            "allowed-origins": ["a", 1, True],
            "speculative-config": {"num_speculative_tokens": 2, "method": "mtp"},
            "lora-modules": [{"name": "x"}],
            "empty": [],
            "offset": -1,
            "pass-config.fuse": "x y",
        }
    )
    assert argv == [
        *("--allowed-origins", "a", "1", "true"),
        "--enable-auto-tool-choice",
        *("--gpu-memory-utilization", "0.85"),
        *("--lora-modules", '{"name":"x"}'),
        *("--max-model-len", "131072"),
        "--offset=-1",
        *("--pass-config.fuse", "x y"),
        *("--quantization", "modelopt"),
        *("--speculative-config", '{"method":"mtp","num_speculative_tokens":2}'),
    ]


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True).filter(lambda name: name not in ("model", "host", "port")), st.integers())
)
def test_the_order_in_which_args_are_written_does_not_matter(args: dict[str, int]) -> None:
    assert render_args(args) == render_args(dict(reversed(args.items())))


@pytest.mark.parametrize("name", ["model", "port", "api-key", "served-model-name"])
def test_args_that_the_module_sets_itself_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match=f"args.{name} is set by the module itself"):
        ContainerSpec.from_params(params(args={name: "x"}))


@pytest.mark.parametrize("share", ["most", 85, 0, -0.5, True])
def test_a_share_of_the_memory_that_is_none_is_refused(share: Any) -> None:
    with pytest.raises(SpecError, match="it is a share of the memory such as 0.85"):
        ContainerSpec.from_params(params(args={"gpu-memory-utilization": share}))


@pytest.mark.parametrize("share", [0.85, "0.9", 1, 1.0, None])
def test_a_share_of_the_memory_may_be_text(share: Any) -> None:
    ContainerSpec.from_params(params(args={"gpu-memory-utilization": share}))


def test_an_environment_variable_can_be_left_out() -> None:
    assert ContainerSpec.from_params(params(env={"A": None, "B": 1})).env == {"B": "1"}


@pytest.mark.parametrize("name", ["--quantization", "two words", ""])
def test_what_is_no_flags_name_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="is not the name of a flag"):
        ContainerSpec.from_params(params(args={name: "x"}))


@pytest.mark.parametrize(
    ("text", "size"), [("64gb", 64 << 30), ("64g", 64 << 30), ("1 GiB", 1 << 30), ("512m", 512 << 20), ("10", 10), ("2T", 2 << 40)]
)
def test_sizes_are_read_as_docker_reads_them(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "big", "1.5gb", "-1g", "64 pb"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="is not a size like 64gb"):
        ContainerSpec.from_params(params(shm_size=text))


def test_paths_must_be_absolute() -> None:
    for wrong in ({"model_path": "models/gemma"}, {"model_mount": "models/gemma"}):
        with pytest.raises(SpecError, match="must be absolute paths"):
            ContainerSpec.from_params(params() | wrong)


@pytest.mark.parametrize(
    ("file", "module", "words"),
    [
        ("../x.py", "vllm.x", "must be a file in the model's directory"),
        ("/x.py", "vllm.x", "must be a file in the model's directory"),
        ("x.py", "os", "no module of vLLM"),
        ("x.py", "vllm.a/../../b", "no module of vLLM"),
    ],
)
def test_a_patch_that_leads_elsewhere_is_refused(file: str, module: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        ContainerSpec.from_params(params(patches=[{"file": file, "module": module, "vllm_versions": "", "sha256": None}]))


def test_one_module_is_patched_once() -> None:
    patches = params()["patches"]
    with pytest.raises(SpecError, match="two patches replace the module vllm.model_executor.models.gemma4"):
        ContainerSpec.from_params(params() | {"patches": patches * 2})


def test_a_complete_snapshot_says_what_it_is(tmp_path: Path) -> None:
    assert read_snapshot(str(lay_model(tmp_path))) == Snapshot("bg-digitalservices/Gemma", "c0ffee")


def test_an_incomplete_snapshot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotStaged, match=r"is missing or incomplete \(there is no readable .dgx-spark-snapshot.json"):
        read_snapshot(str(tmp_path))
    lay_model(tmp_path)
    (tmp_path / "config.json").write_text("{} ")
    with pytest.raises(NotStaged, match="config.json is 3 bytes long instead of 2"):
        read_snapshot(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(NotStaged, match=r"\(config.json is missing\).*hf_snapshot"):
        read_snapshot(str(tmp_path))


@pytest.mark.parametrize("marker", ["", "[]", "{}", '{"repo": "x", "commit": "y", "files": [1]}'])
def test_a_marker_that_cannot_be_read_is_refused(tmp_path: Path, marker: str) -> None:
    (tmp_path / ".dgx-spark-snapshot.json").write_text(marker)
    with pytest.raises(NotStaged, match="is missing or incomplete"):
        read_snapshot(str(tmp_path))


def test_a_patch_is_known_by_its_bytes(tmp_path: Path) -> None:
    lay_model(tmp_path)
    found = hashlib.sha256(PATCH).hexdigest()
    assert patch_sha256(PATCHED, str(tmp_path)) == found
    assert patch_sha256(Patch("gemma4_patched.py", PATCHED.module, "", found.upper()), str(tmp_path)) == found
    with pytest.raises(NotStaged, match=f"has sha256 {found}, the recipe or its lock pins {'0' * 64}"):
        patch_sha256(Patch("gemma4_patched.py", PATCHED.module, "", "0" * 64), str(tmp_path))
    with pytest.raises(NotStaged, match=r"the patch .*/nowhere.py cannot be read \(No such file or directory\)"):
        patch_sha256(Patch("nowhere.py", PATCHED.module, "", None), str(tmp_path))


def test_a_patch_is_refused_for_a_vllm_that_it_is_not_for() -> None:
    check_patch_version(PATCHED, IMAGE)
    with pytest.raises(SpecError) as caught:
        check_patch_version(PATCHED, ImageInfo("vllm/vllm-openai:v0.20.2", "x", "i", None, "arm64", "0.20.2", SITE, "3.12"))
    assert "the patch gemma4_patched.py is for vLLM >=0.19.0,<0.20, image vllm/vllm-openai:v0.20.2 contains 0.20.2" in str(caught.value)
    assert "patches: []" in str(caught.value)


def test_the_patch_lies_where_the_image_has_the_module() -> None:
    assert patch_target(PATCHED, IMAGE) == f"{SITE}/model_executor/models/gemma4.py"


def test_the_articles_options_are_what_is_created() -> None:
    spec = ContainerSpec.from_params(params())
    made = creation(spec, resolved(), IMAGE, "gemma4-26b-a4b-nvfp4", "")
    assert made.command[:8] == [
        *("--model", "/models/gemma4", "--served-model-name", "gemma-4-26b"),
        *("--host", "0.0.0.0", "--port", "8000"),
    ]
    assert made.command[8:] == [
        "--enable-auto-tool-choice",
        *("--gpu-memory-utilization", "0.85"),
        *("--kv-cache-dtype", "fp8"),
        *("--max-model-len", "131072"),
        *("--moe-backend", "marlin"),
        *("--quantization", "modelopt"),
        *("--reasoning-parser", "gemma4"),
        *("--shutdown-timeout", "105"),
        *("--tool-call-parser", "gemma4"),
    ]
    assert list(made.mounts) == [
        ("/srv/models/gemma4", "/models/gemma4"),
        ("/srv/models/gemma4/gemma4_patched.py", f"{SITE}/model_executor/models/gemma4.py"),
    ]
    assert (made.bind, made.port, made.container_port) == ("0.0.0.0", 8002, 8000)
    assert (made.gpus, made.ipc, made.shm_size, made.stop_timeout) == ("all", "host", 64 << 30, 120)
    assert (made.log_max_size, made.log_max_files, made.environment) == ("50m", 3, {})
    assert made.labels["dgx.spark.recipe"] == "gemma4-26b-a4b-nvfp4"
    assert made.labels["dgx.spark.vllm_version"] == "0.19.1"
    assert made.labels["dgx.spark.spec_digest"] == hashlib.sha256(made.labels["dgx.spark.spec"].encode()).hexdigest()
    assert stored(made.labels) == resolved()


@pytest.mark.parametrize(
    ("version", "changed", "flag"),
    [
        ("0.19.1.dev6+g6d4a8e6d2", {}, ["--shutdown-timeout", "105"]),
        ("0.32.0+cpu", {"stop_timeout": 16}, ["--shutdown-timeout", "1"]),
        ("0.32.0", {"args": {"shutdown-timeout": 30}}, ["--shutdown-timeout", "30"]),
        ("0.32.0", {"args": {"shutdown-timeout": None}}, ["--shutdown-timeout", "105"]),
        ("0.32.0", {"stop_timeout": 15}, []),
        ("0.19.0", {}, []),
        (None, {}, []),
        ("unknown", {}, []),
    ],
)
def test_running_answers_may_end_within_the_time_that_docker_gives(version: str | None, changed: dict[str, Any], flag: list[str]) -> None:
    spec, image = ContainerSpec.from_params(params(**changed)), replace(IMAGE, vllm_version=version)
    made = creation(spec, resolve(spec, image, None, [None], "", None), image, "r", "")
    at = made.command.index("--shutdown-timeout") if "--shutdown-timeout" in made.command else len(made.command)
    assert list(made.command[at : at + 2]) == flag


def test_a_label_that_is_not_ours_is_none() -> None:
    for labels in ({}, {"dgx.spark.spec": "{"}, {"dgx.spark.spec": "[]"}, {"dgx.spark.spec": '{"schema": 99}'}):
        assert stored(labels) is None


def test_a_key_reaches_the_container_past_all_that_docker_shows() -> None:
    image = replace(IMAGE, entrypoint=("vllm", "serve"))
    spec = ContainerSpec.from_params(params(env={"A": "1"}))
    found = resolve(spec, image, None, [None], "sk-secret", None)
    made = creation(spec, found, image, "r", "/keys/NAME.1")
    assert made.environment == {"A": "1"}
    assert list(made.entrypoint) == ["python3", "/run/dgx-spark/dgx_spark_guard.py", "vllm", "serve"]
    assert " ".join(made.command).startswith(
        "--model /models/gemma4 --served-model-name gemma-4-26b --host 0.0.0.0 --port 8000 --middleware dgx_spark_guard.RequireKey --enable"
    )
    assert ("/keys/NAME.1", "/run/dgx-spark") in made.mounts
    assert "secret" not in repr(made) + text(found) + str(changes(found, resolved()))
    assert hashlib.sha256(b"sk-secret").hexdigest()[:16] not in repr(made)


def test_a_container_without_a_key_runs_the_images_own_command() -> None:
    made = creation(ContainerSpec.from_params(params()), resolved(), IMAGE, "r", None)
    assert (made.entrypoint, "--middleware" in made.command) == ([], False)


def test_a_key_among_the_environment_is_refused() -> None:
    with pytest.raises(SpecError, match=r"env.VLLM_API_KEY would show the key to 'docker inspect': use the option api_key"):
        ContainerSpec.from_params(params(env={"VLLM_API_KEY": "sk-secret"}))


def test_another_guard_with_the_same_key_is_a_change_of_the_guard() -> None:
    before = resolved("sk-1")
    after = before | {"api_key": before["api_key"] | {"guard": "0123456789ab"}}
    assert [str(change) for change in changes(before, after)] == [f"api_key.guard: {before['api_key']['guard']} → 0123456789ab"]
    assert "api_key:\n  guard: 0123456789ab\n  key: (set)\n" in text(after, against=before)


def test_secrets_reach_the_environment_and_nothing_else() -> None:
    spec = ContainerSpec.from_params(params(env={"HF_TOKEN": "hf_secret", "VLLM_CPU_KVCACHE_SPACE": 1, "FLAG": True}))
    found = resolve(spec, IMAGE, None, [None], "", None)
    made = creation(spec, found, IMAGE, "r", None)
    assert made.environment == {"HF_TOKEN": "hf_secret", "VLLM_CPU_KVCACHE_SPACE": "1", "FLAG": "true"}
    shown = json.dumps([dict(made.labels), list(made.command)]) + text(found) + str(changes(found, resolved()))
    assert "secret" not in shown
    assert hashlib.sha256(b"hf_secret").hexdigest()[:16] not in shown


def test_equal_secrets_are_equal_with_the_same_salt_only() -> None:
    first = resolved("sk-1")
    assert first["salt"] != resolved("sk-1")["salt"]
    assert resolved("sk-1", salt=first["salt"]) == first
    assert resolved("sk-2", salt=first["salt"]) != first
    assert resolved("", salt=first["salt"])["salt"] is None


def test_equal_specs_have_equal_digests_in_any_order() -> None:
    reordered = resolved(args=dict(reversed(params()["args"].items())))
    assert digest(reordered) == digest(resolved())
    assert digest(resolved(args=params()["args"] | {"seed": None, "enforce-eager": False})) == digest(resolved())
    assert digest(resolved(shm_size="64g")) == digest(resolved())
    # Another name for the same bytes is no other spec: the lock adds a digest to the name.
    assert digest(resolved(image="vllm/vllm-openai@sha256:x")) == digest(resolved())


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"args": params()["args"] | {"moe-backend": "auto"}}, "args.moe-backend: marlin → auto"),
        ({"args": params()["args"] | {"seed": 7}}, "args.seed: not set → 7"),
        ({"args": params()["args"] | {"enable-auto-tool-choice": False}}, "args.enable-auto-tool-choice: true → not set"),
        ({"port": 8003}, "port: 8002 → 8003"),
        ({"shm_size": "16gb"}, "shm_size: 64 GiB → 16 GiB"),
        ({"log_max_files": 5}, "log.max_files: 3 → 5"),
        ({"stop_timeout": 60}, "stop_timeout: 120 → 60"),
        ({"served_model_name": "g"}, "served_model_name: gemma-4-26b → g"),
        ({"commit": "c2"}, "model: bg/gemma@c1 → bg/gemma@c2"),
        ({"env": {"A": "1"}}, "env.A: not set → (set)"),
        ({"api_key": "sk-1"}, "api_key: not set → (set)"),
        (
            {"patches": []},
            f"patches.{PATCHED.module}: gemma4_patched.py (ffffffffffff) on {SITE}/model_executor/models/gemma4.py → not set",
        ),
        (
            {"found": ImageInfo("x", "x", "sha256:" + "b" * 64, None, "arm64", "0.19.2", SITE, "3.12")},
            f"image: vLLM 0.19.1 (sha256:{'a' * 12}) → vLLM 0.19.2 (sha256:{'b' * 12})",
        ),
    ],
)
def test_a_change_is_one_sentence(changed: dict[str, Any], sentence: str) -> None:
    before, after = resolved(), resolved(**changed)
    assert digest(before) != digest(after)
    assert [str(change) for change in changes(before, after)] == [sentence]


def test_a_changed_secret_shows_as_changed_and_not_as_what() -> None:
    before = resolved("sk-1")
    after = resolved("sk-2", salt=before["salt"])
    assert [str(change) for change in changes(before, after)] == ["api_key: (set) → (set to something else)"]
    assert text(before, state="running") != text(after, against=before, state="running")
    assert before["api_key"]["hash"] not in text(before) + text(after, against=before)


def test_a_spec_reads_as_sorted_lines() -> None:
    lines = text(resolved(), state="running").splitlines()
    assert lines[0] == "state: running"
    assert "  moe-backend: marlin" in lines
    assert "shm_size: 68719476736" in lines
    top = [line.partition(":")[0] for line in lines[1:] if not line.startswith(" ")]
    assert top == sorted(top)
    assert "salt" not in top


def drafting(**changed: Any) -> dict[str, Any]:
    args = params()["args"] | {"speculative-config": {"method": "mtp", "num_speculative_tokens": 2}}
    return {"draft_path": "/srv/models/draft", "args": args} | changed


def drafted(commit: str = "d1", **changed: Any) -> dict[str, Any]:
    spec = ContainerSpec.from_params(params(**drafting(**changed)))
    return resolve(spec, IMAGE, Snapshot("bg/gemma", "c1"), ["ff" * 32], "", None, Snapshot("google/draft", commit))


def test_a_draft_model_is_mounted_and_speculation_finds_it() -> None:
    spec = ContainerSpec.from_params(params(**drafting()))
    made = creation(spec, drafted(), IMAGE, "r", "")
    assert ("/srv/models/draft", "/models/draft") in made.mounts
    given = json.loads(made.command[list(made.command).index("--speculative-config") + 1])
    assert given == {"method": "mtp", "num_speculative_tokens": 2, "model": "/models/draft"}
    assert drafted()["draft"] == {"path": "/srv/models/draft", "mount": "/models/draft", "repo": "google/draft", "commit": "d1"}


def test_without_a_draft_model_a_container_is_what_it_was_before_there_were_any() -> None:
    assert "draft" not in resolved()
    spec = ContainerSpec.from_params(params(args=drafting()["args"]))
    command = creation(spec, resolved(), IMAGE, "r", "").command
    assert "model" not in json.loads(command[list(command).index("--speculative-config") + 1])


def test_another_commit_of_the_draft_model_is_another_container() -> None:
    assert digest(drafted()) != digest(drafted("d2"))
    assert [str(change) for change in changes(drafted(), drafted("d2"))] == ["draft: google/draft@d1 → google/draft@d2"]
    added = [str(change) for change in changes(resolved(), drafted())]
    assert "draft: not set → google/draft@d1" in added
    assert "draft.mount: not set → /models/draft" in added


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"draft_path": "draft"}, "must be absolute paths"),
        ({"draft_mount": "draft"}, "must be absolute paths"),
        ({"args": {"speculative-config": {"method": "mtp", "model": "a/b"}}}, "args.speculative-config.model is set by the module itself"),
        ({"args": {"speculative-config": "mtp"}}, "args.speculative-config must be a mapping"),
    ],
)
def test_a_draft_model_that_would_not_be_found_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        ContainerSpec.from_params(params(**drafting(**changed)))
