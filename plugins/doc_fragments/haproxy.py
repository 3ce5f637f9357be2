# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What every module has that asks an HAProxy on its own host."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of module_utils._haproxy.ARGUMENTS."""

    DOCUMENTATION = r"""
options:
  socket:
    description: The socket of HAProxy's runtime API, of level C(admin).
    type: path
    default: /run/haproxy/admin.sock
  master_socket:
    description:
      - The socket of HAProxy's master process, which knows the workers that a reload has replaced. Debian's and Ubuntu's service has it.
      - Where there is none, only the sessions of the newest worker are counted.
    type: path
    default: /run/haproxy-master.sock
  backend:
    description: The backend that has the boxes.
    type: str
    default: vllm
notes:
  - Needs access to the sockets, so usually C(become).
"""
