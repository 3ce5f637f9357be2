# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the gateway's agent makes of a server, and what it tells HAProxy."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._generation_health import Finding, Health, look
from ansible_collections.dgx.spark.plugins.module_utils._haproxy_agent import Server, Settings
from ansible_collections.dgx.spark.plugins.module_utils._openai_client import Client
from ansible_collections.dgx.spark.plugins.module_utils._vllm_metrics import read
from sim.vllm_scripted.server import ARTICLE, ScriptedServer

FAST = {"base": "good", "stream": {"tok_s": 500, "ttft_ms": 5}}
GOOD, BAD, BUSY, UNJUDGED = (Finding(kind, kind) for kind in ("good", "bad", "busy", "unjudged"))


def found(played: dict[str, Any], timeout: float = 5, api_key: str = "", asked_with: str = "", flags: list[str] | None = None) -> Finding:
    with ScriptedServer({**FAST, **played}, flags, api_key=api_key) as server:
        client = Client(server.base_url, asked_with)
        return look(client, timeout, pause=lambda seconds: until_idle(client, seconds))


def until_idle(client: Client, seconds: float) -> None:
    """No longer than it takes until the probe that was given up has left the engine."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and read(client.metrics(seconds)).running:
        time.sleep(0.01)


def test_an_answer_that_makes_sense_is_good() -> None:
    assert found({}) == Finding("good")


@pytest.mark.parametrize("garbage", ["empty", "bang", "loop", "replacement", "script", "gibberish"])
def test_every_kind_of_garbage_is_bad(garbage: str) -> None:
    finding = found({"fault": {"garbage": garbage}})
    assert finding.kind == "bad"
    assert finding.why.startswith("its answers are garbage")


def test_garbage_ends_before_the_timeout_so_that_it_does_not_pass_as_busy() -> None:
    assert found({"stream": {"tok_s": 40}, "fault": {"garbage": "bang"}}, timeout=10).kind == "bad"


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"hung": True}, "its engine may hang although /health answers"),
        ({"http_status": 500}, "HTTP 500"),
    ],
)
def test_an_engine_that_does_not_generate_is_bad(fault: dict[str, Any], why: str) -> None:
    finding = found({"fault": fault}, timeout=0.5)
    assert finding.kind == "bad"
    assert why in finding.why


def test_a_stream_that_breaks_off_is_bad() -> None:
    assert found({"stream": {"cut_after": 3}}).kind == "bad"
    assert found({"stream": {"error_after": 3}}).kind == "bad"


def test_nobody_who_listens_is_bad() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert look(Client(f"http://127.0.0.1:{port}"), 1).kind == "bad"


def test_a_refused_key_says_nothing_about_the_engine() -> None:
    assert found({}, api_key="right", asked_with="wrong").kind == "unjudged"
    assert found({}, api_key="right", asked_with="right").kind == "good"


def test_a_model_that_thinks_first_is_not_taken_for_garbage() -> None:
    assert found({"stream": {"reasoning_first": 40, "tok_s": 500}}).kind == "good"


def full(server: ScriptedServer) -> None:
    """Take the server's only slot with a long answer."""
    body = {"model": "gemma-4-26b", "messages": [{"role": "user", "content": "A story."}], "max_tokens": 5000, "ignore_eos": True}
    client = Client(server.base_url)
    threading.Thread(target=lambda: client.ask({**body, "stream": True}, 60), daemon=True).start()
    while not server.engine.running:
        time.sleep(0.01)


def test_a_busy_engine_that_makes_progress_is_not_called_hung() -> None:
    with ScriptedServer({**FAST, "stream": {"tok_s": 100}}, [*ARTICLE, "--max-num-seqs", "1"]) as server:
        full(server)
        assert look(Client(server.base_url), 0.5, pause=lambda seconds: time.sleep(min(seconds, 0.2))).kind == "busy"


def test_a_full_engine_that_hangs_is_called_so() -> None:
    with ScriptedServer({**FAST, "fault": {"hung": True}}, [*ARTICLE, "--max-num-seqs", "1"]) as server:
        full(server)
        assert look(Client(server.base_url), 0.5, pause=lambda seconds: time.sleep(min(seconds, 0.2))).kind == "bad"


def verdicts(*findings: Finding) -> list[bool | None]:
    health = Health(failures=3, successes=2)
    seen = []
    for finding in findings:
        health.take(finding)
        seen.append(health.healthy)
    return seen


def test_several_failures_in_a_row_put_a_server_out_and_several_successes_bring_it_back() -> None:
    assert verdicts(GOOD, BAD, BAD, BAD, GOOD, GOOD) == [True, True, True, False, False, True]


def test_failures_that_are_not_in_a_row_put_nobody_out() -> None:
    assert verdicts(GOOD, BAD, BAD, GOOD, BAD, BAD) == [True] * 6


def test_a_busy_server_stays_what_it_is() -> None:
    assert verdicts(GOOD, BUSY, BUSY, BUSY, BUSY) == [True] * 5
    assert verdicts(BAD, BAD, BAD, BUSY, BUSY) == [None, None, False, False, False]
    assert verdicts(BUSY) == [True]


def test_what_cannot_be_judged_changes_nothing() -> None:
    assert verdicts(UNJUDGED, UNJUDGED) == [None, None]
    assert verdicts(GOOD, UNJUDGED, UNJUDGED, UNJUDGED) == [True] * 4


# --- the agent


def agent(*boxes: tuple[str, str, int], failures: int = 1) -> Server:
    listed = [{"name": name, "address": address, "port": port} for name, address, port in boxes]
    return Server(Settings(("127.0.0.1", 0), interval=0.05, timeout=1, failures=failures, successes=1, boxes=listed))


def asked(server: Server, name: str) -> str:
    with socket.create_connection(server.server_address[:2], timeout=5) as connection:  # type: ignore[arg-type]
        connection.sendall(f"{name}\n".encode())
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode()


def until(answers: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not answers():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_agent_says_up_and_down_and_why_and_nothing_of_whom_it_does_not_know() -> None:
    with ScriptedServer(FAST) as scripted, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.close()
        with agent(("spark-1", "127.0.0.1", scripted.server.server_address[1]), ("spark-2", "127.0.0.1", port)) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            # Nothing was seen yet: HAProxy keeps what it has.
            assert asked(server, "spark-1") == "\n"
            server.start()
            until(lambda: asked(server, "spark-1") == "up\n")
            until(lambda: asked(server, "spark-2").startswith("down #"))
            answer = asked(server, "spark-2")
            assert answer.count("\n") == 1
            assert answer.isascii()
            assert "cannot be reached" in answer
            assert asked(server, "spark-9") == "\n"
            server.shutdown()


def test_the_settings_are_what_the_role_writes(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    box = {"name": "spark-1", "address": "10.0.0.1", "port": 8002, "maxconn": 4}
    written = {"listen": "127.0.0.1:8406", "interval": 5, "timeout": 10, "failures": 3, "successes": 2, "boxes": [box]}
    path.write_text(json.dumps(written))
    settings = Settings.read(str(path))
    assert (settings.listen, settings.failures, settings.boxes) == (("127.0.0.1", 8406), 3, [box])


def test_the_key_comes_from_a_file_and_from_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sk-1\n")
    settings = Settings(("127.0.0.1", 0), 1, 1, 1, 1, [])
    assert settings.api_key == ""
    assert replace(settings, key_file=str(path)).api_key == "sk-1"
    with pytest.raises(FileNotFoundError):
        _read = replace(settings, key_file=str(tmp_path / "nothing")).api_key
