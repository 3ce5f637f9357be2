# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The module against the lab's stand-in for Ollama, which unloads asynchronously and only when no request is in flight."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _ollama
from ansible_collections.dgx.spark.plugins.module_utils._memory import Memory as BoxMemory
from ansible_collections.dgx.spark.plugins.module_utils._memory import wait_available
from ansible_collections.dgx.spark.plugins.module_utils._ollama import Freed, Model, Ollama, OllamaError, chosen
from ansible_collections.dgx.spark.plugins.module_utils._ollama import unload as wait_for_unload
from ansible_collections.dgx.spark.plugins.modules import ollama_models
from sim.ollama import Ollama as SimOllama
from unit.run_module import run_module

GPU = {"name": "gemma4:26b", "size": 17e9, "size_vram": 17e9}
SPLIT = {"name": "gemma4:26b", "size": 17e9, "size_vram": 5.8e9}
Room = Callable[[float], None]
OTHER = {"name": "nomic:latest", "size": 1e9, "size_vram": 1e9}


class Memory:
    """MemAvailable that grows by what the stand-in gives back."""

    def __init__(self, sim: SimOllama) -> None:
        self.sim = sim

    def __call__(self) -> int:
        return int(100e9 - sum(self.sim.claims.values()))


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimOllama]:
    with SimOllama() as server:
        monkeypatch.setattr(ollama_models, "available", Memory(server))
        yield server


