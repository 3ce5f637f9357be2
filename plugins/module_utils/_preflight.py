# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Is a box fit for a recipe, and what does it run? Decides over facts; reads nothing itself.

C(spark) is what the module spark_info returns, C(recipe) what the filter recipe returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._recipe import decode_limit_tok_s

FRESH = "fresh"  # nothing of ours serves here
SERVING = "serving"  # a container of ours serves, and something is to be changed or proven
CURRENT = "current"  # serves exactly what is asked, and its evidence says so


def problems(spark: Mapping[str, Any], recipe: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Why the box is not fit: one sentence a problem, each with its remedy and the variable that relaxes it.

    C(wanted) are the role's requirements: architectures, compute_capability, driver_refused, kernel_refused, memory_gib, memory_share,
    disk_gb, port, container, decode_limit_tok_s_min; an empty or zero requirement is not checked.
    """
    found = [
        *_machine(spark, wanted),
        *_gpu(spark, wanted),
        *_memory(spark, recipe, wanted),
        *_room(spark, recipe, wanted),
        *_docker(spark),
        *_port(spark, wanted),
        *_arithmetic(recipe, wanted),
    ]
    return found


def _machine(spark: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    found = []
    if wanted["architectures"] and spark["architecture"] not in wanted["architectures"]:
        found.append(
            f"the architecture is {spark['architecture']}, the recipe is for {' or '.join(wanted['architectures'])}"
            " (preflight_architectures: [] accepts any)"
        )
    if _matches(spark["kernel"], wanted["kernel_refused"]):
        found.append(f"kernel {spark['kernel']} is known to panic on a GB10: boot another one (preflight_kernel_refused lists the refused)")
    return found


def _memory(spark: Mapping[str, Any], recipe: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The weights must fit into vLLM's share of the memory, and leave something for the KV cache."""
    total = spark["memory"]["total_gib"]
    if wanted["memory_gib"] and total < wanted["memory_gib"]:
        return [f"the box has {total:.1f} GiB of memory, the recipe needs {wanted['memory_gib']:g} (preflight_memory_gib)"]
    share = wanted["memory_share"]
    weights_gb = sum(checkpoint["size_gb"] for checkpoint in _checkpoints(recipe).values())
    reserved, weights = share * total, weights_gb * 1e9 / 2**30
    if not share or weights < reserved:
        return []
    return [
        f"the weights of {recipe['name']} are {weights_gb:g} GB = {weights:.1f} GiB, and vLLM gets {share:g} of the box's {total:.1f} GiB ="
        f" {reserved:.1f} GiB (gpu-memory-utilization): nothing is left for the KV cache. Raise that share, or take a smaller checkpoint."
        " preflight_force: true deploys it all the same"
    ]


def _gpu(spark: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    capability = wanted["compute_capability"]
    if not capability:
        return []
    if not spark["gpus"]:
        return [
            "nvidia-smi shows no GPU: install or repair the driver (580.x is known to work);"
            " preflight_compute_capability: '' accepts a box without one"
        ]
    found = []
    for gpu in spark["gpus"]:
        if gpu["compute_capability"] != capability:
            found.append(
                f"{gpu['name']} has compute capability {gpu['compute_capability']}, the recipe is for {capability}"
                " (preflight_compute_capability: '' accepts any)"
            )
        driver = gpu["driver_version"] or ""
        if _matches(driver, wanted["driver_refused"]):
            found.append(
                f"driver {driver} is refused: it deadlocks while CUDA graphs are captured; install 580.x"
                " (preflight_driver_refused lists the refused)"
            )
    return found


def _matches(version: str, prefixes: Sequence[str]) -> bool:
    return any(version.startswith(prefix) for prefix in prefixes)


def _room(spark: Mapping[str, Any], recipe: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    needed = wanted["disk_gb"]
    if needed is None:
        # Only the weights: they are much the largest, and the image lies on Docker's own disk, which the pull itself reports.
        needed = sum(
            checkpoint["size_gb"]
            for key, checkpoint in _checkpoints(recipe).items()
            if not _is_there(spark.get(key), checkpoint) and not (key == "model" and _beside(spark, recipe))
        )
    disk = spark["disk"]
    if disk["free_gb"] < needed:
        return [
            f"{disk['path']} has {disk['free_gb']:.1f} GB free, {needed:g} GB are needed for the weights: make room (preflight_disk_gb)"
        ]
    return []


def _docker(spark: Mapping[str, Any]) -> list[str]:
    docker = spark["docker"]
    if docker["running"]:
        return []
    return [f"Docker does not answer ({docker['error']}): install Docker or start it with 'systemctl start docker'"]


def _port(spark: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    port, holder = wanted["port"], spark["ports"].get(str(wanted["port"]))
    # What a deployment replaces: the container of that name, and what an interrupted swap left beside it.
    if not port or not holder or holder.get("container") in (wanted["container"], f"{wanted['container']}-next"):
        return []
    other = next((c for c in spark["containers"] if c["name"] == holder.get("container")), None)
    if other:
        return [
            f"port {port} is taken by the container {other['name']} of the recipe {other['recipe']}: take it away with playbooks/remove.yml"
            f" -e recipe_name={other['recipe']} (its weights stay), or choose another port (vllm_port)"
        ]
    name = holder.get("container") or holder.get("process") or "another process"
    return [f"port {port} is taken by {name} (pid {holder.get('pid')}): stop it or choose another port (vllm_port)"]


def _arithmetic(recipe: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    limit = decode_limit_tok_s(recipe)
    least = wanted["decode_limit_tok_s_min"]
    if limit is None or not least or limit >= least:
        return []
    bandwidth = recipe["hardware"]["bandwidth_gb_s"]
    cost = recipe["decode_bytes"]["weights_gb"] + recipe["decode_bytes"]["kv_gb"]
    # With speculation the limit is one of steps, each of which may bring several tokens: how many depends on what is written.
    unit, per_second = ("step", "steps/s") if recipe["args"].get("speculative-config") else ("token", "tok/s")
    return [
        f"{recipe['name']} reads {cost:g} GB for every {unit}: {cost:g} GB / {bandwidth:g} GB/s = {1000 * cost / bandwidth:.0f} ms,"
        f" so it cannot exceed {limit:.1f} {per_second} on this box, below the {least:g} asked. No flag changes that; a mixture of experts"
        " does (gemma4-26b-a4b-nvfp4 reads 3.3 GB). preflight_force: true deploys it all the same"
    ]


def _checkpoints(recipe: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What the recipe loads, by its key there and in the box's facts: the model, and its draft model if it has one."""
    return {key: recipe[key] for key in ("model", "draft") if recipe.get(key)}


def _is_there(seen: Mapping[str, Any] | None, checkpoint: Mapping[str, Any]) -> bool:
    return bool(seen and seen["complete"] and seen["repo"] == checkpoint["repo"])


def _beside(spark: Mapping[str, Any], recipe: Mapping[str, Any]) -> str | None:
    """Where the box has the commit that is asked under another revision's name: it is linked from there, not fetched."""
    asked = (recipe["model"]["repo"], recipe["model"]["revision"])
    return next((entry["path"] for entry in spark.get("snapshots", []) if (entry["repo"], entry["commit"]) == asked), None)


def state(spark: Mapping[str, Any], recipe: Mapping[str, Any], plan: Mapping[str, Any], container: str) -> dict[str, Any]:
    """What the box is for this deployment: C(state) fresh, serving or current, the C(reasons) why it is not current, and whether what
    runs is C(proven), by this recipe or by the one before.

    C(plan) is vllm_container's result in check mode, or that it was skipped; C(container) the name of the container that should serve.
    """
    running = [c for c in spark["containers"] if c["state"] == "running"]
    reasons = list(plan.get("reasons") or ())
    if (plan.get("skipped") or plan["plan"]["action"] != "none") and not reasons:
        reasons.append(f"there is no container {container}")
    reasons += _weights(spark, recipe)
    unproven = _unproven(spark["evidence"], next((c for c in running if c["name"] == container), None))
    reasons = reasons or unproven
    decided = (SERVING if running else FRESH) if reasons else CURRENT
    return {"state": decided, "reasons": reasons, "proven": not unproven}


def _weights(spark: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    return [reason for key, asked in _checkpoints(recipe).items() for reason in _checkpoint(spark, recipe, key, asked)]


def _checkpoint(spark: Mapping[str, Any], recipe: Mapping[str, Any], key: str, asked: Mapping[str, Any]) -> list[str]:
    model = spark.get(key)
    if not model:
        beside = _beside(spark, recipe) if key == "model" else None
        return [f"the weights of {asked['repo']} are {'linked from ' + beside if beside else 'not on the box'}"]
    if not model["complete"]:
        return [f"the weights in {model['path']} are not complete: {model['problem']}"]
    if (model["repo"], model["revision"]) != (asked["repo"], asked["revision"]):
        return [f"the weights are {model['repo']}@{model['revision']}, asked is {asked['repo']}@{asked['revision']}"]
    lock = recipe.get("lock") or {}
    if lock and model.get("fingerprint") != lock[key]["fingerprint"]:
        return [f"the weights in {model['path']} are not the bytes that {lock['file']} names"]
    return []


def _unproven(evidence: Mapping[str, Any] | None, container: Mapping[str, Any] | None) -> list[str]:
    """Why what runs is not proven."""
    if container is None:
        return ["the container does not run"]
    if not evidence:
        return ["there is no evidence that it was proven"]
    if evidence.get("verdict") != "proven":
        return ["its evidence says: failed"]
    if evidence["container"]["id"] != container["id"] or evidence["container"]["spec_digest"] != container["spec_digest"]:
        return ["its evidence is of another container"]
    return []
