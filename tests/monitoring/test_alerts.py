# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""When each alert fires and when it does not: Prometheus' own unit tests over made-up series."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from monitoring.fleet import box, publish, rules
from monitoring.promtool import promtool

VLLM = 'job="dgx-spark-vllm", box="spark-1", recipe="gemma4-26b-a4b-nvfp4", model="gemma-4-26b"'
ENGINE = f'{VLLM}, engine="0", model_name="gemma-4-26b"'
GENERATED = f"vllm:generation_tokens_total{{{ENGINE}}}"
FIRST = f"vllm:time_to_first_token_seconds_count{{{ENGINE}}}"
RUNNING = f"vllm:num_requests_running{{{ENGINE}}}"
KV = f"vllm:kv_cache_usage_perc{{{ENGINE}}}"
NANS = f"vllm:corrupted_requests_total{{{ENGINE}}}"
UP = f"up{{{VLLM}}}"
GATEWAY_UP = 'up{job="dgx-spark-gateway", gateway="gw-1"}'
INTERVALS = f"vllm:inter_token_latency_seconds_sum{{{ENGINE}}}"
STEPS = f"vllm:inter_token_latency_seconds_count{{{ENGINE}}}"
OLD_INTERVALS = f"vllm:time_per_output_token_seconds_sum{{{ENGINE}}}"
OLD_KV = f"vllm:gpu_cache_usage_perc{{{ENGINE}}}"


def state(name: str, gateway: str = "gw-1") -> str:
    """A gateway's series about the box, as HAProxy's exporter has it."""
    return f'haproxy_server_status{{job="dgx-spark-gateway", gateway="{gateway}", proxy="vllm", server="spark-1", state="{name}"}}'


@dataclass(frozen=True)
class Case:
    """Series, a value every 30 s in promtool's notation (start+step x times), and whether the alert fires at a minute."""

    alert: str
    what: str
    minute: int
    fires: bool
    series: dict[str, str] = field(default_factory=dict)


def alone(tok_s: float, intervals: str = INTERVALS) -> dict[str, str]:
    """One stream that generates for 20 of every 30 s, a request each time."""
    tokens = 20 * tok_s
    return {GENERATED: f"0+{tokens + 1}x60", FIRST: "0+1x60", intervals: "0+20x60", RUNNING: "1 0 " * 30}


def together(streams: int, tok_s: float) -> dict[str, str]:
    """So many streams without a pause, that generate so much in all."""
    return {GENERATED: f"0+{30 * tok_s}x60", FIRST: "0+1x60", INTERVALS: f"0+{30 * streams}x60", RUNNING: f"{streams}x60"}


CASES = [
    Case("SparkBoxDown", "a box that has not answered for six minutes", 7, True, {UP: "1 1 0x60"}),
    Case("SparkBoxDown", "a box that has not answered for a moment", 3, False, {UP: "1 1 0x60"}),
    Case("SparkBoxDown", "a box that a rollout has drained", 20, False, {UP: "0x60", state("DRAIN"): "1x60"}),
    Case("SparkBoxDown", "a box that is put out because it is down", 7, True, {UP: "0x60", state("DOWN"): "1x60", state("MAINT"): "0x60"}),
    Case("SparkGatewayDown", "a gateway that is gone", 3, True, {GATEWAY_UP: "0x60"}),
    Case("SparkGatewayDown", "a gateway that is there", 10, False, {GATEWAY_UP: "1x60"}),
    Case("SparkEngineHung", "requests run and nothing comes", 10, True, {RUNNING: "2x60", GENERATED: "500x60"}),
    Case("SparkEngineHung", "requests run and tokens come", 10, False, {RUNNING: "2x60", GENERATED: "0+500x60"}),
    Case("SparkEngineHung", "nobody asks", 10, False, {RUNNING: "0x60", GENERATED: "500x60"}),
    Case("SparkEngineHung", "the first prompt is long and is read for two minutes", 2, False, {RUNNING: "1x60", GENERATED: "0x4 0+500x50"}),
    Case("SparkEngineHung", "it hangs after it served well", 20, True, {RUNNING: "1x60", GENERATED: "0+500x20 10000x40"}),
    Case("SparkDecodeSlow", "one stream at 30 tok/s", 20, True, alone(30)),
    Case("SparkDecodeSlow", "one stream at 30 tok/s under vLLM's older name", 20, True, alone(30, OLD_INTERVALS)),
    Case("SparkDecodeSlow", "one stream at the article's 51.6 tok/s", 20, False, alone(51.6)),
    Case("SparkDecodeSlow", "one stream at 51.6 tok/s under vLLM's older name", 20, False, alone(51.6, OLD_INTERVALS)),
    Case(
        "SparkDecodeSlow",
        "one stream at 30 tok/s, and a gateway that asks now and then",
        20,
        True,
        {**alone(30), RUNNING: "1 1 1 1 1 1 1 1 1 2 " * 6},
    ),
    Case("SparkDecodeSlow", "two streams half of the time", 20, False, {**alone(30), RUNNING: "1 2 " * 30}),
    Case("SparkDecodeSlow", "three streams at 38 tok/s each, as the article measured", 20, False, together(3, 114.6)),
    Case("SparkDecodeSlow", "speculation: 30 steps a second, 60 tok/s", 20, False, {**alone(60), STEPS: "0+600x60"}),
    Case("SparkDecodeSlow", "a few slow tokens, which say nothing", 20, False, {**alone(30), GENERATED: "0+6x60", INTERVALS: "0+0.2x60"}),
    Case("SparkDecodeSlow", "nobody asks", 20, False, {**alone(0), RUNNING: "0x60", INTERVALS: "0x60", GENERATED: "9x60", FIRST: "1x60"}),
    Case("SparkAggregateSlow", "three streams with 80 tok/s together", 20, True, together(3, 80)),
    Case("SparkAggregateSlow", "three streams with the article's 114.6 tok/s", 20, False, together(3, 114.6)),
    Case("SparkAggregateSlow", "two streams, which were not measured", 20, False, together(2, 80)),
    Case("SparkKVCacheFull", "97 % for ten minutes", 10, True, {KV: "0.97x60"}),
    Case("SparkKVCacheFull", "97 % for ten minutes under vLLM's older name", 10, True, {OLD_KV: "0.97x60"}),
    Case("SparkKVCacheFull", "both names in one version count once", 10, False, {KV: "0.5x60", OLD_KV: "0.97x60"}),
    Case("SparkKVCacheFull", "97 % for a moment", 10, False, {KV: "0.5x10 0.97x2 0.5x40"}),
    Case("SparkGarbage", "NaN in the logits of a request", 10, True, {NANS: "0x10 1x60"}),
    Case("SparkGarbage", "no NaN", 10, False, {NANS: "0x60"}),
    Case("SparkGarbage", "it generates, and the gateway keeps it out", 15, True, {GENERATED: "0+10x60", state("DOWN"): "1x60", UP: "1x60"}),
    Case(
        "SparkGarbage", "it generates, and is in", 15, False, {GENERATED: "0+10x60", state("DOWN"): "0x60", state("UP"): "1x60", UP: "1x60"}
    ),
    Case("SparkGarbage", "it is out, and generates nothing", 15, False, {GENERATED: "10x60", state("DOWN"): "1x60", UP: "1x60"}),
    Case("SparkPutOut", "the server is there, and the gateway's check fails", 3, True, {UP: "1x60", state("DOWN"): "1x60"}),
    Case("SparkPutOut", "one of two gateways has put it out", 3, True, {UP: "1x60", state("DOWN", "gw-2"): "1x60", state("DOWN"): "0x60"}),
    Case("SparkPutOut", "it is down, which another alert says", 9, False, {UP: "0x60", state("DOWN"): "1x60"}),
    Case("SparkPutOut", "it is in", 9, False, {UP: "1x60", state("DOWN"): "0x60", state("UP"): "1x60"}),
    Case("SparkHeldBack", "drained for more than an hour", 70, True, {state("DRAIN"): "1x160", state("MAINT"): "0x160"}),
    Case("SparkHeldBack", "drained in this rollout", 20, False, {state("DRAIN"): "1x160"}),
    Case("SparkHeldBack", "in", 70, False, {state("DRAIN"): "0x160", state("MAINT"): "0x160", state("UP"): "1x160"}),
]


