# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""How exact the measurement is, beside other clients, and how fast the startup log is judged.

Figures mean something on an idle machine only.

Run as C(python -m benchmarks.proof [ours] [peers] [real] [log]). Tables go to standard output, what they are made of to
.cache/bench-proof/PART.json.

    ours   against the scripted vLLM's own clock: each way to stream at 52, 500 and 3000 tok/s, one and three streams
    peers  the same at 100 tok/s beside other clients; what each says of streams that cannot be measured; what each needs
    real   all of them on the real vLLM on this CPU with the lab's tiny model, beside what vLLM's own metrics say
    log    MB/s and memory of the startup log's parser; from a fatal line of a container to the verdict
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import http.server
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from benchmarks import startup_log
from benchmarks.clients import CACHE, OURS, PEERS, Client, Job, Reading, footprint, install, measure
from benchmarks.process import Cost
from benchmarks.scripted import BROKEN, MODEL, MODES, Scripted, scripted
from benchmarks.startup_log import docker
from sim.names import BASE_IMAGE, CPU_IMAGE, TINY_GEMMA4

from tools.make_venv import ROOT

TTFT_MS = 53.0
# tok/s → tokens a request: long enough that a tenth of a millisecond at either end is below the error that is looked for.
PACES = {52: 60, 500: 500, 3000: 3000}
ROUNDS = 3
STREAMS = 3
PEERS_TOK_S, PEERS_TOKENS, PEERS_REQUESTS = 100, 200, 3
# For the cost of a token: as many seconds as the requests above, thirty times as many tokens.
FAST_TOK_S, FAST_TOKENS = 3000, 6000
REAL_TOKENS, REAL_REQUESTS = 200, 6
READY_S = 300


def say(text: str) -> None:
    print(f"proof: {text}", file=sys.stderr, flush=True)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n")
    for cells in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(cells)} |")
    sys.stdout.flush()


def keep(part: str, document: Any) -> None:
    """Write what was measured, with when and where."""
    where = {"date": datetime.datetime.now().isoformat(timespec="seconds"), "cores": os.cpu_count(), "python": platform.python_version()}
    load = [round(value, 2) for value in os.getloadavg()]
    (CACHE / f"{part}.json").write_text(json.dumps({**where, "load_after": load, part: document}, indent=1) + "\n")


def error(reported: float | None, true: float) -> float | None:
    """The relative error in percent."""
    return None if reported is None else 100 * (reported / true - 1)


def signed(value: float | None, digits: int, unit: str) -> str:
    return "none" if value is None else f"{value:+.{digits}f} {unit}"


# --- ours


def ours(job: Callable[..., Job]) -> None:
    """Ours in each mode at each pace, alone and three at once; the median over the rounds of each round's mean over its streams."""
    say(f"ours: {len(MODES)} modes, about 5 minutes")
    results = []
    with scripted() as server:
        for mode, script in MODES.items():
            for pace, tokens in PACES.items():
                for streams in (1, STREAMS):
                    rounds = [_one_round(server, job, script | {"tok_s": pace}, tokens, streams) for _round in range(ROUNDS)]
                    decode, ttft = (statistics.median(values) for values in zip(*rounds, strict=True))
                    results.append({"mode": mode, "tok_s": pace, "streams": streams, "decode_error_percent": decode, "ttft_error_ms": ttft})
    keep("ours", results)
    cells = {
        (row["mode"], row["tok_s"], row["streams"]): f"{row['decode_error_percent']:+.3f} %, {row['ttft_error_ms']:+.2f} ms"
        for row in results
    }
    columns = [(pace, streams) for pace in PACES for streams in (1, STREAMS)]
    table(
        "Ours against the server's clock: error of decode tok/s and of TTFT (median of 3 rounds)",
        ["stream", *(f"{pace} tok/s × {streams}" for pace, streams in columns)],
        [[mode, *(cells[mode, pace, streams] for pace, streams in columns)] for mode in MODES],
    )
    worst = max(abs(row["decode_error_percent"]) for row in results), max(abs(row["ttft_error_ms"]) for row in results)
    print(f"\nThe largest errors: {worst[0]:.3f} % and {worst[1]:.2f} ms.", flush=True)


