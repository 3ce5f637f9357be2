# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._daemon_json import DaemonJsonError, load, render, with_runtime, without_runtime

LAB = """{
  "registry-mirrors": ["http://172.30.99.2"],
  "default-runtime": "soft",
  "runtimes": {
    "soft": {"path": "/usr/local/bin/soft-runc"}
  },
  "log-opts": {"max-size": "10m"}
}
"""
NVIDIA = {"args": [], "path": "nvidia-container-runtime"}


def test_what_else_is_in_the_file_stays_in_its_order() -> None:
    merged = with_runtime(load(LAB, "f"), "nvidia-container-runtime", default=False)
    assert list(merged) == ["registry-mirrors", "default-runtime", "runtimes", "log-opts"]
    assert merged["runtimes"] == {"soft": {"path": "/usr/local/bin/soft-runc"}, "nvidia": NVIDIA}
    assert merged["default-runtime"] == "soft"


def test_the_runtime_can_be_the_default() -> None:
    assert with_runtime({}, "nvidia-container-runtime", default=True) == {"runtimes": {"nvidia": NVIDIA}, "default-runtime": "nvidia"}


def test_settings_of_a_runtime_that_is_there_stay() -> None:
    document = {"runtimes": {"nvidia": {"path": "/old", "args": ["--debug"], "features": {"cdi": False}}}}
    merged = with_runtime(document, "/new", default=False)
    assert merged["runtimes"]["nvidia"] == {"path": "/new", "args": ["--debug"], "features": {"cdi": False}}
    assert document["runtimes"]["nvidia"]["path"] == "/old"


def test_a_runtime_that_is_there_without_arguments_is_not_changed() -> None:
    document = {"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}
    assert with_runtime(document, "nvidia-container-runtime", default=False) == document


def test_taking_it_out_is_the_reverse_of_putting_it_in() -> None:
    for document in ({}, load(LAB, "f")):
        assert without_runtime(with_runtime(document, "x", default=False)) == document


def test_it_does_not_stay_the_default_when_it_goes() -> None:
    document = {"default-runtime": "nvidia", "runtimes": {"nvidia": NVIDIA, "soft": {"path": "x"}}}
    assert without_runtime(document) == {"runtimes": {"soft": {"path": "x"}}}


def test_taking_out_what_is_not_there_changes_nothing() -> None:
    assert without_runtime({"runtimes": {}}) == {"runtimes": {}}


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_file_is_an_empty_document(text: str) -> None:
    assert load(text, "f") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"debug": true,}', "/etc/docker/daemon.json is not valid JSON (line 1, column 16"),
        ("[]", "must contain a JSON object, it contains a list"),
        ("null", "it contains null"),
        ('{"runtimes": []}', "runtimes must map a name to an object"),
        ('{"runtimes": {"nvidia": "x"}}', "runtimes must map a name to an object"),
    ],
)
def test_a_file_that_cannot_be_merged_is_refused(text: str, words: str) -> None:
    with pytest.raises(DaemonJsonError) as caught:
        load(text, "/etc/docker/daemon.json")
    assert words in str(caught.value)
    assert "It was not touched" in str(caught.value)


def test_the_indentation_of_the_old_file_is_kept() -> None:
    assert render({"a": 1}, like=LAB) == '{\n  "a": 1\n}\n'
    assert render({"a": 1}, like='{\n\t"b": 2\n}') == '{\n\t"a": 1\n}\n'
    assert render({"a": 1}, like="") == '{\n    "a": 1\n}\n'


def test_what_is_rendered_reads_back() -> None:
    document = load(LAB, "f")
    assert json.loads(render(document, LAB)) == document
