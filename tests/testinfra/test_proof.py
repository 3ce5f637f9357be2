# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

from testinfra.host import Host

testinfra_hosts = ["docker://spark-sim-6"]


def test_the_evidence_says_what_was_seen(host: Host) -> None:
    evidence = json.loads(host.file("/var/lib/dgx-spark/evidence/gemma4-nvfp4.json").content_string)
    assert evidence["verdict"] == "proven"
    assert evidence["startup"]["moe_backend"] == "MARLIN"
    assert evidence["startup"]["kv_cache_memory_gib"] == 81.8
    assert [probe["name"] for probe in evidence["probes"] if not probe["ok"]] == []
    # The scripted server streams the article's 51.6 tok/s.
    assert 50 < evidence["throughput"]["sequential"]["decode_tok_s"]["mean"] < 53
    assert evidence["image"]["vllm_version"] == "0.19.1.dev6+g6d4a8e6d2"
    assert evidence["host"]["driver"] == "580.142"


def test_the_limit_was_read_from_the_checkpoint_on_the_box(host: Host) -> None:
    evidence = json.loads(host.file("/var/lib/dgx-spark/evidence/gemma4-nvfp4.json").content_string)
    roofline = evidence["throughput"]["roofline"]
    assert roofline["formats"] == {"attention": "NVFP4", "dense_mlp": "NVFP4", "experts": "NVFP4", "router": "BF16", "lm_head": "BF16"}
    assert roofline["bandwidth_gb_s"] == 273
    assert roofline["share"] > 0


def test_a_second_proof_knows_the_first(host: Host) -> None:
    evidence = json.loads(host.file("/var/lib/dgx-spark/evidence/gemma4-nvfp4.json").content_string)
    assert 50 < evidence["previous"]["decode_tok_s"] < 53
    assert evidence["regressions"] == []
