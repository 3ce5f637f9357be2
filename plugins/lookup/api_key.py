# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Lookup dgx.spark.api_key: the fleet's API key from its file, made when it is not there."""

from __future__ import annotations

DOCUMENTATION = r"""
name: api_key
short_description: An API key from its file, made on first use
version_added: "0.1.0"
description:
  - Reads the key that a file on the controller holds. Ansible Vault may have encrypted the file.
  - A file that group or others may read is refused, unless it is encrypted.
author:
  - The dgx.spark maintainers (@dgx-spark)
options:
  _terms:
    description: The file.
    type: list
    elements: str
    required: true
  make:
    description:
      - Make the key when the file is not there, of 256 random bits, with the mode C(0600). Of several processes that do so at the same time
        one makes it, and all return it.
      - Without it the lookup returns V((to be made)), which is no key. A plan needs no more.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Ask a server that wants the key
  ansible.builtin.uri:
    url: http://spark-1:8002/v1/models
    headers:
      Authorization: "Bearer {{ lookup('dgx.spark.api_key', inventory_dir ~ '/.gemma4.api_key') }}"
  no_log: true
"""

RETURN = r"""
_raw:
  description: The key.
  type: list
  elements: str
"""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.parsing.vault import is_encrypted
from ansible.plugins.lookup import LookupBase
from ansible_collections.dgx.spark.plugins.module_utils._api_key import TO_BE_MADE, KeyFileError, checked


class LookupModule(LookupBase):
    """See the documentation above."""

    def run(self, terms: Iterable[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        return [self._key(Path(term).expanduser(), self.get_option("make")) for term in terms]

    def _key(self, path: Path, make: bool) -> str:
        try:
            if not path.exists():
                if not make:
                    return TO_BE_MADE
                _make(path)
            content = path.read_bytes()
            if not is_encrypted(content) and path.stat().st_mode & 0o077:
                raise AnsibleLookupError(
                    f"The API key in {path} can be read by others: 'chmod 600 {path}', and think of it as known to them"
                )
            return checked(self._loader.get_text_file_contents(str(path.absolute())).strip())
        except KeyFileError as exc:
            raise AnsibleLookupError(f"{path} holds no API key: {exc}. Write one there, or remove it and a new one is made") from exc
        except OSError as exc:
            raise AnsibleLookupError(f"The API key's file {path}: {exc.strerror}") from exc


def _make(path: Path) -> None:
    """Write a new key, unless another process has written one meanwhile. Nobody ever sees half a file."""
    handle, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # of mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{secrets.token_urlsafe(32)}\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
