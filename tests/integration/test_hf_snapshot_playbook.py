# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Both halves of hf_snapshot: real playbooks, the real aria2c, the lab's Hub. And where the token is to be found afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from sim.hub import GATED, Hub

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_Sb7kQeVxTnRw2Lp9"
REPO = "org/model"
FILES = {"model.safetensors": os.urandom(2_000_000), "config.json": b"{}\n", "sub/gemma4_patched.py": b"print()\n"}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    for repo in (REPO, GATED):
        for path, content in FILES.items():
            target = tmp_path / "hub" / repo / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    with Hub(tmp_path / "hub", token=TOKEN) as running:
        yield running


@dataclass
class Run:
    """What a playbook printed, and what its tasks returned on each box."""

    rc: int
    output: str
    boxes: list[list[dict[str, Any]]]

    @property
    def results(self) -> list[dict[str, Any]]:
        """Those of the only box."""
        assert len(self.boxes) == 1, self.output[-3000:]
        return self.boxes[0]


Play = Callable[..., Run]


@pytest.fixture
def play(hub: Hub, tmp_path: Path) -> Play:
    """Runs tasks in one playbook: play({options of the module, "check": …} or {a whole task}, …, boxes=1, speak=seconds)."""
    work = tmp_path / "work"
    work.mkdir()
    defaults = {"repo": REPO, "dest": str(tmp_path / "{{ inventory_hostname }}"), "endpoint": hub.url}

    def task(number: int, given: dict[str, Any]) -> dict[str, Any]:
        if any("." in name for name in given):
            return given
        options = {**defaults, **given}
        check = options.pop("check", False)
        return {"dgx.spark.hf_snapshot": options, "register": f"task{number}", "check_mode": check, "ignore_errors": True, "diff": True}

    def run(
        *given: dict[str, Any],
        boxes: int = 1,
        verbose: str = "",
        keep: bool = False,
        speak: float = 0,
        interrupt: Callable[[], bool] | None = None,
    ) -> Run:
        results = work / "results"
        results.mkdir(exist_ok=True)
        for path in results.iterdir():
            path.unlink()
        tasks = [task(number, entry) for number, entry in enumerate(given)]
        names = ", ".join(entry["register"] for entry in tasks if "register" in entry)
        # Their results in a file a box, so that a test need not read what a callback makes of them.
        tell = {"content": f"{{{{ [{names}] | to_json }}}}", "dest": f"{results}/{{{{ inventory_hostname }}}}"}
        book = work / "play.yml"
        book.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [*tasks, {"ansible.builtin.copy": tell}]}]))
        environment = {name: value for name, value in os.environ.items() if not re.search("(?i)proxy|^HF_|^ANSIBLE_", name)}
        environment |= {
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
            "ANSIBLE_LOCAL_TEMP": str(work / "local"),
            "ANSIBLE_REMOTE_TEMP": str(work / "remote"),
            "ANSIBLE_ASYNC_DIR": str(work / "jobs"),
            "ANSIBLE_KEEP_REMOTE_FILES": str(int(keep)),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOG_PATH": str(work / "ansible.log"),
        }
        inventory = ",".join(f"box{number}" for number in range(1, boxes + 1)) + ","
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", inventory, "-c", "local", str(book)]
        command += ["-e", f"ansible_python_interpreter={sys.executable}", "-e", f"spark_progress_seconds={speak}"]
        command += [verbose] if verbose else []
        done = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=work, start_new_session=True
        )
        if interrupt:
            while done.poll() is None and not interrupt():
                time.sleep(0.1)
            os.killpg(done.pid, signal.SIGINT)  # as Ctrl-C does
        output = done.communicate(timeout=120)[0]
        told = [json.loads(path.read_text()) for path in sorted(results.iterdir())]
        return Run(done.returncode, output, told)

    return run


def requests(hub: Hub) -> list[str]:
    """What the Hub itself was asked: method and kind of address."""
    kinds = {"api": "info", "resolve": "file"}
    return sorted(
        f"{request['method']} {next(kind for part, kind in kinds.items() if f'/{part}/' in request['path'])}"
        for request in hub.requests
        if request["origin"] == "hub"
    )