def _one_round(server: Scripted, job: Callable[..., Job], script: dict[str, Any], tokens: int, streams: int) -> tuple[float, float]:
    """(error of decode tok/s in percent, error of TTFT in ms) of one round."""
    reading, _cost, decode, ttft = _against_truth(server, OURS, job, script, tokens, streams, streams)
    if decode is None or ttft is None:
        raise SystemExit(f"proof: the module measured nothing: {reading.words}")
    return decode, ttft


def _against_truth(
    server: Scripted, client: Client, job: Callable[..., Job], script: dict[str, Any], tokens: int, requests: int, streams: int = 1
) -> tuple[Reading, Cost, float | None, float | None]:
    """What a client reports, what it cost, and the errors of its decode tok/s (percent) and of its TTFT (ms)."""
    server.play({"ttft_ms": TTFT_MS, **script})
    reading, cost = measure(client, job(client, server.base_url, requests, tokens, streams))
    truth = server.truth(tokens)[-requests:]
    if len(truth) < requests:
        return reading, cost, None, None
    decode = error(reading.decode_tok_s, statistics.fmean(stream.decode_tok_s for stream in truth))
    ttft = None if reading.ttft_ms is None else reading.ttft_ms - statistics.fmean(stream.ttft_ms for stream in truth)
    return reading, cost, decode, ttft


# --- peers


def installed() -> list[Client]:
    """Ours and those of the others that can be installed; says which cannot."""
    able = [OURS]
    for client in PEERS:
        why = install(client)
        if why:
            print(f"\n{client.title} is left out, its installation failed: {why}", flush=True)
        else:
            able.append(client)
    return able


def peers(job: Callable[..., Job]) -> None:
    clients = installed()
    say(f"peers: {len(clients)} clients, {len(MODES) + len(BROKEN) + 1} runs of each")
    results: list[dict[str, Any]] = []
    broken: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    with scripted() as server:
        for client in clients:
            base_cost: Cost | None = None
            for mode, script in MODES.items():
                reading, cost, decode, ttft = _against_truth(
                    server, client, job, script | {"tok_s": PEERS_TOK_S}, PEERS_TOKENS, PEERS_REQUESTS
                )
                base_cost = base_cost or cost
                results.append(
                    {"client": client.name, "mode": mode, "decode_error_percent": decode, "ttft_error_ms": ttft, **asdict(reading)}
                )
            for mode, script in BROKEN.items():
                reading, cost, _decode, _ttft = _against_truth(
                    server, client, job, script | {"tok_s": PEERS_TOK_S}, PEERS_TOKENS, PEERS_REQUESTS
                )
                broken.append({"client": client.name, "mode": mode, "exit_code": cost.code, **asdict(reading)})
            assert base_cost is not None
            costs.append(_costs(server, client, job, base_cost))
            say(f"peers: {client.name} is done")
    keep("peers", {"modes": results, "broken": broken, "costs": costs})
    titles = [client.title for client in clients]

    def cell(rows: list[dict[str, Any]], mode: str, client: Client, show: Callable[[dict[str, Any]], str]) -> str:
        return next(show(row) for row in rows if (row["mode"], row["client"]) == (mode, client.name))

    table(
        f"Error of decode tok/s and of TTFT at {PEERS_TOK_S} tok/s (mean of {PEERS_REQUESTS} requests of {PEERS_TOKENS} tokens)",
        ["stream", *titles],
        [[mode, *(cell(results, mode, client, _errors) for client in clients)] for mode in MODES],
    )
    table(
        "What is said of streams that cannot be measured",
        ["stream", *titles],
        [[mode, *(cell(broken, mode, client, _verdict) for client in clients)] for mode in BROKEN],
    )
    table(
        "What it takes",
        ["", *titles],
        [
            ["packages beside Python", *(str(row["packages"]) for row in costs)],
            ["MB on disk", *(f"{row['disk_mb']:.1f}" for row in costs)],
            ["peak memory, MB", *(f"{row['peak_mb']:.0f}" for row in costs)],
            ["CPU s, start to end of 3 requests", *(f"{row['cpu_s']:.1f}" for row in costs)],
            ["CPU µs a token", *(f"{row['cpu_us_per_token']:.0f}" for row in costs)],
        ],
    )


