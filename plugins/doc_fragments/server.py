# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""How a module finds an OpenAI-compatible server."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of the connection."""

    DOCUMENTATION = r"""
options:
  base_url:
    description:
      - Where the server is, with or without C(/v1), such as V(http://127.0.0.1:8002).
    type: str
    required: true
  model:
    description:
      - The name under which the model is served.
    type: str
    required: true
  api_key:
    description:
      - The key that the server wants, if it wants one.
      - Mutually exclusive with O(api_key_file).
    type: str
    default: ""
  api_key_file:
    description:
      - A file on the machine where the module runs that holds the key. It must be readable there, so of a key of root's the task needs
        C(become).
      - Mutually exclusive with O(api_key).
    type: path
  validate_certs:
    description:
      - Whether to check the certificate of an C(https) server.
    type: bool
    default: true
"""
