# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The dashboard is what Grafana reads: its shape, its expressions, and that its panels lie beside each other."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from monitoring.fleet import DASHBOARD
from monitoring.promtool import promtool

SOURCE = {
    "type": "object",
    "required": ["type", "uid"],
    # Chosen in Grafana, never one that exists on somebody's machine.
    "properties": {"type": {"const": "prometheus"}, "uid": {"const": "${datasource}"}},
}
COORDINATE = {"type": "integer", "minimum": 0}
TARGET = {
    "type": "object",
    "required": ["refId", "datasource", "expr", "legendFormat"],
    "properties": {
        "refId": {"type": "string", "pattern": "^[A-Z]$"},
        "datasource": SOURCE,
        "expr": {"type": "string", "minLength": 1},
        "legendFormat": {"type": "string"},
        "instant": {"type": "boolean"},
        "format": {"enum": ["time_series", "table"]},
    },
    "additionalProperties": False,
}
PANEL = {
    "type": "object",
    "required": ["id", "type", "title", "gridPos", "datasource", "targets", "fieldConfig", "options"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "type": {"enum": ["stat", "timeseries", "table", "state-timeline"]},
        "title": {"type": "string", "minLength": 1},
        "description": {"type": "string", "minLength": 1},
        "gridPos": {
            "type": "object",
            "required": ["x", "y", "w", "h"],
            "properties": {name: COORDINATE for name in ("x", "y", "w", "h")},
            "additionalProperties": False,
        },
        "datasource": SOURCE,
        "targets": {"type": "array", "minItems": 1, "items": TARGET},
        "fieldConfig": {"type": "object", "required": ["defaults", "overrides"], "properties": {"overrides": {"type": "array"}}},
        "options": {"type": "object"},
    },
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "time", "templating", "panels"],
    "properties": {
        # Grafana gives a dashboard its id; one that brings an id replaces another's.
        "id": False,
        "uid": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,40}$"},
        "title": {"type": "string", "minLength": 1},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "time": {"type": "object", "required": ["from", "to"]},
        "templating": {"type": "object", "required": ["list"]},
        "panels": {"type": "array", "minItems": 1, "items": PANEL},
    },
}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def test_it_has_the_shape_that_grafana_reads(dashboard: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(dashboard)


def test_ids_and_letters_are_used_once(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    for panel in dashboard["panels"]:
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters)), panel["title"]
        wanted = {rule["matcher"]["options"] for rule in panel["fieldConfig"]["overrides"] if rule["matcher"]["id"] == "byFrameRefID"}
        assert wanted <= set(letters), panel["title"]


def test_panels_lie_beside_each_other_on_24_columns(dashboard: dict[str, Any]) -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in dashboard["panels"]]
    assert [title for title, at in places if at["x"] + at["w"] > 24 or not at["w"] or not at["h"]] == []
    for (one, a), (other, b) in combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart, f"{one} and {other} overlap"


def test_its_variables_are_those_that_it_uses(dashboard: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert set(variables) == {"datasource", "box"}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["box"]["datasource"]["uid"] == "${datasource}"
    # With all boxes chosen the expression is short, however many there are.
    assert variables["box"]["allValue"] == ".+"


def test_prometheus_understands_every_expression(dashboard: dict[str, Any], tmp_path: Path) -> None:
    expressions = [target["expr"].replace("$box", "spark-1") for panel in dashboard["panels"] for target in panel["targets"]]
    assert not [expression for expression in expressions if "$" in expression]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    code, said = promtool("check", "rules", "panels.yml", cwd=tmp_path)
    assert code == 0, said