def _costs(server: Scripted, client: Client, job: Callable[..., Job], base: Cost) -> dict[str, Any]:
    """What a client needs. A token's CPU time comes from a run with many more tokens in the same time, less that of the base run."""
    server.play({"ttft_ms": TTFT_MS, "tok_s": FAST_TOK_S})
    _reading, cost = measure(client, job(client, server.base_url, PEERS_REQUESTS, FAST_TOKENS, 1), memory=True)
    packages, disk = footprint(client)
    more = PEERS_REQUESTS * (FAST_TOKENS - PEERS_TOKENS)
    return {
        **{"client": client.name, "packages": packages, "disk_mb": disk, "peak_mb": cost.peak_mb, "cpu_s": base.cpu_s},
        "cpu_us_per_token": 1e6 * (cost.cpu_s - base.cpu_s) / more,
    }


def _errors(row: dict[str, Any]) -> str:
    return f"{signed(row['decode_error_percent'], 3, '%')}, {signed(row['ttft_error_ms'], 2, 'ms')}"


def _verdict(row: dict[str, Any]) -> str:
    off = error(row["decode_tok_s"], PEERS_TOK_S)
    figure = "no decode tok/s" if off is None else f"{row['decode_tok_s']:.1f} tok/s ({off:+.1f} %)"
    if row["bad"] or row["exit_code"]:
        return f"{figure}, fails: {row['words'][:100]}"
    return f"{figure}, {row['good']} requests called good"


# --- real


def real(job: Callable[..., Job]) -> None:
    clients = installed()
    results = []
    with _vllm() as base_url:
        measure(OURS, job(OURS, base_url, 2, REAL_TOKENS, 1))  # the first requests are slow
        for streams in (1, STREAMS):
            for client in clients:
                before = _own_figures(base_url)
                requests = REAL_REQUESTS if client is not OURS or streams == 1 else streams
                reading, _cost = measure(client, job(client, base_url, requests, REAL_TOKENS, streams))
                after = _own_figures(base_url)
                results.append({"client": client.name, "streams": streams, **asdict(reading), **_between(before, after)})
                say(f"real: {client.name} × {streams} is done")
    keep("real", results)
    table(
        f"The real vLLM on a CPU: what each client reports, beside vLLM's own metrics of the same requests ({REAL_TOKENS} tokens)",
        ["client", "streams", "decode tok/s", "by vLLM's metrics", "TTFT ms", "by vLLM's metrics"],
        [
            [
                next(client.title for client in clients if client.name == row["client"]),
                *(str(row["streams"]), _shown(row["decode_tok_s"]), _shown(row["own_decode_tok_s"])),
                *(_shown(row["ttft_ms"]), _shown(row["own_ttft_ms"])),
            ]
            for row in results
        ],
    )


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f}"


@contextlib.contextmanager
def _vllm() -> Iterator[str]:
    """The real vLLM in a container, with the flags of the lab's recipe, on the loopback interface only."""
    recipe = yaml.safe_load((ROOT / "roles/recipe/vars/gemma4-tiny-cpu.yml").read_text())
    name = f"bench-proof-{uuid.uuid4().hex[:8]}"
    flags = [part for flag, value in recipe["args"].items() for part in ((f"--{flag}",) if value is True else (f"--{flag}", str(value)))]
    environment = [f"--env={key}={value}" for key, value in recipe["container"]["env"].items()]
    say("starting the real vLLM")
    docker(
        *("run", "-d", "--name", name, "--publish", "127.0.0.1::8000", "--shm-size", recipe["container"]["shm_size"], *environment),
        *(f"--volume={TINY_GEMMA4}:{recipe['model']['mount']}:ro", CPU_IMAGE, "--model", recipe["model"]["mount"]),
        *("--served-model-name", MODEL, *flags),
    )
    try:
        base_url = f"http://{docker('port', name, '8000').split()[0]}"
        until = time.monotonic() + READY_S
        while True:
            try:
                _get(f"{base_url}/health")
                break
            except OSError:
                if time.monotonic() > until:
                    raise SystemExit(f"proof: vLLM is not ready after {READY_S} s:\n{docker('logs', '--tail', '20', name)}") from None
                time.sleep(1)
        yield base_url
    finally:
        docker("rm", "-f", name)


