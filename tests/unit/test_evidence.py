# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._evidence import document, regressions

SPARK: dict[str, Any] = {
    "containers": [
        {
            "name": "gemma4-nvfp4",
            "id": "c1",
            "spec_digest": "d1",
            "started_at": "2026-11-23T10:00:00Z",
            "image": "vllm:x",
            "patches": {"gemma4_patched.py": "p00"},
        }
    ],
    "model": {"repo": "a/b", "commit": "f00", "path": "/srv/models/x"},
    "kernel": "6.17.0-1032-nvidia",
    "os": {"pretty_name": "Ubuntu 24.04.3 LTS", "dgx_os": "7.5.0"},
    "gpus": [{"name": "NVIDIA GB10", "driver_version": "580.142"}],
    "docker": {"version": "28.5.1"},
    "toolkit": {"nvidia-container-toolkit": "1.19.0-1"},
    "evidence": None,
}
IMAGE = {"id": "sha256:1", "digest": "sha256:2", "vllm_version": "0.19.1.dev6"}
STARTUP = {"startup": {"vllm_version": "0.19.1.dev6", "ready": True}, "failures": []}
PROBES = {"probes": [{"name": "fact", "ok": True}, {"name": "json", "ok": False}], "failures": []}
SPEED: dict[str, Any] = {
    "sequential": {"decode_tok_s": {"mean": 51.56}, "ttft_ms": {"mean": 53.2}},
    "long": None,
    "parallel": {"aggregate_tok_s": 114.6},
    "failures": [],
}


def evidence(before: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {"image": IMAGE, "startup": STARTUP, "probes": PROBES, "throughput": SPEED, "failure": ""}
    return document(SPARK | {"evidence": before}, box="spark-1", container="gemma4-nvfp4", recipe="r", **(parts | changed))


def speed(decode: float, ttft: float = 53.2, aggregate: float = 114.6) -> dict[str, Any]:
    return SPEED | {
        "sequential": {"decode_tok_s": {"mean": decode}, "ttft_ms": {"mean": ttft}},
        "parallel": {"aggregate_tok_s": aggregate},
    }


def test_nothing_failed_is_proven() -> None:
    found = evidence()
    assert found["verdict"] == "proven"
    assert found["container"] == {
        "name": "gemma4-nvfp4",
        "id": "c1",
        "spec_digest": "d1",
        "started_at": "2026-11-23T10:00:00Z",
        "wants_key": False,
    }
    assert found["model"] == {"repo": "a/b", "commit": "f00"}
    assert found["patches"] == {"gemma4_patched.py": "p00"}
    assert "long" not in found["throughput"]


def test_a_startup_failure_says_expected_seen_line_and_remedy() -> None:
    failure = {"expected": "moe_backend MARLIN", "seen": "VLLM_CUTLASS", "line": "Using 'VLLM_CUTLASS' …\n", "remedy": "stop and fix"}
    found = evidence(startup=STARTUP | {"failures": [failure]})
    assert found["verdict"] == "failed"
    assert found["failures"] == [
        "startup log: expected moe_backend MARLIN, saw VLLM_CUTLASS in the line \"Using 'VLLM_CUTLASS' …\"; stop and fix"
    ]


def test_a_step_that_broke_without_a_list_of_failures_is_a_failure() -> None:
    assert evidence(probes={}, throughput={}, failure="Ask the probes: refused")["failures"] == ["Ask the probes: refused"]


def test_a_step_that_did_not_reach_the_box_proves_nothing() -> None:
    lost = {"unreachable": True, "msg": "No route to host", "changed": False}
    for part, name in (("startup", "startup log"), ("probes", "probes"), ("throughput", "throughput")):
        found = evidence(**{part: lost})
        assert (found["verdict"], found["failures"]) == ("failed", [f"{name}: the box could not be reached (No route to host)"])


def test_the_message_is_not_repeated_beside_the_list() -> None:
    assert evidence(throughput=SPEED | {"failures": ["too slow"]}, failure="Measure: too slow")["failures"] == ["too slow"]


def test_what_is_below_the_container_is_part_of_it() -> None:
    assert evidence()["host"] == {
        "os": "Ubuntu 24.04.3 LTS",
        "dgx_os": "7.5.0",
        "kernel": "6.17.0-1032-nvidia",
        "gpu": "NVIDIA GB10",
        "driver": "580.142",
        "docker": "28.5.1",
        "toolkit": "1.19.0-1",
    }


def test_a_figure_that_lost_more_than_is_allowed_is_a_regression_and_no_failure() -> None:
    found = evidence(evidence(throughput=speed(52.0)), throughput=speed(48.0, ttft=90.0, aggregate=113.0))
    day = found["previous"]["time"][:10]
    assert found["regressions"] == [
        f"decode 48.0 tok/s is 7.7 % below the 52.0 tok/s on {day}",
        f"TTFT 90 ms is 69 % above the 53 ms on {day}",
    ]
    assert found["verdict"] == "proven"
    assert found["previous"]["decode_tok_s"] == 52.0
    assert evidence(evidence(throughput=speed(52.0)), throughput=speed(48.0), regression_max=0.1)["regressions"] == []


def test_a_regression_names_the_versions_where_they_differ() -> None:
    before, now = ({"decode_tok_s": rate, "vllm_version": version} for rate, version in ((52.0, "0.19.1"), (30.0, "0.20.2")))
    assert regressions(now, {**before, "time": "2026-04-05T10:00:00+00:00"}, 0.05) == [
        "decode 30.0 tok/s is 42.3 % below the 52.0 tok/s on 2026-04-05 (vLLM 0.19.1 then, 0.20.2 now)"
    ]


def test_another_recipes_figures_are_no_measure() -> None:
    before = evidence(throughput=speed(520.0))
    assert evidence(before | {"recipe": "another"})["previous"] is None
    assert evidence(before | {"verdict": "failed"})["regressions"] == []
    assert evidence({"schema": 1, "nonsense": True})["previous"] is None


def test_a_container_that_is_not_measured_keeps_the_figures_that_were_measured_on_it() -> None:
    before = evidence(throughput=speed(52.0), thresholds={"decode_tok_s_min": 46.8})
    kept = evidence(before, throughput={})
    assert kept["throughput"] == before["throughput"]
    assert kept["throughput"]["thresholds"] == {"decode_tok_s_min": 46.8}
    another = before | {"container": before["container"] | {"id": "another"}}
    assert evidence(another, throughput={})["throughput"] == {}