def run(case: Case, folder: Path) -> tuple[int, str]:
    publish(folder, [box("spark-1")])
    about = "gateway" if case.alert == "SparkGatewayDown" else "box"
    expected = [{"labels": f'{{{about}="{"gw-1" if about == "gateway" else "spark-1"}"}}', "value": 1}] if case.fires else []
    firing = f'sum by ({about}) (ALERTS{{alertname="{case.alert}", alertstate="firing"}})'
    document = {
        "rule_files": ["dgx-spark.rules.yml", "dgx-spark.thresholds.yml"],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": [{"series": name, "values": values.strip()} for name, values in case.series.items()],
                "promql_expr_test": [{"expr": firing, "eval_time": f"{case.minute}m", "exp_samples": expected}],
            }
        ],
    }
    (folder / "test.yml").write_text(yaml.safe_dump(document))
    return promtool("test", "rules", "test.yml", cwd=folder)


@pytest.mark.parametrize("case", CASES, ids=[f"{case.alert}{'' if case.fires else ' silent'}: {case.what}" for case in CASES])
def test_an_alert_fires_when_it_should_and_only_then(case: Case, tmp_path: Path) -> None:
    code, said = run(case, tmp_path)
    assert code == 0, said


def test_every_alert_is_seen_to_fire_and_to_be_silent() -> None:
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert {case.alert for case in CASES if case.fires} == alerts
    assert {case.alert for case in CASES if not case.fires} == alerts


def test_what_an_alert_says_names_the_box_and_the_figure(tmp_path: Path) -> None:
    publish(tmp_path, [box("spark-1")])
    rule = next(rule for rule in rules() if rule.get("alert") == "SparkDecodeSlow")
    labels = {"box": "spark-1", "recipe": "gemma4-26b-a4b-nvfp4", "model": "gemma-4-26b"}
    said = rule["annotations"]["description"].replace('{{ $value | printf "%.1f" }}', "30.0")
    for name, value in labels.items():
        said = said.replace(f"{{{{ $labels.{name} }}}}", value)
    annotations = {"summary": "spark-1 decodes below its threshold", "description": said}
    assert "A single stream on spark-1 decodes 30.0 tok/s" in said
    expected = {"exp_labels": {**labels, **rule["labels"]}, "exp_annotations": annotations}
    series = [{"series": name, "values": values.strip()} for name, values in alone(30).items()]
    check = {"eval_time": "20m", "alertname": "SparkDecodeSlow", "exp_alerts": [expected]}
    document = {
        "rule_files": ["dgx-spark.rules.yml", "dgx-spark.thresholds.yml"],
        "evaluation_interval": "30s",
        "tests": [{"interval": "30s", "input_series": series, "alert_rule_test": [check]}],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(document))
    code, text = promtool("test", "rules", "test.yml", cwd=tmp_path)
    assert code == 0, text