def _get(url: str) -> str:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def _own_figures(base_url: str) -> dict[str, float]:
    """The sums and counts of vLLM's own histograms."""
    wanted = ("vllm:time_to_first_token_seconds", "vllm:request_time_per_output_token_seconds")
    found: dict[str, float] = {}
    for line in _get(f"{base_url}/metrics").splitlines():
        for name in wanted:
            for kind in ("_sum", "_count"):
                if line.startswith(f"{name}{kind}{{"):
                    found[name.rpartition(":")[2] + kind] = float(line.rsplit(" ", 1)[1])
    return found


def _between(before: dict[str, float], after: dict[str, float]) -> dict[str, float | None]:
    """vLLM's mean TTFT and the inverse of its mean time per output token, over the requests in between."""

    def mean_of(name: str) -> float | None:
        total, count = (after.get(f"{name}_{kind}", 0.0) - before.get(f"{name}_{kind}", 0.0) for kind in ("sum", "count"))
        return total / count if count else None

    ttft, gap = mean_of("time_to_first_token_seconds"), mean_of("request_time_per_output_token_seconds")
    return {"own_ttft_ms": None if ttft is None else 1000 * ttft, "own_decode_tok_s": 1 / gap if gap else None}


# --- log


def log(_job: Callable[..., Job]) -> None:
    say("log: 1 GiB, then 5 containers")
    read = startup_log.reading(1 << 30)
    waits = [startup_log.verdict() for _round in range(5)]
    keep("log", {**read, "verdict_s": waits})
    table(
        "The startup log",
        ["what", "figure"],
        [
            ["1 GiB, read at", f"{read['mb_s']} MB/s"],
            ["memory that reading it adds", f"{read['growth_mb']:.1f} MB"],
            ["from a container's fatal line to the verdict", f"{statistics.median(waits):.2f} s (median of 5, longest {max(waits):.2f} s)"],
        ],
    )


# --- all


class _Text(http.server.BaseHTTPRequestHandler):
    """Something to read, for a client that wants to fetch a book."""

    def do_GET(self) -> None:
        data = (ROOT / "tests/sim/vllm_scripted/prose.txt").read_bytes() * 5
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nobody reads it."""


@contextlib.contextmanager
def _jobs() -> Iterator[Callable[..., Job]]:
    """What makes a job for a client: job(client, base_url, requests, tokens, streams)."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Text)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def make(folder: Path, client: Client, base_url: str, requests: int, tokens: int, streams: int) -> Job:
        return Job(
            base_url, requests, tokens, streams, TINY_GEMMA4, f"http://127.0.0.1:{server.server_address[1]}/book", folder / client.name
        )

    try:
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-") as folder:
            yield functools.partial(make, Path(folder))
    finally:
        server.shutdown()
        server.server_close()


PARTS: dict[str, Callable[[Callable[..., Job]], None]] = {"ours": ours, "peers": peers, "real": real, "log": log}
NEEDS_MODEL = ("peers", "real")
NEEDS_IMAGE = {"real": CPU_IMAGE, "log": BASE_IMAGE}


def lacking(part: str) -> str:
    """What of the lab a part needs and does not find, or nothing."""
    if part in NEEDS_MODEL and not (TINY_GEMMA4 / "tokenizer.json").exists():
        return f"the lab's trained model is not in {TINY_GEMMA4.relative_to(ROOT)}: run `make sim` once"
    if part in NEEDS_IMAGE:
        try:
            docker("image", "inspect", NEEDS_IMAGE[part])
        except (OSError, subprocess.CalledProcessError):
            return f"there is no image {NEEDS_IMAGE[part]}: run `make sim` once"
    return ""


def main() -> int:
    parts = sys.argv[1:] or list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        raise SystemExit(f"proof: there is no part {unknown[0]}: choose {', '.join(PARTS)}")
    CACHE.mkdir(parents=True, exist_ok=True)
    say(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}" + ("; wait until nothing else runs" if os.getloadavg()[0] > 1 else ""))
    with _jobs() as job:
        for part in parts:
            why = lacking(part)
            if why:
                print(f"\n{part} is left out: {why}", flush=True)
                continue
            started = time.monotonic()
            PARTS[part](job)
            say(f"{part} took {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
