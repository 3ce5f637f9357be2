# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""How a module finds a repository of the Hub."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of the repository and of who serves it."""

    DOCUMENTATION = r"""
options:
  repo:
    description: The repository, such as C(bg-digitalservices/Gemma-4-26B-A4B-it-NVFP4).
    type: str
    required: true
  revision:
    description: A branch, a tag or a commit.
    type: str
    default: main
  endpoint:
    description: The Hub, or a mirror that speaks its protocol.
    type: str
    default: https://huggingface.co
  token:
    description: A token for gated and private repositories. It is sent to the Hub by the controller, and to nobody else.
    type: str
"""
