#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Brings a pinned, verified snapshot of a model repository to the box."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hf_snapshot
short_description: A pinned, verified snapshot of a Hugging Face repository on the box
version_added: "0.1.0"
description:
  - Brings every file of a model repository at one revision to a directory, verifies each (sha256 for large files, git's sha1 for the rest),
    and only then makes them visible. A marker, C(.dgx-spark-snapshot.json), is written last.
  - The controller asks the Hub once per run for the commit, the sizes and the hashes, however many boxes there are. The box fetches the
    bytes itself with aria2, which goes on where an earlier run was interrupted.
  - A file that is there already is not read again when its size, time and inode are those in the marker. A file that somebody else brought
    is read, and kept when it is right. A file of an older revision is removed when the marker lists it; other files are left alone.
  - The box never sees the token. It gets addresses that expire, and fresh ones when they have. Of a gated or private repository, the
    controller reads files of at most 16 MiB that have no such address, and hands their content over.
  - A connection on which nothing comes is made again. When that does not help, the box asks the Hub itself for the way to the file (of an
    open repository; of any other it gets a fresh address), which may lead to another host. Only then the task fails.
  - When the Hub does not answer and the directory is complete in the revision that is asked, the task is ok, with a warning.
  - Other snapshots beside O(dest) are looked at. A file that one of them has already is linked from there and read once, not fetched.
author:
  - The dgx.spark maintainers (@dgx-spark)
requirements:
  - huggingface_hub >= 1.0 on the controller
  - aria2c on the box (the distribution's package aria2), when something must be fetched
notes:
  - Proxies are taken from the environment (C(https_proxy), C(no_proxy)), on the controller and on the box.
  - The controller's own login (C(hf auth login), E(HF_TOKEN)) is not used; O(token) is.
  - O(timeout) bounds the download, and what was fetched is kept. A controller that is interrupted does not stop it, and the next run waits
    for it.
  - With E(ANSIBLE_DISPLAY_ARGS_TO_STDOUT) Ansible prints the options of every task. Set C(no_log) on a task with a token if you use that.
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
  - dgx.spark.hub
  - dgx.spark.progress
  - dgx.spark.peers
attributes:
  check_mode:
    support: full
    details: The Hub is asked and the directory compared. Files for which no marker vouches are read.
  diff_mode:
    support: full
  idempotent:
    support: full
    details: A branch may move. Ask for a commit to have the same bytes always.
options:
  dest:
    description: The directory for the files. It is made when it is not there. While the files come they lie in C(.dgx-spark-partial) in it.
    type: path
    required: true
  files:
    description: Patterns of files that the repository must have. All files are fetched, whatever this says.
    type: list
    elements: str
  verify:
    description:
      - V(quick) trusts a file whose size, time and inode are those in the marker.
      - V(full) reads every file again.
    type: str
    choices: [quick, full]
    default: quick
  timeout:
    description: The bound of the whole download in seconds.
    type: int
    default: 14400
  stall_timeout:
    description:
      - The seconds without a byte after which a connection is made again. When nothing has come for twice that long, another way is tried.
    type: int
    default: 60
  connections:
    description: How many connections fetch one file, from 1 to 16. Two files are fetched at a time.
    type: int
    default: 8
  lock:
    description:
      - What the snapshot must be, as M(dgx.spark.recipe_info) gives it. C(commit), and C(files), a mapping of each path to its C(size)
        and its C(sha256) or C(git_sha1). A Hub or a mirror that has anything else is refused, before a byte is fetched.
    type: dict
  bundle:
    description:
      - A directory on the controller that M(dgx.spark.bundle) made. The files come from it over Ansible's own connection, and the Hub is
        not asked. What they must be says O(lock). Empty asks the Hub.
    type: str
  share:
    description:
      - Of the boxes of a play that run this task for the same commit, one gets the files from the Hub, and the others get them from it and
        from each other, by BitTorrent, while they come. A box that has all files already gives them instead. Each verifies for itself.
      - When the one ends early, another takes its place. A box that does not reach the others gets its files from the Hub.
      - What is given is not encrypted. The boxes listen on O(peer_ports) as long as the task takes, and give to those alone that this task
        told where.
      - As many boxes share at a time as Ansible has forks.
    type: bool
    default: false
  manifest:
    description: For the module's action half, which asks the Hub. Not for tasks.
    type: dict
  part:
    description: For the module's action half, which asks the Hub. Not for tasks.
    type: str
  addresses:
    description: For the module's action half, which asks the Hub. Not for tasks.
    type: str
"""

EXAMPLES = r"""
- name: Bring the checkpoint of the article
  dgx.spark.hf_snapshot:
    repo: bg-digitalservices/Gemma-4-26B-A4B-it-NVFP4
    dest: /srv/models/gemma4-26b-a4b-nvfp4
    files: ["*.safetensors", gemma4_patched.py]

- name: Bring a gated repository at one commit, and read again what is there
  dgx.spark.hf_snapshot:
    repo: google/gemma-4-26b-a4b-it
    revision: 3f1c2d4e5a6b7c8d9e0f1a2b3c4d5e6f7a8b9c0d
    dest: /srv/models/gemma-4-26b-a4b-it
    token: "{{ lookup('ansible.builtin.env', 'HF_TOKEN') }}"
    verify: full
"""

RETURN = r"""
commit:
  description: The commit that the revision stands for.
  type: str
  returned: success
revision:
  description: The revision that was asked.
  type: str
  returned: success
files:
  description: Every file of the snapshot.
  type: list
  elements: dict
  returned: success
  contains:
    path:
      description: The path below O(dest).
      type: str
    size:
      description: Bytes.
      type: int
    sha256:
      description: The sha256, or V(null) in check mode for a small file that is not there yet (the Hub knows git's hash of it only).
      type: str
size:
  description: Bytes of all files.
  type: int
  returned: success
bytes_fetched:
  description: Bytes that came over the network to the box in this run.
  type: int
  returned: always
bytes_from_peers:
  description: How many of these came from other boxes of the play.
  type: int
  returned: always
reasons:
  description: Why something was done, one sentence each; empty when nothing was.
  type: list
  elements: str
  returned: success
  sample: ["model-00001-of-00004.safetensors is missing"]
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils import _neighbours, _parts
from ansible_collections.dgx.spark.plugins.module_utils._aria2 import Aria2Missing, Patience
from ansible_collections.dgx.spark.plugins.module_utils._fetch import (
    Address,
    Came,
    Fleet,
    Limits,
    Refused,
    Stuck,
    carry_out,
    wait_for_another,
)
from ansible_collections.dgx.spark.plugins.module_utils._locked import require_locked
from ansible_collections.dgx.spark.plugins.module_utils._manifest import OPTIONS, Manifest, SnapshotError, manifest_from, require
from ansible_collections.dgx.spark.plugins.module_utils._pace import amount
from ansible_collections.dgx.spark.plugins.module_utils._peer import PeersLost, Seeding
from ansible_collections.dgx.spark.plugins.module_utils._progress import Progress
from ansible_collections.dgx.spark.plugins.module_utils._seed import Seed, port_range
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import (
    Marker,
    Plan,
    Present,
    check_room,
    describe,
    make_plan,
    problem,
    read_marker,
)
from ansible_collections.dgx.spark.plugins.module_utils._talk import Talk
from ansible_collections.dgx.spark.plugins.module_utils._verify import Verifier


def asked_for(params: dict[str, Any], marker: Marker | None) -> Manifest:
    """What the Hub says, or what the marker remembers when the Hub was not reached. Raises SnapshotError."""
    if params["manifest"]:
        return manifest_from(params["manifest"])
    repo, revision, dest = params["repo"], params["revision"], params["dest"]
    if marker is None or marker.repo != repo or revision not in (marker.revision, marker.commit):
        there = f"{marker.repo} at {marker.revision} is there" if marker else problem(dest, marker)
        raise SnapshotError(f"{repo} at {revision} is not in {dest} ({there})")
    return marker.manifest(revision)


def look(params: dict[str, Any], marker: Marker | None, tell: Progress) -> tuple[Manifest, Plan, dict[str, str]]:
    """What is asked for, what it takes, and what neighbours have of that (digest → path). Raises SnapshotError, OSError."""
    manifest = asked_for(params, marker)
    if params["lock"]:
        require_locked(manifest, params["lock"], params["endpoint"] if params["manifest"] else params["dest"])
    require(manifest.files, params["files"] or [], f"revision {manifest.revision} (commit {manifest.commit})")
    told = params["manifest"] or {}
    verified = {path: Present(**state) for path, state in (told.get("verified") or {}).items()}
    plan = make_plan(params["dest"], manifest, marker, params["verify"] == "full", verified, tell)
    if plan.fetch and not told:
        raise SnapshotError(f"{params['dest']} is not complete ({plan.reasons[0]})")
    if not 1 <= params["connections"] <= 16:
        raise SnapshotError(f"connections is {params['connections']}: aria2 takes 1 to 16")
    port_range(params["peer_ports"])
    if not 1 <= params["stall_timeout"] <= 600:
        raise SnapshotError(f"stall_timeout is {params['stall_timeout']}: aria2 takes 1 to 600 seconds")
    beside = _neighbours.find(params["dest"], plan.fetch)
    plan = _neighbours.count_in(params["dest"], plan, beside)
    check_room(params["dest"], plan)
    return manifest, plan, beside


def result(manifest: Manifest, plan: Plan, present: dict[str, Present], marker: Marker | None) -> dict[str, Any]:
    """What the module returns, before or after the plan was carried out."""
    seen = {**plan.keep, **present}
    hashes = {file.path: file.sha256 or (seen[file.path].sha256 if file.path in seen else None) for file in manifest.files}
    before = describe(marker.repo, marker.revision, marker.commit, marker.files.values()) if marker else {}
    after = describe(manifest.repo, manifest.revision, manifest.commit, manifest.files)
    return {
        "changed": plan.changed,
        "commit": manifest.commit,
        "revision": manifest.revision,
        "files": [{"path": file.path, "size": file.size, "sha256": hashes[file.path]} for file in manifest.files],
        "size": manifest.size,
        "reasons": list(plan.reasons),
        "diff": {"before": before, "after": after if plan.changed else before},
    }


@contextlib.contextmanager
def in_fleet(
    params: dict[str, Any], part: dict[str, Any], manifest: Manifest, plan: Plan, tell: Progress
) -> Iterator[tuple[Fleet, Callable[[str], None]]]:
    """This box' part in its fleet, and how it says how far it is. A seed gives what it has until the controller says that it is enough.

    Raises SnapshotError, OSError.
    """
    file = params["progress_file"]
    if not part.get("seed"):
        seeding = Seeding(part["follow"], params["peer_ports"]) if part.get("follow") else None
        with Talk(file, {}):
            yield Fleet(seeding=seeding), tell
        return
    ports, address = port_range(params["peer_ports"]), params["peer_address"]
    with Seed(part["seed"], ports, address) as seed, Talk(file, {"url": seed.url}) as talk, Verifier(seed) as verifier:

        def say(text: str) -> None:
            seed.says = text
            tell(text)

        verifier.look_all({path: os.path.join(params["dest"], path) for path in plan.keep}, manifest.files)
        yield Fleet(seed=seed), say
        verifier.wait()
        seed.ended = True
        while talk.wanted():
            say(f"complete; {amount(seed.sent)} given to other boxes")
            time.sleep(0.5)


def amounts(came: list[Came]) -> dict[str, int]:
    """Bytes that came over the network, and how many of them from other boxes."""
    peers = sum(one.from_peers for one in came)
    return {"bytes_fetched": sum(one.from_hub for one in came) + peers, "bytes_from_peers": peers}


def main() -> None:
    secret = {"type": "str", "no_log": True}
    told = {"manifest": {"type": "dict"}, "addresses": secret, "part": secret, "progress_file": {"type": "path"}}
    module = AnsibleModule(argument_spec={**OPTIONS, **told}, supports_check_mode=True)
    params = module.params
    tell = Progress(params["progress_file"])
    came: list[Came] = []
    try:
        if not module.check_mode:
            wait_for_another(params["dest"], params["timeout"], tell)
        marker = read_marker(params["dest"])
        manifest, plan, beside = look(params, marker, tell)
        addresses = {path: Address(**entry) for path, entry in json.loads(params["addresses"] or "{}").items()}
        part = json.loads(params["part"] or "{}")
        answer = result(manifest, plan, {}, marker)
        # For the action half, which gets addresses and calls again; what has been read stays read.
        unfinished = {
            "needed": [file.path for file in plan.fetch],
            "verified": {path: asdict(state) for path, state in plan.keep.items()},
        }
        if not part.get("follow") and any(file.path not in addresses for file in plan.fetch):
            answer |= unfinished
            if params["bundle"] and not module.check_mode:
                answer["parts"] = _parts.prepare(params["dest"], plan, beside)
        elif not module.check_mode:
            with in_fleet(params, part, manifest, plan, tell) as (fleet, say):
                if plan.changed:
                    _neighbours.link(params["dest"], plan, beside)
                    limits = Limits(params["connections"], params["timeout"], patience=Patience(silence=params["stall_timeout"]))
                    present = carry_out(params["dest"], manifest, plan, addresses, limits, came.append, say, fleet)
                    answer = result(manifest, plan, present, marker)
    except Refused as exc:
        answer |= {**unfinished, "refused": str(exc)}
    except Stuck as exc:
        answer |= {**unfinished, "stuck": str(exc)}
    except PeersLost as exc:
        answer |= {**unfinished, "lost": str(exc), "seed_gone": exc.seed_gone}
    except (SnapshotError, Aria2Missing, OSError, ValueError) as exc:
        module.fail_json(msg=f"Cannot bring {params['repo']} to {params['dest']}: {exc}", exception=exc, **amounts(came))
    module.exit_json(**amounts(came), **answer)


if __name__ == "__main__":
    main()
