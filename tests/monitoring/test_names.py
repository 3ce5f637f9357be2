# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Every metric that a rule or a panel reads is one that the real programs print, or an older name beside it."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator

import pytest
from monitoring.fleet import CORPUS, DASHBOARD, RULES, rules
from sim.vllm_scripted.server import ARTICLE, ScriptedServer

# A metric, and no label or part of one. Prometheus' own are up and ALERTS.
READ = re.compile(r"(?<![\w:])(vllm:\w+|haproxy_\w+)")
PRINTED = re.compile(r"^([a-zA-Z_:][\w:]*)", re.M)
# Printed by older versions only; by vLLM with VLLM_COMPUTE_NANS_IN_LOGITS=1; by vLLM with a draft model.
OLDER = {"vllm:gpu_cache_usage_perc", "vllm:time_per_output_token_seconds_sum", "vllm:time_per_output_token_seconds_bucket"}
SETTING = {"vllm:corrupted_requests_total", "vllm:spec_decode_num_accepted_tokens_total", "vllm:spec_decode_num_drafts_total"}


def panels() -> Iterator[str]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def used() -> set[str]:
    expressions = "\n".join([*(str(rule["expr"]) for rule in rules()), *panels()])
    return set(READ.findall(expressions))


def printed(text: str) -> set[str]:
    return set(PRINTED.findall(text))


def test_the_real_programs_print_what_is_read() -> None:
    real = printed("\n".join(path.read_text() for path in CORPUS.glob("*.txt")))
    assert used() - real == OLDER | SETTING


def test_a_name_that_only_older_versions_print_stands_beside_the_new_one() -> None:
    for expression in [*(str(rule["expr"]) for rule in rules()), *panels()]:
        for name in OLDER & set(READ.findall(expression)):
            assert re.search(rf" or (rate\()?{name}", expression), expression


@pytest.mark.parametrize("flags", [ARTICLE, [*ARTICLE, "--speculative-config", "{}"]], ids=["alone", "with a draft model"])
def test_the_scripted_server_prints_what_is_read_of_vllm(flags: list[str]) -> None:
    with ScriptedServer({"base": "fast"}, flags) as server, urllib.request.urlopen(f"{server.base_url}/metrics", timeout=20) as answer:
        text = printed(answer.read().decode())
    drafts = {name for name in SETTING if "spec_decode" in name} if flags == ARTICLE else set()
    lacking = {name for name in used() if name.startswith("vllm:")} - text
    assert (
        lacking - {"vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"} == OLDER | {"vllm:corrupted_requests_total"} | drafts
    )


def test_series_that_rules_and_panels_share_are_recorded() -> None:
    text = RULES.read_text() + "\n".join(panels())
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    thresholds = {"box:decode_tok_s:threshold", "box:aggregate_tok_s:threshold", "box:parallel_requests:threshold"}
    assert set(re.findall(r"\bbox:\w+:\w+", text)) - {"box:*:threshold"} == recorded | thresholds
