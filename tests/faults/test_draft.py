# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A draft model on its whole way: fetched, mounted, locked, missed when it is gone, and taken away with the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.box import ROOT, Box, Served
from faults.test_way_back import changed

NAME, DRAFT = "draft-test", "dgx-spark/draft"
MODELS = f"/srv/models/{NAME}"


@pytest.fixture
def variables(served: Served, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The article's recipe with a draft model, under a name of its own; what it leaves on the box is taken away."""
    recipe = yaml.safe_load((ROOT / "roles/recipe/vars/gemma4-26b-a4b-nvfp4.yml").read_text())
    recipe |= {"name": NAME, "draft": {"repo": DRAFT, "size_gb": 0.02, "files": ["config.json", "*.safetensors"]}}
    recipe["args"]["speculative-config"] = {"method": "mtp", "num_speculative_tokens": 2}
    (tmp_path / f"{NAME}.yml").write_text(yaml.safe_dump(recipe))
    yield {"recipe_name": NAME, "recipe_dirs": [str(tmp_path)], "lock_file": str(tmp_path / "gemma4.lock.yml")}
    served.box.sh(f"rm -rf {MODELS} {MODELS}.draft")


def command_of(box: Box) -> list[str]:
    found: list[str] = box.container()["Config"]["Cmd"]
    return found


@pytest.mark.long
def test_a_draft_model_comes_with_the_model_and_goes_with_it(served: Served, variables: dict[str, Any]) -> None:
    box = served.box
    first = box.play(**variables)
    assert first.rc == 0, first.why
    first.says(f"the weights of {DRAFT} are not on the box", "draft: not set", f"draft {DRAFT} at commit")
    given = json.loads(command_of(box)[command_of(box).index("--speculative-config") + 1])
    assert given == {"method": "mtp", "num_speculative_tokens": 2, "model": "/models/draft"}
    mounts = {mount["Destination"]: (mount["Source"], mount["RW"]) for mount in box.container()["Mounts"]}
    assert mounts["/models/draft"] == (f"{MODELS}.draft/main", False)
    assert mounts["/models/gemma4"] == (f"{MODELS}/main", False)

    again = box.play(**variables)
    assert (again.rc, changed(again)) == (0, 0), again.why
    cleaned = box.play("clean", clean=True, **variables)
    assert cleaned.rc == 0, cleaned.why
    assert box.sh(f"ls {MODELS}.draft/main/config.json")

    # A file of it is gone: the box is not what is asked any more, and only that file is fetched.
    box.sh(f"rm {MODELS}.draft/main/config.json")
    mended = box.play(**variables)
    assert mended.rc == 0, mended.why
    mended.says(f"the weights in {MODELS}.draft/main are not complete: config.json is missing")
    assert box.sh(f"ls {MODELS}.draft/main/config.json")

    removed = box.play("remove", remove_weights=True, **variables)
    assert removed.rc == 0, removed.why
    assert box.sh(f"ls -d {MODELS}/* {MODELS}.draft/* 2>/dev/null || true") == ""


@pytest.mark.long
def test_a_lock_covers_both_and_holds_both(served: Served, variables: dict[str, Any]) -> None:
    written = served.box.play("lock", **variables)
    assert written.rc == 0, written.why
    entry = yaml.safe_load(Path(variables["lock_file"]).read_text())["recipes"][NAME]
    assert entry["draft"]["repo"] == DRAFT
    assert "model.safetensors" in entry["draft"]["files"]

    entry["draft"]["files"]["model.safetensors"]["sha256"] = "0" * 64
    document = yaml.safe_load(Path(variables["lock_file"]).read_text())
    document["recipes"][NAME] = entry
    Path(variables["lock_file"]).write_text(yaml.safe_dump(document))
    refused = served.box.play(**variables)
    assert refused.rc != 0
    refused.says(f"has other bytes under commit {entry['draft']['commit']} of {DRAFT} than the lock", "model.safetensors is sha256")
    served.still_serves()


def test_a_draft_model_that_the_hub_does_not_have_stops_the_run_while_what_serves_goes_on(
    served: Served, variables: dict[str, Any]
) -> None:
    path = Path(variables["recipe_dirs"][0]) / f"{NAME}.yml"
    recipe = yaml.safe_load(path.read_text())
    recipe["draft"]["repo"] = "nobody/nothing"
    path.write_text(yaml.safe_dump(recipe))
    refused = served.box.play(**variables)
    assert refused.rc != 0
    refused.says("nobody/nothing")
    served.still_serves()
