# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The whole playbook: a virgin box serves the article's recipe, and its evidence is of the container that runs."""

from __future__ import annotations

import json

from testinfra.host import Host

testinfra_hosts = ["docker://spark-sim-1"]


def test_the_endpoint_answers(host: Host) -> None:
    body = json.dumps({"model": "gemma-4-26b", "messages": [{"role": "user", "content": "What is the capital of France?"}]})
    key = "Authorization: Bearer $(cat /var/lib/dgx-spark/api-keys/gemma4-nvfp4.*/api_key)"
    answer = host.check_output(
        f"curl -s http://127.0.0.1:8002/v1/chat/completions -H \"{key}\" -H 'Content-Type: application/json' -d '{body}'"
    )
    assert "Paris" in json.loads(answer)["choices"][0]["message"]["content"]


def test_the_evidence_is_of_the_container_that_runs(host: Host) -> None:
    evidence = json.loads(host.file("/var/lib/dgx-spark/evidence/gemma4-nvfp4.json").content_string)
    container = json.loads(host.check_output("docker inspect gemma4-nvfp4"))[0]
    assert evidence["verdict"] == "proven"
    assert evidence["container"]["id"] == container["Id"]
    assert evidence["container"]["spec_digest"] == container["Config"]["Labels"]["dgx.spark.spec_digest"]