def load(sim: SimOllama, *models: dict[str, Any], **settings: Any) -> None:
    body = json.dumps({"loaded": list(models), "unload_delay": 0.1, "memory_delay": 0.1, **settings}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{sim.url}/_sim/state", data=body), timeout=5).close()


def unload(sim: SimOllama, capsys: pytest.CaptureFixture[str], check: bool = False, **options: Any) -> dict[str, Any]:
    return run_module(ollama_models.main, capsys, check=check, url=sim.url, **{"timeout": 3, **options})


def loaded(sim: SimOllama) -> list[str]:
    return [model.name for model in Ollama(sim.url).loaded() or []]


def test_ladder(sim: SimOllama, capsys: pytest.CaptureFixture[str]) -> None:
    load(sim, GPU, OTHER)
    check = unload(sim, capsys, check=True)
    assert check["changed"]
    assert check["unloaded"] == ["gemma4:26b", "nomic:latest"]
    assert loaded(sim) == ["gemma4:26b", "nomic:latest"]
    done = unload(sim, capsys)
    assert done["changed"]
    assert done["freed_bytes"] >= 0.9 * 18e9
    assert loaded(sim) == []
    assert unload(sim, capsys)["changed"] is False


def test_only_the_named_model_goes(sim: SimOllama, capsys: pytest.CaptureFixture[str]) -> None:
    load(sim, GPU, OTHER)
    assert unload(sim, capsys, names=["Nomic"])["unloaded"] == ["nomic:latest"]
    assert loaded(sim) == ["gemma4:26b"]


def test_a_split_between_cpu_and_gpu_is_reported(sim: SimOllama, capsys: pytest.CaptureFixture[str]) -> None:
    load(sim, SPLIT)
    assert unload(sim, capsys)["split"] == [{"name": "gemma4:26b", "cpu_percent": 66, "gpu_percent": 34}]


def test_a_model_that_stays_is_named_with_what_is_known_and_the_remedy(sim: SimOllama, capsys: pytest.CaptureFixture[str]) -> None:
    load(sim, GPU, stuck=True)
    failed = unload(sim, capsys, timeout=1)
    assert failed["failed"]
    assert "gemma4:26b (15.8 GiB) did not unload within 1 s: no client is connected, so it is stuck" in failed["msg"]
    assert "systemctl restart ollama" in failed["msg"]
    assert (failed["unloaded"], failed["freed_bytes"]) == (["gemma4:26b"], 0)


def test_a_request_in_flight_is_named(sim: SimOllama, capsys: pytest.CaptureFixture[str]) -> None:
    load(sim, GPU, ttft=4.0)
    body = json.dumps({"model": "gemma4:26b", "prompt": "hello", "options": {"num_predict": 1}}).encode()
    parts = urllib.parse.urlsplit(sim.url)
    with socket.create_connection((parts.hostname, parts.port)) as client:
        client.sendall(b"POST /api/generate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        while not any(model.users for model in sim.models.listing()):
            time.sleep(0.02)
        failed = unload(sim, capsys, timeout=1)
        here = f"127.0.0.1:{client.getsockname()[1]}"
    assert f"1 connections of clients are open ({here}), and Ollama waits for requests in flight" in failed["msg"]


def wait_for(ollama: Ollama, available: Callable[[], int], **options: Any) -> Freed:
    """Unload all, as fast as a test likes."""
    return wait_for_unload(ollama, None, available, **{"timeout": 600, "sleep": lambda seconds: time.sleep(0.05), **options})


def test_what_a_client_loads_again_is_asked_again(sim: SimOllama) -> None:
    load(sim, GPU)
    seconds = iter(range(0, 1000, 2))
    loads = [True, False]

    def meddle(_seconds: float) -> None:
        # Just after it was asked, a client uses it: it stays for five minutes more.
        if loads and loads.pop(0):
            load(sim, GPU)
        time.sleep(0.05)

    freed = wait_for(Ollama(sim.url), Memory(sim), sleep=meddle, clock=lambda: float(next(seconds)))
    assert freed.size == int(17e9)
    asked = [request["body"] for request in sim.requests if request["path"] == "/api/generate"]
    assert asked == [{"model": "gemma4:26b", "keep_alive": 0}] * 2


def test_memory_that_does_not_come_back_in_time_is_no_success(sim: SimOllama, capsys: pytest.CaptureFixture[str]) -> None:
    load(sim, GPU, memory_delay=60)
    failed = unload(sim, capsys, timeout=1)
    assert failed["failed"]
    assert "gemma4:26b unloaded, but only 0.0 of 15.8 GiB came back within 1 s: 'systemctl restart ollama'" in failed["msg"]


def test_when_no_more_comes_back_it_is_content_with_a_warning(sim: SimOllama) -> None:
    load(sim, GPU)
    seconds = iter(range(0, 1000, 2))
    back = iter([0, 0, 5, 8, *[8] * 100])
    freed = wait_for(Ollama(sim.url), lambda: next(back) * 10**9, timeout=600, clock=lambda: float(next(seconds)))
    assert freed.size == 8 * 10**9
    assert "only 7.5 of 15.8 GiB came back, and nothing more in the last 15 s" in str(freed.warning)


def test_no_ollama_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(ollama_models.main, capsys, url="http://127.0.0.1:1")
    assert (result["changed"], result["unloaded"]) == (False, [])


def test_something_else_on_the_port_is_an_error() -> None:
    with pytest.raises(OllamaError, match="is no URL of an Ollama"):
        Ollama("127.0.0.1:11434")


def test_a_name_without_a_tag_means_latest() -> None:
    models = [Model("gemma4:26b", 1, 1), Model("gemma4:latest", 1, 1)]
    assert chosen(models, ["gemma4"]) == [models[1]]
    assert chosen(models, None) == models


@pytest.mark.parametrize("name", ["registry.lab:5000/team/gemma4", "REGISTRY.lab:5000/team/gemma4:LATEST"])
def test_a_registrys_port_is_no_tag(name: str) -> None:
    model = Model("registry.lab:5000/team/gemma4:latest", 1, 1)
    assert chosen([model], [name]) == [model]


@pytest.mark.parametrize(
    ("size", "vram", "shares"), [(17, 17, None), (17, 0, (100, 0)), (17e9, 5.8e9, (66, 34)), (0, 0, None), (17, 18, None)]
)
def test_the_shares_are_those_of_ollama_ps(size: float, vram: float, shares: tuple[int, int] | None) -> None:
    split = Model("m", int(size), int(vram)).split
    assert (split and (split["cpu_percent"], split["gpu_percent"])) == shares


def test_a_model_of_the_cpu_alone_frees_no_memory_of_the_gpu(sim: SimOllama, capsys: pytest.CaptureFixture[str]) -> None:
    # Its weights are a mapped file: available memory was never lower.
    load(sim, {**GPU, "size_vram": 0}, memory_delay=60)
    result = unload(sim, capsys, timeout=2)
    assert result["changed"] and not result.get("failed")
    assert result["split"] == [{"name": "gemma4:26b", "cpu_percent": 100, "gpu_percent": 0}]


def ask_to_load(sim: SimOllama, capsys: pytest.CaptureFixture[str], check: bool = False, **options: Any) -> dict[str, Any]:
    arguments = {"state": "loaded", "names": ["gemma4:26b"], "timeout": 5, **options}
    return run_module(ollama_models.main, capsys, check=check, url=sim.url, **arguments)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """The box has so many GiB available; as much as a GB10 unless a test says less."""
    there = [117.0]

    def wait(required: float, timeout: float, remedy: str) -> None:
        wait_available(required, timeout, remedy, read=lambda: BoxMemory(121.7, there[0]))

    monkeypatch.setattr(ollama_models, "wait_available", wait)
    yield lambda gib: there.__setitem__(0, gib)


def test_ladder_of_loading(sim: SimOllama, room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    check = ask_to_load(sim, capsys, check=True)
    assert (check["changed"], check["loaded"], loaded(sim)) == (True, ["gemma4:26b"], [])
    done = ask_to_load(sim, capsys)
    assert (done["changed"], done["loaded"], done["split"], loaded(sim)) == (True, ["gemma4:26b"], [], ["gemma4:26b"])
    assert done["models"] == [{"name": "gemma4:26b", "size": 17_000_000_000, "quantization": "Q4_K_M"}]
    again = ask_to_load(sim, capsys)
    assert (again["changed"], again["loaded"]) == (False, [])
    assert again["models"] == done["models"]
    assert [request["path"] for request in sim.requests] == ["/api/generate"]


def test_a_model_that_is_loaded_split_is_reported(sim: SimOllama, room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    sim.settings.gpu_share = 0.34
    split = [{"name": "gemma4:26b", "cpu_percent": 66, "gpu_percent": 34}]
    assert ask_to_load(sim, capsys)["split"] == split
    assert ask_to_load(sim, capsys)["split"] == split


@pytest.mark.parametrize("check", [True, False])
def test_a_model_that_ollama_lacks_is_an_error_with_the_remedy(sim: SimOllama, capsys: pytest.CaptureFixture[str], check: bool) -> None:
    failed = ask_to_load(sim, capsys, check=check, names=["gemma4:27b"])
    assert failed["failed"]
    assert failed["msg"] == "Ollama has no model gemma4:27b: bring it with 'ollama pull gemma4:27b' on the box"
    assert sim.requests == []


def test_nothing_is_loaded_without_an_ollama(capsys: pytest.CaptureFixture[str]) -> None:
    failed = run_module(ollama_models.main, capsys, url="http://127.0.0.1:1", state="loaded", names=["gemma4:26b"])
    assert "no Ollama listens at http://127.0.0.1:1: 'systemctl start ollama'" in failed["msg"]


def test_nothing_is_loaded_before_the_memory_for_all_of_it_is_there(sim: SimOllama, room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    room(17.0)  # GiB: more than the file, less than a model takes
    failed = ask_to_load(sim, capsys, timeout=0)
    assert "only 17.0 GiB of memory are available after 0 s, 19.8 are needed" in failed["msg"]
    assert "stop what holds it, or Ollama splits gemma4:26b between CPU and GPU" in failed["msg"]
    assert sim.requests == []


def test_a_load_that_does_not_end_is_bounded(
    sim: SimOllama, room: Room, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ollama, "REQUEST_S", 0.2)
    sim.settings.load_delay = 60
    failed = ask_to_load(sim, capsys, timeout=1)
    assert "does not answer /api/generate (timed out)" in failed["msg"]


def test_an_ollama_that_keeps_nothing_is_an_error_with_the_remedy(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    model = {"name": "gemma4:26b", "size": 1}
    answers = {"/api/tags": (200, {"models": [model]}), "/api/ps": (200, {"models": []}), "/api/generate": (200, {"done": True})}
    with Scripted(answers) as server:
        failed = run_module(ollama_models.main, capsys, url=server.url, state="loaded", names=["gemma4:26b"])
    assert "let go of it at once: set OLLAMA_KEEP_ALIVE to more than 0" in failed["msg"]


class Scripted:
    """A server of a few lines: {path: (status, document, or text)}; `seen` are the paths and bodies that were asked."""

    def __init__(self, answers: dict[str, tuple[int, Any]]) -> None:
        self.seen: list[tuple[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.seen.append((self.path, json.loads(body or b"null")))
                status, document = answers[self.path]
                text = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_GET  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_a_model_that_only_embeds_is_unloaded_by_embed() -> None:
    no = (400, {"error": '"nomic" does not support generate'})
    with Scripted({"/api/generate": no, "/api/embed": (200, {"embeddings": []})}) as server:
        Ollama(server.url).unload("nomic")
        assert [path for path, body in server.seen] == ["/api/generate", "/api/embed"]
        assert all(body["keep_alive"] == 0 and body["model"] == "nomic" for path, body in server.seen)
    with Scripted({"/api/generate": no, "/api/embed": (404, {"error": "not found"})}) as server, pytest.raises(OllamaError) as caught:
        Ollama(server.url).unload("nomic")
    assert str(caught.value) == 'Ollama answers 400 to /api/generate: "nomic" does not support generate'


@pytest.mark.parametrize("document", [b"<html>", [], {"models": [3]}, {"models": [{"size": 1}]}, {}])
def test_what_is_no_ollama_is_said_to_be_none(document: Any) -> None:
    with Scripted({"/api/ps": (200, document)}) as server, pytest.raises(OllamaError, match="does not speak Ollama's API"):
        Ollama(server.url).loaded()
    with Scripted({"/api/tags": (200, document)}) as server, pytest.raises(OllamaError, match="does not speak Ollama's API"):
        Ollama(server.url).stored()


def test_an_ollama_that_hangs_is_an_error_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(OllamaError, match=r"does not answer /api/ps \(timed out\): .*systemctl restart ollama"):
            Ollama(url, timeout=0.2).loaded()


def test_gos_times_are_understood() -> None:
    with Scripted({"/api/ps": (200, {"models": [{"name": "m", "size": 1, "expires_at": "2026-11-23T10:00:00.123456789Z"}]})}) as server:
        (model,) = Ollama(server.url).loaded() or []
        assert model.expires == pytest.approx(1795428000.123456)
    stamps = ["2026-11-23T10:00:00Z", "2026-11-23T02:00:00.5-08:00", "0001-01-01T00:00:00Z", "soon", None]
    answers = {"models": [{"name": "m", "size": 1, "expires_at": stamp} for stamp in stamps]}
    with Scripted({"/api/ps": (200, answers)}) as server:
        found = [model.expires for model in Ollama(server.url).loaded() or []]
    assert found[:2] == [pytest.approx(1795428000), pytest.approx(1795428000.5)]
    assert found[3:] == [None, None]
