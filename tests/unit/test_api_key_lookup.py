# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The lookup dgx.spark.api_key, as Ansible calls it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "NO_COLOR": "1"}


def ansible(program: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAMS / program, *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )


def look(file: Path, *arguments: str, make: bool = False) -> subprocess.CompletedProcess[str]:
    expression = f"{{{{ lookup('dgx.spark.api_key', '{file}', make={make}) }}}}"
    return ansible("ansible", "localhost", "-m", "ansible.builtin.debug", "-a", f"msg='{expression}'", *arguments, cwd=file.parent)


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return str(json.loads(done.stdout.partition("=>")[2])["msg"])


def test_a_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / ".gemma4.api_key"
    assert said(look(file)) == "(to be made)"
    assert not file.exists()
    with ThreadPoolExecutor(3) as pool:
        keys = {said(done) for done in pool.map(lambda _n: look(file, make=True), range(3))}
    assert len(keys) == 1
    assert re.fullmatch(r"[\w-]{43}", keys.pop())
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert said(look(file)) == file.read_text().strip()


def test_a_file_that_others_may_read_or_that_holds_no_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / ".gemma4.api_key"
    file.write_text("sk-known-to-all\n")
    file.chmod(0o640)
    open_file = look(file)
    assert open_file.returncode != 0
    assert "can be read by others: 'chmod 600" in open_file.stdout + open_file.stderr
    file.chmod(0o600)
    assert said(look(file)) == "sk-known-to-all"
    for content in ("", "two words\n"):
        file.write_text(content)
        wrong = look(file, make=True)
        assert "holds no API key: an API key is one word of printable ASCII characters" in wrong.stdout + wrong.stderr
        assert "sk-known" not in wrong.stdout + wrong.stderr


def test_a_file_that_vault_has_encrypted_may_be_shared(tmp_path: Path) -> None:
    file = tmp_path / ".gemma4.api_key"
    file.write_text("sk-in-a-vault\n")
    (tmp_path / "password").write_text("open sesame\n")
    assert ansible("ansible-vault", "encrypt", "--vault-password-file", "password", file.name, cwd=tmp_path).returncode == 0
    file.chmod(0o644)
    assert said(look(file, "--vault-password-file", "password")) == "sk-in-a-vault"


def test_ansible_never_takes_the_key_for_a_host(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("spark: {hosts: {spark-1: }}\n")
    (tmp_path / ".gemma4.api_key").write_text("sk-no-host\n")
    listed = ansible("ansible-inventory", "-i", str(tmp_path), "--list", cwd=tmp_path)
    assert "spark-1" in listed.stdout
    assert "sk-no-host" not in listed.stdout + listed.stderr
