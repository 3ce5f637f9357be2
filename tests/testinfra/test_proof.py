# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

from testinfra.host import Host

testinfra_hosts = ["ansible://spark-sim-6"]


def test_the_evidence_says_what_was_seen(host: Host) -> None:
    evidence = json.loads(host.file("/var/lib/dgx-spark/evidence/gemma4-nvfp4.json").content_string)
    assert evidence["verdict"] == "proven"
    assert evidence["startup"]["moe_backend"] == "MARLIN"
    assert evidence["startup"]["kv_cache_memory_gib"] == 81.8
    assert [probe["name"] for probe in evidence["probes"] if not probe["ok"]] == []
    # The scripted server streams the article's 51.6 tok/s.
    assert 50 < evidence["throughput"]["sequential"]["decode_tok_s"]["mean"] < 53
    assert evidence["image"]["vllm_version"] == "0.19.1.dev6+g6d4a8e6d2"
