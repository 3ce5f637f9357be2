# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The module against an nft and a systemctl of the tests; Molecule's scenario `firewall` has it with the real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils import _port_access
from ansible_collections.dgx.spark.plugins.modules import port_access
from unit.run_module import run_module

Run = Callable[..., dict[str, Any]]
NFT = """#!/bin/sh
cd {home} && echo "nft $*" >> told
case "$1" in
  list) test -e table ;;
  delete) rm table ;;
  --file) cat > offered; if grep -q 203.0.113.66 offered; then echo "Error: no" >&2; exit 1; fi; mv offered table ;;
esac
"""
SYSTEMCTL = """#!/bin/sh
cd {home}
test "$1" = show || echo "systemctl $*" >> told
case "$1" in
  show)
    test -e enabled && is="enabled active" || is="disabled inactive"
    printf 'UnitFileState=%s\\nActiveState=%s\\nNeedDaemonReload=no\\n\\nNeedDaemonReload=%s\\n' $is "$(cat unread || echo no)" ;;
  daemon-reload) rm -f unread ;;
  enable) touch enabled; test -e table || cp {home}/rules table ;;
  disable) rm -f enabled table ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("nft", NFT), ("systemctl", SYSTEMCTL)):
        (programs / name).write_text(text.format(home=tmp_path))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    for constant, name in (("RULES_FILE", "rules"), ("UNIT_FILE", "unit"), ("DROP_IN_FILE", "more/drop-in")):
        monkeypatch.setattr(_port_access, constant, str(tmp_path / name))
    return tmp_path


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(check: bool = False, **arguments: Any) -> dict[str, Any]:
        (home / "told").write_text("")
        return run_module(port_access.main, capsys, check=check, **arguments)

    return call


def told(home: Path) -> list[str]:
    return [line for line in (home / "told").read_text().splitlines() if not line.startswith("nft list")]


GATEWAY = {"port": 8002, "allow_from": ["192.0.2.20"]}
TWO = {"port": 8002, "allow_from": ["fd00::/8", "192.0.2.20", "192.0.2.20"]}


def test_ladder(run: Run, home: Path) -> None:
    assert "port" in run()["msg"]

    would = run(check=True, **GATEWAY)
    assert (would["changed"], would["in_force"], told(home)) == (True, False, [])
    assert not (home / "rules").exists()

    made = run(**GATEWAY)
    assert made["changed"]
    assert made["diff"] == would["diff"]
    assert told(home) == ["nft --file -", "systemctl daemon-reload", "systemctl enable --now dgx-spark-firewall.service"]
    assert "ip saddr 192.0.2.20 accept" in (home / "table").read_text()
    again = run(**GATEWAY)
    assert (again["changed"], again["in_force"], again["diff"], told(home)) == (False, True, [], [])

    changed = run(**TWO)
    assert [entry["after_header"] for entry in changed["diff"]] == [str(home / "rules")]
    assert told(home) == ["nft --file -", "systemctl enable --now dgx-spark-firewall.service"]
    rules = (home / "table").read_text()
    assert rules.count("192.0.2.20") == 1
    assert rules.index("ip saddr 192.0.2.20 accept") < rules.index("ip6 saddr fd00::/8 accept")
    assert not run(**TWO)["changed"]

    assert run(check=True, state="absent")["changed"]
    assert (home / "table").exists()
    assert run(state="absent")["changed"]
    assert [path.name for path in home.iterdir() if path.is_file() and path.name != "told"] == []
    assert not run(state="absent")["changed"]


def test_what_somebody_flushed_is_loaded_again(run: Run, home: Path) -> None:
    run(**GATEWAY)
    (home / "table").unlink()
    flushed = run(**GATEWAY)
    assert (flushed["changed"], flushed["in_force"], flushed["diff"]) == (True, False, [])
    assert (home / "table").exists()


def test_what_nftables_refuses_changes_nothing(run: Run, home: Path) -> None:
    run(**GATEWAY)
    before = (home / "table").read_text()
    refused = run(port=8002, allow_from=["203.0.113.66"])
    assert refused["failed"]
    assert "nft --file - says: Error: no" in refused["msg"]
    assert (home / "table").read_text() == before == (home / "rules").read_text()


def test_files_that_systemd_has_not_read_are_read(run: Run, home: Path) -> None:
    """A run was killed in between."""
    run(**GATEWAY)
    (home / "unread").write_text("yes")
    assert run(**GATEWAY)["changed"]
    assert "systemctl daemon-reload" in told(home)
    assert not run(**GATEWAY)["changed"]


def test_a_box_without_nftables(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AnsibleModule, "get_bin_path", lambda self, name, **_more: str(home / "bin" / name) * (name != "nft"))
    assert run(check=True, **GATEWAY)["changed"]
    assert "install the package nftables. Nothing was changed" in run(**GATEWAY)["msg"]
    assert not run(state="absent")["changed"]


def test_nobody_is_not_everybody(run: Run) -> None:
    assert "state=absent leaves it to everybody" in run(port=8002, allow_from=[])["msg"]


@pytest.mark.parametrize("address", ["gateway-1", "192.0.2.300", "192.0.2.20 accept; drop", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(_port_access.AccessError, match="is no address and no network"):
        _port_access.files(8002, [address])
