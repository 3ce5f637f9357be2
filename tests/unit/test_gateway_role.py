# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the role gateway writes for each engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment, StrictUndefined

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "gateway"


def rendered(template: str, **variables: Any) -> str:
    """What the role writes for two boxes."""
    names = {**yaml.safe_load((ROLE / "vars" / "main.yml").read_text()), **yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())}
    names["gateway_servers"] = [{"name": f"spark-{number}", "address": f"10.0.0.{number}", "port": 8002, "maxconn": 4} for number in (1, 2)]
    environment = Environment(trim_blocks=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string((ROLE / "templates" / template).read_text()).render(names | variables)


def directives(unit: str, *prefixes: str) -> set[str]:
    return {line for line in unit.splitlines() if line.startswith(prefixes)}


def test_without_a_router_haproxy_s_configuration_knows_none() -> None:
    configuration = rendered("haproxy.cfg.j2")
    assert "router" not in configuration
    assert re.findall(r"^(?:frontend|backend) (\S+)", configuration, re.MULTILINE) == ["stats", "metrics", "openai", "vllm"]


def test_only_prompts_go_to_the_router_and_it_is_asked_for_every_box() -> None:
    configuration = rendered("haproxy.cfg.j2", gateway_engine="vllm-router")
    assert re.findall(r"use_backend router if (.*)", configuration) == ["{ path /v1/chat/completions /v1/completions }"]
    workers = rendered("router.service.j2").partition("--worker-urls ")[2].splitlines()[0].split()
    assert workers == [f"http://127.0.0.1:8408/box/spark-{number}" for number in (1, 2)]
    for number in (1, 2):
        assert (
            f"use-server spark-{number} if {{ var(txn.box) -m str spark-{number} }} {{ nbsrv(box-spark-{number}) gt 0 }}" in configuration
        )


def test_router_and_what_it_gives_back_are_for_the_host_alone() -> None:
    unit, configuration = rendered("router.service.j2"), rendered("haproxy.cfg.j2", gateway_engine="vllm-router")
    assert re.findall(r"--(\S*host) (\S+)", unit) == [("host", "127.0.0.1"), ("prometheus-host", "127.0.0.1")]
    assert re.findall(r"bind (\S+)", configuration.partition("frontend boxes")[2]) == ["127.0.0.1:8408"]


@pytest.mark.parametrize("flag", ["--disable-retries", "--disable-circuit-breaker", "--request-timeout-secs 31536000"])
def test_the_router_neither_sends_a_request_twice_nor_ends_a_long_stream(flag: str) -> None:
    assert flag in rendered("router.service.j2")


def test_the_router_is_confined_as_the_agent_is_and_ends_its_streams() -> None:
    confined = ("NoNew", "Private", "Protect", "Restrict")
    unit = rendered("router.service.j2", gateway_drain_timeout=77)
    assert directives(unit, *confined) == directives((ROLE / "templates" / "agent.service.j2").read_text(), *confined) != set()
    assert directives(unit, "DynamicUser", "TimeoutStopSec") == {"DynamicUser=true", "TimeoutStopSec=77"}
