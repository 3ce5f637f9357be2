# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The command `vllm` of the scripted image: `vllm serve …` prints a start-up log at its pace, then serves, or fails as the scenario says.

Environment: SIM_SCENARIO (a name, a path or JSON), SIM_START_SECONDS, VLLM_API_KEY as for vLLM.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from sim.vllm_scripted import scenario, startup
from sim.vllm_scripted.flags import MODEL_OPTION, FlagError, Flags, UsageError, parse
from sim.vllm_scripted.server import DEAD, Server
from sim.vllm_scripted.startup import Checkpoint, Ended, Line

STOCK = Path(__file__).with_name("image") / "gemma4.py"
STATISTICS_S = 10.0


class ModelError(Exception):
    """The model folder cannot be loaded; the message ends vLLM's traceback."""


def show(lines: Iterable[Line], seconds: float = 0.0) -> None:
    """Print lines, spread over so many seconds, each to the stream that vLLM prints it to."""
    rows = list(lines)
    whole = sum(row.cost for row in rows) or 1.0
    started, spent = time.monotonic(), 0.0
    for row in rows:
        spent += row.cost
        left = started + seconds * spent / whole - time.monotonic()
        if seconds and left > 0:
            time.sleep(left)
        print(row.render(datetime.now()), file=sys.stderr if row.error else sys.stdout, flush=True)


def end(code: int) -> NoReturn:
    """End the process now: threads that serve may still run. Whatever was printed is already out."""
    os._exit(code)


def hang() -> NoReturn:
    """Do nothing until somebody stops the container."""
    while True:
        signal.pause()


def tensors(path: Path) -> list[str]:
    """The tensor names of a safetensors file. Raises ModelError when its header or its length is wrong."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > 100_000_000:
                raise ModelError("safetensors_rust.SafetensorError: Error while deserializing header: header too large")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if path.stat().st_size != 8 + length + max(ends, default=0):
            raise ModelError(
                "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, file not fully covered"
            )
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError("safetensors_rust.SafetensorError: Error while deserializing header: invalid JSON in header") from error
    return [name for name in header if name != "__metadata__"]


def model_file() -> Path:
    """The model code of the installed package: the image's own, or a patch that was mounted over it."""
    spec = importlib.util.find_spec("vllm.model_executor.models.gemma4")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin)


def look_at(flags: Flags) -> Checkpoint:
    """What lies in the model folder. Raises ModelError as vLLM does."""
    folder = Path(flags.model)
    if not (folder / "config.json").is_file():
        raise ModelError(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            f"  Value error, Invalid repository ID or local directory specified: '{flags.model}'.\n"
            "Please verify the following requirements:\n1. Provide a valid Hugging Face repository ID.\n"
            "2. Specify a local directory that contains a recognized configuration file."
        )
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise ModelError(f"RuntimeError: Cannot find any model weights with `{flags.model}`")
    names = [name for shard in shards for name in tensors(shard)]
    return Checkpoint(
        shards=len(shards),
        nvfp4=flags.text("quantization").startswith("modelopt") or (folder / "hf_quant_config.json").exists(),
        needs_patch=any(".moe.experts.0." in name for name in names),
        patched=model_file().read_bytes() != STOCK.read_bytes(),
    )


def start(flags: Flags, version: str, played: scenario.Scenario) -> Line:
    """Print the start-up log but its last line, which says that it serves; comes back only when it shall."""
    seconds = float(os.environ.get("SIM_START_SECONDS") or played.start.seconds)
    lines: list[Line]
    try:
        lines, ended = startup.scripted(flags, version, look_at(flags), played.start)
    except ModelError as error:
        natural, _ended = startup.natural(flags, version, Checkpoint())
        early = "ModelConfig" in str(error)
        until = "Resolved architecture" if early else "Starting to load model"
        at = next(index for index, line in enumerate(natural) if until in line.text)
        report = startup.api_failure(str(error)) if early else startup.failure(str(error))
        lines, ended = [*natural[: at if early else at + 1], *report], Ended("exit", 1)
    show(lines[:-1], seconds)
    if ended.how == "serve":
        return lines[-1]
    show(lines[-1:])
    if ended.how == "hang":
        hang()
    end(ended.code)


def show_statistics(server: Server) -> NoReturn:
    """Every ten seconds in which something was generated, print the line that says how much."""
    generated = prompted = 0
    while True:
        time.sleep(STATISTICS_S)
        engine = server.engine
        tokens, prompts = engine.generated - generated, engine.prompted - prompted
        generated, prompted = engine.generated, engine.prompted
        if tokens or prompts or engine.concurrency:
            running, usage = engine.concurrency, engine.kv_usage() * 100
            show([startup.statistics(tokens / STATISTICS_S, prompts / STATISTICS_S, running, usage)])


def serve(server: Server, flags: Flags, version: str) -> None:
    """Serve until somebody stops the container."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    threading.Thread(target=show_statistics, args=(server,), daemon=True).start()
    stop.wait()
    timeout = flags.integer("shutdown-timeout", 0)
    engine = server.engine
    count = engine.concurrency
    show([Line(f"Shutdown initiated (timeout={timeout})", startup.ENGINE, "core.py:1210")])
    if count:
        text = f"Draining {count} in-flight requests (timeout={timeout}s)" if timeout else f"Aborting {count} requests"
        show([Line(text, startup.ENGINE, "core.py:1215")])
    engine.stop(timeout)
    show([Line("Shutdown complete", startup.ENGINE, "core.py:1233")])
    show([Line("Shutting down FastAPI HTTP server.", startup.API, "launcher.py:139")])
    for text in ("Shutting down", "Waiting for application shutdown.", "Application shutdown complete."):
        show([startup.uvicorn(text, version, error=True)])
    end(0)


def main(argv: list[str]) -> int:
    """The command line `vllm ARGV`."""
    version = importlib.metadata.version("vllm")
    if argv[:1] in (["--version"], ["-v"]):
        print(version)
        return 0
    if argv[:1] != ["serve"]:
        print("usage: vllm serve [model_tag] [options]", file=sys.stderr)
        return 2
    # As process 1 of a container it would ignore these without a handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end(0))
    try:
        played = scenario.load(os.environ.get("SIM_SCENARIO", ""))
        flags = parse(argv[1:], version)
    except scenario.ScenarioError as error:
        print(f"SIM_SCENARIO: {error}", file=sys.stderr)
        return 2
    except UsageError as error:
        show([Line(MODEL_OPTION + "v0.13.", source="argparse_utils.py:191", level="WARNING")] if "--model" in argv else [])
        print(error.text, end="", file=sys.stderr)
        return 2
    except FlagError as error:
        show(startup.api_failure(str(error)))
        return 1

    def die() -> None:
        for row in (
            "EngineCore encountered a fatal error.",
            "Traceback (most recent call last):",
            "RuntimeError: CUDA error: unspecified launch failure",
        ):
            show([Line(row, startup.ENGINE, "core.py:1110", "ERROR")])
        show([Line(f"vllm.v1.engine.exceptions.EngineDeadError: {DEAD}", startup.API, "async_llm.py:707", "ERROR")])
        end(played.fault.exit_code)

    keys = [*flags.given.get("api-key", []), os.environ.get("VLLM_API_KEY", "")]

    def log(text: str) -> None:
        show([replace(startup.uvicorn(text, version), error=False)])

    ready = start(flags, version, played)
    server = Server((flags.text("host", "0.0.0.0"), flags.integer("port", 8000)), flags, played, version, keys, log, die)
    # It listens by now: whoever reads this line can connect.
    show([ready])
    serve(server, flags, version)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