def test_ladder(play: Play, hub: Hub, tmp_path: Path) -> None:
    dest = tmp_path / "box1"
    size = sum(map(len, FILES.values()))
    run = play({"files": ["*.safetensors", "sub/gemma4_patched.py"], "check": True}, {}, {})
    would, made, again = run.results

    assert (would["changed"], would["bytes_fetched"], would["commit"]) == (True, 0, hub.commit(REPO))
    assert (made["changed"], made["bytes_fetched"], made["size"]) == (True, size, size)
    assert made["reasons"] == would["reasons"] == [f"{path} is missing" for path in sorted(FILES)]
    assert made["diff"]["before"] == {}
    assert made["diff"]["after"] == would["diff"]["after"]
    assert all((dest / path).read_bytes() == content for path, content in FILES.items())
    assert {file["path"]: file["size"] for file in made["files"]} == {path: len(content) for path, content in FILES.items()}
    assert all(len(file["sha256"]) == 64 for file in made["files"])

    assert (again["changed"], again["bytes_fetched"], again["reasons"]) == (False, 0, [])
    assert again["files"] == made["files"]
    assert again["diff"]["before"] == again["diff"]["after"] == made["diff"]["after"]
    # Three tasks, one question; the small ones are fetched from the Hub itself.
    assert requests(hub) == ["GET file", "GET file", "GET info", "HEAD file"]

    (tmp_path / "hub" / REPO / "config.json").write_bytes(b'{"new": 1}\n')
    (tmp_path / "hub" / REPO / "sub" / "gemma4_patched.py").unlink()
    updated, again = play({}, {}).results
    assert (updated["changed"], updated["bytes_fetched"]) == (True, len(b'{"new": 1}\n'))
    assert "sub/gemma4_patched.py is of an older revision" in updated["reasons"]
    assert updated["diff"]["before"]["commit"] == made["commit"]
    assert updated["diff"]["after"]["commit"] == updated["commit"] == hub.commit(REPO)
    assert not (dest / "sub").exists()
    assert not again["changed"]

    # Nothing that only the two halves talk about is left in what a task returns.
    internal = {"needed", "verified", "refused", "manifest", "addresses"}
    assert all(not internal & set(result) for result in (would, made, updated))


def test_it_says_how_far_it_is_and_nothing_where_it_shall_be_quiet(play: Play, hub: Hub, tmp_path: Path) -> None:
    hub.faults.rate = 200_000
    loud = play({"connections": 2}, speak=1)
    lines = re.findall(r"^box1: \d\.\d of 2\.0 MB \(\d+ %\), \d+ kB/s, \d+ s left \(\d+ s\)$", loud.output, re.MULTILINE)
    assert lines, loud.output[-3000:]
    assert loud.results[0]["changed"]
    quiet = play({"connections": 2, "dest": str(tmp_path / "quiet")})
    assert quiet.results[0]["changed"]
    assert "box1: " not in quiet.output
    # What ran in the background leaves nothing, and nothing of it is returned.
    assert list((tmp_path / "work" / "jobs").iterdir()) == []
    assert not {"ansible_job_id", "started", "finished"} & set(loud.results[0])


def test_a_controller_that_is_interrupted_does_not_stop_it_and_the_next_run_waits(play: Play, hub: Hub) -> None:
    def sent() -> int:
        return sum(request["bytes"] for request in hub.requests if request["origin"] == "cdn")

    hub.faults.rate = 150_000
    broken = play({"connections": 2}, interrupt=lambda: sent() > 300_000)
    assert broken.rc != 0
    assert broken.boxes == []
    run = play({"connections": 2}, speak=1)
    (result,) = run.results
    assert not result["failed"], run.output[-3000:]
    assert "box1: waiting for another run that fetches into " in run.output
    assert (result["changed"], result["bytes_fetched"]) == (False, 0)
    assert sent() < 1.1 * len(FILES["model.safetensors"])


def test_where_nothing_comes_the_box_asks_the_hub_for_the_way(play: Play, hub: Hub, tmp_path: Path) -> None:
    hub.faults.stall = {"model.safetensors": 0}
    snapshots = hub.state.store.snapshots

    def mend(repo: str) -> Any:
        # Who comes by the Hub's own address gets the bytes.
        if any(request["method"] == "GET" and request["path"].endswith("/model.safetensors") for request in hub.requests):
            hub.faults.stall = {}
        return snapshots(repo)

    hub.state.store.snapshots = mend  # type: ignore[method-assign]
    run = play({"stall_timeout": 1, "connections": 1})
    (result,) = run.results
    assert result["changed"] and not result["failed"], run.output[-3000:]
    assert result["bytes_fetched"] == result["size"]
    assert "model.safetensors cannot be fetched from 127.0.0.1:" in run.output
    assert "Trying another way" in run.output


def test_where_nothing_comes_by_any_way_file_host_and_progress_are_named(play: Play, hub: Hub) -> None:
    hub.faults.stall = {"model.safetensors": 1_000_000}
    run = play({"stall_timeout": 1, "connections": 1})
    (result,) = run.results
    assert result["failed"]
    pattern = r"model.safetensors cannot be fetched from 127\.0\.0\.1:\d+: no byte came for \d s \(fetched \d\.\d MB of 2\.0 MB, "
    assert re.search(pattern, result["msg"]), result["msg"]
    assert result["bytes_fetched"] > 900_000


def arguments_of_all_processes() -> str:
    """What anybody on this machine can read of every process."""
    texts = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            texts.append(path.read_text(errors="replace"))
    return "\n".join(texts)


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Collects the arguments of all processes again and again, as long as the block takes."""
    seen: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            seen.append(arguments_of_all_processes())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def exploded(work: Path) -> str:
    """Everything that modules were run with, unpacked."""
    texts = []
    for payload in work.rglob("AnsiballZ_*.py"):
        subprocess.run([sys.executable, str(payload), "explode"], check=True, capture_output=True, timeout=60)
        texts += [path.read_text(errors="replace") for path in payload.parent.rglob("*") if path.is_file()]
    return "\n".join(texts)


def test_the_token_is_nowhere_but_at_the_hub(play: Play, hub: Hub, tmp_path: Path) -> None:
    gated = {"repo": GATED, "token": TOKEN}
    hub.faults.rate = 1_000_000  # slow enough that aria2 is seen at work
    facts = {"ansible.builtin.copy": {"content": "{{ hostvars[inventory_hostname] | to_json }}", "dest": str(tmp_path / "facts.json")}}
    with watched() as processes:
        run = play({**gated, "check": True}, gated, {**gated, "revision": "v9"}, facts, verbose="-vvvv", keep=True, speak=0.5)
    would, made, failed = run.results
    assert would["changed"] and made["changed"] and failed["failed"], run.output[-3000:]
    assert (tmp_path / "box1" / "config.json").read_bytes() == FILES["config.json"]

    payloads = exploded(tmp_path / "work" / "remote")
    assert hub.commit(GATED) in payloads  # it is the arguments that were searched
    assert TOKEN not in payloads
    assert TOKEN not in run.output
    # An address is a secret too, as long as it is good.
    signature = re.compile(r"Signature=\w{8}")
    assert signature.search(payloads)
    assert not signature.search(run.output)
    assert any("aria2c" in seen for seen in processes)
    assert not any(TOKEN in seen or signature.search(seen) for seen in processes)
    assert hub.commit(GATED) in (tmp_path / "facts.json").read_text()
    (tmp_path / "work" / "play.yml").unlink()  # which is where the test wrote it
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert holders == []
    for request in hub.requests:
        assert (TOKEN in str(request["headers"])) == (request["origin"] == "hub")


def test_many_boxes_ask_once(play: Play, hub: Hub, tmp_path: Path) -> None:
    # Not side by side: they would link each other's files.
    run = play({"dest": str(tmp_path / "{{ inventory_hostname }}" / "model")}, boxes=3)
    assert [results[0]["changed"] for results in run.boxes] == [True] * 3, run.output[-3000:]
    assert all((tmp_path / f"box{number}" / "model" / "config.json").exists() for number in (1, 2, 3))
    # The boxes fetch the small ones from the Hub themselves.
    assert requests(hub) == ["GET file"] * 6 + ["GET info", "HEAD file"]


def test_addresses_that_expire_are_replaced(play: Play, hub: Hub) -> None:
    hub.faults.cdn_seconds = -1
    snapshots = hub.state.store.snapshots

    def mend(repo: str) -> Any:
        # The second time that the controller asks for an address, it gets a good one.
        if sum(request["method"] == "HEAD" for request in hub.requests) >= 2:
            hub.faults.cdn_seconds = 60
        return snapshots(repo)

    hub.state.store.snapshots = mend  # type: ignore[method-assign]
    run = play({})
    (result,) = run.results
    assert result["changed"] and not result["failed"], run.output[-3000:]
    assert result["bytes_fetched"] == result["size"]


BAD_INPUT: list[tuple[dict[str, Any], str]] = [
    ({"files": ["gemma4_patched.py"]}, "the repository has no gemma4_patched.py at revision main (commit "),
    ({"repo": GATED}, "is gated: accept the conditions on http"),
    ({"revision": "v9"}, "org/model has no revision v9"),
    ({"connections": 17}, "connections is 17: aria2 takes 1 to 16"),
    ({"endpoint": "huggingface.co"}, "the endpoint 'huggingface.co' is no http address"),
    ({"repo": None}, "repo"),
    ({"color": "red"}, "module: color. Supported parameters include: bundle, connections, dest"),
    ({"verify": "loose"}, "value of verify must be one of: quick, full, got: loose"),
]


def test_bad_input_is_named_in_check_mode_too_and_so_is_a_host_that_refuses(play: Play, hub: Hub, tmp_path: Path) -> None:
    hub.faults.cdn_seconds = -1
    run = play(*({**options, "check": True} for options, _text in BAD_INPUT), {"dest": str(tmp_path / "refused")}, verbose="-vvv")
    *named, refused = run.results
    assert [text for result, (_options, text) in zip(named, BAD_INPUT, strict=True) if text not in result["msg"]] == []
    assert all(result["failed"] for result in named)
    assert not (tmp_path / "box1").exists()

    assert refused["failed"]
    assert "refuses the address of model.safetensors (HTTP 403), although it is fresh: check the box's clock" in refused["msg"]
    assert "Signature=" not in run.output
    assert not (tmp_path / "refused" / "config.json").exists()


def test_a_lock_is_held_against_the_hub_and_against_what_is_there(play: Play, hub: Hub, tmp_path: Path) -> None:
    def listed(path: str, content: bytes) -> dict[str, Any]:
        if path == "model.safetensors":
            return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return {"size": len(content), "git_sha1": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}

    def asked(commit: str, **files: Any) -> dict[str, Any]:
        every = {path: listed(path, content) for path, content in FILES.items()} | files
        return {"revision": hub.commit(REPO), "lock": {"commit": commit, "files": every}}

    commit, away = hub.commit(REPO), {"endpoint": "http://127.0.0.1:9"}
    right, wrong = asked(commit), asked(commit, **{"config.json": {"size": 3, "git_sha1": "0" * 40}})
    run = play(wrong, asked("0" * 40), right, {**right, **away}, {**wrong, **away})
    refused, moved, made, kept, found_out = run.results
    assert f"{hub.url} has other bytes under commit {commit} of {REPO} than the lock: config.json is git_sha1" in refused["msg"]
    assert f"{hub.url} has {REPO} at commit {commit}, the lock demands {'0' * 40}" in moved["msg"]
    assert (refused["bytes_fetched"], made["changed"], kept["changed"]) == (0, True, False)
    assert f"{tmp_path / 'box1'} has other bytes under commit {commit}" in found_out["msg"]


def test_a_hub_that_is_away_does_not_matter_when_all_is_there(play: Play, hub: Hub, tmp_path: Path) -> None:
    away, commit = {"endpoint": "http://127.0.0.1:9"}, hub.commit(REPO)
    remove = {"ansible.builtin.file": {"path": str(tmp_path / "box1" / "config.json"), "state": "absent"}}
    run = play({}, away, {**away, "revision": commit}, {**away, "revision": "v2"}, remove, {**away, "revision": commit})
    same, renamed, other, incomplete = run.results[1:]
    assert not same["changed"] and not same["failed"]
    assert "The Hub could not be asked whether main of org/model has moved; what is there is complete" in run.output
    # By its commit it is the same snapshot under another name.
    assert renamed["reasons"] == [f"the revision is {commit}, it was main"]
    assert "org/model at v2 is not in " in other["msg"] and f"(org/model at {commit} is there)" in other["msg"]
    assert incomplete["failed"]
    assert "is not complete (config.json is missing), and the Hub could not be asked: the controller does not reach" in incomplete["msg"]


def sent_from(hub: Hub) -> int:
    """Bytes of files that the Hub and its CDN sent."""
    return sum(request["bytes"] for request in hub.requests)


def shared(tmp_path: Path, **more: Any) -> dict[str, Any]:
    """A task of boxes that share. Not side by side: they would link each other's files."""
    return {"dest": str(tmp_path / "{{ inventory_hostname }}" / "model"), "share": True, "peer_ports": "26900-26949", **more}


def test_boxes_that_share_take_every_byte_from_the_hub_once(play: Play, hub: Hub, tmp_path: Path) -> None:
    hub.faults.link = 2_000_000
    run = play(shared(tmp_path), boxes=3)
    results = [results[0] for results in run.boxes]
    assert [result["changed"] for result in results] == [True] * 3, run.output[-3000:]
    size = results[0]["size"]
    assert sorted(result["bytes_from_peers"] for result in results) == [0, size, size], run.output[-3000:]
    assert [result["bytes_fetched"] for result in results] == [size] * 3
    assert sent_from(hub) <= 1.02 * size
