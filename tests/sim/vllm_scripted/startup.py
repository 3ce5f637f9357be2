# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The start-up log of vLLM on a GB10, line by line, as its versions print it. Numbers without a flag behind them are the article's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sim.vllm_scripted.flags import MODEL_OPTION, Flags, release
from sim.vllm_scripted.scenario import Start

API, ENGINE = "APIServer pid=1", "EngineCore pid=77"
TOTAL_GIB = 119.7
MODEL_GIB = 15.76
# What is neither weights nor KV cache: 0.85 · 119.7 - 15.76 - 81.8
OVERHEAD_GIB = 4.185
# 714,768 tokens in 81.8 GiB with fp8, as 0.19 counts them.
TOKENS_PER_GIB = 714_768 / 81.8
CLI_TO_LOG = {"cutlass": "VLLM_CUTLASS"}
POTENTIAL = {
    19: ["FLASHINFER_TRTLLM", "FLASHINFER_CUTEDSL", "FLASHINFER_CUTLASS", "VLLM_CUTLASS", "MARLIN"],
    20: [
        "FLASHINFER_TRTLLM",
        "FLASHINFER_CUTEDSL",
        "FLASHINFER_CUTEDSL_BATCHED",
        "FLASHINFER_CUTLASS",
        "VLLM_CUTLASS",
        "MARLIN",
        "EMULATION",
    ],
}
ROUTES = [
    *(
        "/openapi.json HEAD,GET",
        "/docs HEAD,GET",
        "/docs/oauth2-redirect HEAD,GET",
        "/redoc HEAD,GET",
        "/tokenize POST",
        "/detokenize POST",
    ),
    *("/load GET", "/version GET", "/health GET", "/metrics GET", "/v1/models GET", "/ping GET", "/ping POST", "/invocations POST"),
    *("/v1/chat/completions POST", "/v1/responses POST", "/v1/completions POST", "/v1/messages POST"),
]
FP4_CRASH = "RuntimeError: [FP4 gemm Runner] Failed to run cutlass FP4 gemm on sm120. Error: Error Internal"
PATCH_CRASH = "TypeError: FusedMoE.__init__() got an unexpected keyword argument 'reduce_results'"
INIT_FAILED = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"


@dataclass(frozen=True)
class Line:
    """One line: who prints it, at which level and place ("" = as it is), the text, the stream, and its share of the start's time."""

    text: str
    process: str = ""
    source: str = ""
    level: str = "INFO"
    error: bool = False
    cost: float = 1.0

    def render(self, now: datetime) -> str:
        """The line as it stands in the container's log."""
        prefix = f"({self.process}) " if self.process else ""
        head = f"{self.level} {now:%m-%d %H:%M:%S} [{self.source}] " if self.source else ""
        return prefix + head + self.text


@dataclass(frozen=True)
class Ended:
    """How a start ended: served, exited with a code, or hangs."""

    how: str
    code: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """What the start sees of the model folder: how many shards, NVFP4 or not, expert keys that need the patch or not."""

    shards: int = 3
    nvfp4: bool = True
    needs_patch: bool = False
    patched: bool = False


def _log(process: str, source: str, text: str, level: str = "INFO", cost: float = 1.0) -> Iterator[Line]:
    for row in text.split("\n"):
        yield Line(row, process, source, level, cost=cost)


def _bar(text: str, done: int, total: int, seconds: float) -> str:
    each = seconds / max(1, done)
    left = (total - done) * each

    def clock(value: float) -> str:
        return f"{int(value) // 60:02d}:{int(value) % 60:02d}"

    pace = f"{each:5.2f}s/it" if done else "?it/s"
    rest = clock(left) if done else "?"
    return text.format(percent=100 * done // total, done=done, total=total, time=f"{clock(seconds)}<{rest}, {pace}")


def moe_backend(flags: Flags, version: str) -> str:
    """The backend's name in the log. Without a flag 0.19 takes the native kernels, which compute garbage on a GB10."""
    asked = flags.text("moe-backend", "auto")
    if asked == "auto":
        return "VLLM_CUTLASS" if release(version) < (0, 25, 0) else "FLASHINFER_CUTLASS"
    return CLI_TO_LOG.get(asked, asked.upper())


def computes_garbage(flags: Flags, version: str) -> bool:
    """Do these flags lead to the native FP4 kernel for experts, which computes NaN on a GB10?"""
    return flags.text("quantization").startswith("modelopt") and moe_backend(flags, version) == "VLLM_CUTLASS"


def _config(flags: Flags) -> str:
    shown = {
        "model": repr(flags.model),
        "speculative_config": flags.given.get("speculative-config"),
        "tokenizer": repr(flags.model),
        "skip_tokenizer_init": False,
        "tokenizer_mode": "auto",
        "trust_remote_code": flags.on("trust-remote-code"),
        "dtype": "torch.bfloat16",
        "max_seq_len": flags.max_model_len,
        "load_format": "auto",
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "data_parallel_size": 1,
        "quantization": flags.text("quantization") or None,
        "enforce_eager": flags.on("enforce-eager"),
        "kv_cache_dtype": flags.text("kv-cache-dtype", "auto"),
        "device_config": "cuda",
        "served_model_name": flags.served_names[0],
        "enable_prefix_caching": True,
        "enable_chunked_prefill": True,
    }
    return ", ".join(f"{name}={value}" for name, value in shown.items())


def _non_default(flags: Flags) -> str:
    shown: dict[str, Any] = {"model_tag": flags.model, "model": flags.model}
    # vLLM shows the key as it was given; this one shall not stand in a log.
    shown |= {name.replace("-", "_"): ("***" if name == "api-key" else value) for name, value in flags.given.items()}
    return str(shown)


def _head(flags: Flags, version: str) -> Iterator[Line]:
    late = release(version) >= (0, 30, 0)
    source = "api_utils.py:347" if late else "utils.py:299"
    if flags.by_option:
        until = "a future version." if late else "v0.13."
        text = MODEL_OPTION + until
        yield Line(text) if late else Line(text, source="argparse_utils.py:191", level="WARNING")
    yield from _log(
        API,
        source,
        f"\n       █     █     █▄   ▄█\n ▄▄ ▄█ █     █     █ ▀▄▀ █  version {version}\n  █▄█▀ █     █     █     █  model   {flags.model}\n"
        "   ▀▀  ▀▀▀▀▀ ▀▀▀▀▀ ▀     ▀\n",
        cost=0.1,
    )
    yield from _log(API, "api_utils.py:286" if late else "utils.py:233", f"non-default args: {_non_default(flags)}")
    yield from _log(API, "model.py:549", "Resolved architecture: Gemma4ForConditionalGeneration", cost=4)
    yield from _log(API, "model.py:1678", f"Using max model len {flags.max_model_len}")
    if flags.text("kv-cache-dtype").startswith("fp8"):
        yield from _log(
            API,
            "cache.py:227",
            "Using fp8 data type to store kv cache. It reduces the GPU memory footprint and boosts the performance."
            " Meanwhile, it may cause accuracy drop without a proper scaling factor.",
        )
    yield from _log(
        API, "scheduler.py:238", f"Chunked prefill is enabled with max_num_batched_tokens={flags.integer('max-num-batched-tokens', 8192)}."
    )
    dimensions = (
        "{'sliding_attention': 256, 'full_attention': 512}. FA4 not available, forcing TRITON_ATTN backend."
        if late
        else "(head_dim=256, global_head_dim=512). Forcing TRITON_ATTN backend to prevent mixed-backend numerical divergence."
    )
    yield from _log(API, "config.py:104", f"Gemma4 model has heterogeneous head dimensions {dimensions}")
    yield from _log(API, "vllm.py:790", "Asynchronous scheduling is enabled.")


def _engine(flags: Flags, version: str, checkpoint: Checkpoint) -> Iterator[Line]:
    number = release(version)
    yield from _log(ENGINE, "core.py:105", f"Initializing a V1 LLM engine (v{version}) with config: {_config(flags)}", cost=4)
    yield from _log(
        ENGINE,
        "parallel_state.py:1400",
        "world_size=1 rank=0 local_rank=0 distributed_init_method=tcp://172.17.0.2:47713 backend=nccl",
        cost=2,
    )
    yield from _log(
        ENGINE,
        "parallel_state.py:1716",
        "rank 0 in world size 1 is assigned as DP rank 0, PP rank 0, PCP rank 0, TP rank 0, EP rank N/A, EPLB rank N/A",
    )
    yield from _log(ENGINE, "gpu_model_runner.py:4735", f"Starting to load model {flags.model}...", cost=2)
    if checkpoint.nvfp4:
        yield from _log(
            ENGINE,
            "modelopt.py:998",
            "Detected ModelOpt NVFP4 checkpoint. Please note that the format is experimental and could change in future.",
            level="WARNING",
        )
        if number < (0, 20, 0):
            yield from _log(ENGINE, "nvfp4_utils.py:85", "Using NvFp4LinearBackend.FLASHINFER_CUTLASS for NVFP4 GEMM")
        else:
            yield from _log(ENGINE, "__init__.py:683", "Using FlashInferCutlassNvFp4LinearKernel for NVFP4 GEMM")
    yield from _log(ENGINE, "cuda.py:274", "Using AttentionBackendEnum.TRITON_ATTN backend.")
    if checkpoint.nvfp4:
        backend = moe_backend(flags, version)
        potential = POTENTIAL[19 if number < (0, 20, 0) else 20]
        yield from _log(ENGINE, "nvfp4.py:256", f"Using '{backend}' NvFp4 MoE backend out of potential backends: {potential}.")


def _weights(flags: Flags, version: str, checkpoint: Checkpoint) -> Iterator[Line]:
    number = release(version)
    shards = "Loading safetensors checkpoint shards: {percent:3d}% Completed | {done}/{total} [{time}]"
    prefix = f"({ENGINE}) "
    for done in range(checkpoint.shards + 1):
        text = _bar(shards, done, checkpoint.shards, 83.4 * done / checkpoint.shards)
        yield Line(prefix.rstrip(), error=True, cost=0)
        yield Line(text, error=True, cost=0 if done == 0 else 60 / checkpoint.shards)
    yield Line(prefix, error=True, cost=0)
    yield from _log(ENGINE, "default_loader.py:384", "Loading weights took 83.62 seconds")
    if checkpoint.nvfp4 and moe_backend(flags, version) == "MARLIN":
        yield from _log(
            ENGINE,
            "marlin_utils_fp4.py:299",
            "Your GPU does not have native support for FP4 computation but FP4 quantization is being used. Weight-only FP4"
            " compression will be used leveraging the Marlin kernel. This may degrade performance for compute-heavy workloads.",
            level="WARNING",
        )
    if checkpoint.nvfp4:
        yield from _log(ENGINE, "nvfp4.py:426", "Using MoEPrepareAndFinalizeNoDPEPModular")
    source = "gpu_model_runner.py:4820" if number < (0, 30, 0) else "model_runner.py:425"
    yield from _log(ENGINE, source, f"Model loading took {MODEL_GIB} GiB memory and 84.213377 seconds", cost=2)


def _compile(flags: Flags) -> Iterator[Line]:
    if flags.on("enforce-eager"):
        return
    cache = "/root/.cache/vllm/torch_compile_cache/9f5b0d3a17/rank_0_0/backbone"
    yield from _log(ENGINE, "backends.py:1051", f"Using cache directory: {cache} for vLLM's torch.compile", cost=2)
    yield from _log(ENGINE, "backends.py:1111", "Dynamo bytecode transform time: 6.31 s", cost=5)
    yield from _log(ENGINE, "backends.py:372", "Cache the graph of compile range (1, 8192) for later use", cost=3)
    yield from _log(ENGINE, "backends.py:390", "Compiling a graph for compile range (1, 8192) takes 9.87 s", cost=5)
    yield from _log(ENGINE, "monitor.py:48", "torch.compile took 17.62 s in total", cost=2)


def kv_numbers(flags: Flags, version: str) -> tuple[float, int, float]:
    """KV cache in GiB, in tokens, and how many requests of full length fit: 0.19 counts tokens otherwise than later versions."""
    share = flags.number("gpu-memory-utilization", 0.9 if release(version) < (0, 20, 0) else 0.92)
    gib = round(share * TOTAL_GIB - MODEL_GIB - OVERHEAD_GIB, 1)
    width = 1 if flags.text("kv-cache-dtype").startswith("fp8") else 2
    length = flags.max_model_len
    # Bytes of one request in fp8: 25 sliding layers keep 1024 tokens, 5 global ones all of them.
    request = (102_400 * min(length, 1024) + 10_240 * length) * width / 2**30
    requests = gib / request
    tokens = round(gib * TOKENS_PER_GIB / width) // 16 * 16 if release(version) < (0, 20, 0) else int(requests * length)
    if width == 1 and gib == 81.8 and release(version) < (0, 20, 0):
        tokens = 714_768
    return gib, tokens, requests


def _memory_and_graphs(flags: Flags, version: str) -> Iterator[Line]:
    gib, tokens, requests = kv_numbers(flags, version)
    concurrency = f"Maximum concurrency for {flags.max_model_len:,} tokens per request: {requests:.2f}x"
    yield from _log(ENGINE, "monitor.py:76", "Initial profiling/warmup run took 1.27 s", cost=2)
    yield from _log(ENGINE, "gpu_worker.py:436", f"Available KV cache memory: {gib} GiB", cost=2)
    if release(version) >= (0, 30, 0):
        yield from _log(ENGINE, "kv_cache_utils.py:2396", f"GPU KV cache size: {tokens:,} tokens, {concurrency}")
    else:
        yield from _log(ENGINE, "kv_cache_utils.py:1319", f"GPU KV cache size: {tokens:,} tokens")
        yield from _log(ENGINE, "kv_cache_utils.py:1324", concurrency)
    if not flags.on("enforce-eager"):
        for what, total in (("mixed prefill-decode, PIECEWISE", 51), ("decode, FULL", 35)):
            for done in range(0, total + 1, 17):
                full = done * 10 // total
                shown = f"{100 * done // total:3d}%|{'█' * full + ' ' * (10 - full)}| {done}/{total}"
                pace = f"[00:{done // 12:02d}<00:{(total - done) // 12:02d}, 12.08it/s]"
                yield Line(f"({ENGINE}) Capturing CUDA graphs ({what}): {shown} {pace}", error=True, cost=1)
        yield from _log(ENGINE, "gpu_model_runner.py:6046", "Graph capturing finished in 8 secs, took 0.47 GiB", cost=2)
    yield from _log(ENGINE, "core.py:283", "init engine (profile, create kv cache, warmup model) took 38.94 seconds", cost=2)


def _serving(flags: Flags, version: str) -> Iterator[Line]:
    late = release(version) >= (0, 30, 0)
    server = "entry.py:136" if late else "api_server.py:592"
    yield from _log(API, server, "Supported tasks: ['generate']")
    if flags.on("enable-auto-tool-choice"):
        yield from _log(API, "parser_manager.py:202", '"auto" tool choice has been enabled.')
    yield from _log(
        API,
        "model.py:1435",
        "Default vLLM sampling parameters have been overridden by the model's `generation_config.json`:"
        " `{'temperature': 1.0, 'top_k': 64, 'top_p': 0.95}`. If this is not intended, please relaunch vLLM instance with"
        " `--generation-config vllm`.",
        level="WARNING",
    )
    yield from _log(
        API,
        "hf.py:320",
        "Detected the chat template content format to be 'openai'. You can set `--chat-template-content-format` to override this.",
    )
    address = f"http://{flags.text('host', '0.0.0.0')}:{flags.text('port', '8000')}"
    yield from _log(API, "entry.py:140" if late else "api_server.py:596", f"Starting vLLM server on {address}")
    yield from _log(API, "launcher.py:37", "Available routes are:")
    for route in ROUTES:
        path, methods = route.split()
        yield from _log(API, "launcher.py:46", f"Route: {path}, Methods: {methods.replace(',', ', ')}", cost=0)
    for text in ("Started server process [1]", "Waiting for application startup.", "Application startup complete."):
        yield uvicorn(text, version, error=True)


def uvicorn(text: str, version: str, error: bool = False) -> Line:
    """A line of uvicorn's; later versions print it without the process."""
    return Line(f"INFO:     {text}", "" if release(version) >= (0, 30, 0) else API, error=error)


def failure(message: str) -> Iterator[Line]:
    """What vLLM prints when its engine fails to start with this error."""
    place = "core.py:1108"
    rows = [
        "EngineCore failed to start.",
        "Traceback (most recent call last):",
        '  File "/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core.py", line 1082, in run_engine_core',
        "    engine_core = EngineCoreProc(*args, engine_index=dp_rank, **kwargs)",
        "                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        '  File "/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core.py", line 848, in __init__',
        "    super().__init__(",
        *message.split("\n"),
    ]
    for row in rows:
        yield from _log(ENGINE, place, row, level="ERROR", cost=0)
    for row in ("Process EngineCore:", *rows[1:]):
        yield Line(row, ENGINE, error=True, cost=0)
    yield from api_failure(INIT_FAILED)


def api_failure(message: str) -> Iterator[Line]:
    """The traceback of the API server that ends with this error."""
    for row in (
        "Traceback (most recent call last):",
        '  File "/usr/local/bin/vllm", line 10, in <module>',
        "    sys.exit(main())",
        "             ^^^^^^",
        '  File "/usr/local/lib/python3.12/dist-packages/vllm/entrypoints/cli/main.py", line 75, in main',
        "    args.dispatch_function(args)",
        *message.split("\n"),
    ):
        yield Line(row, API, error=True, cost=0)


def _key_error(version: str) -> str:
    twice = release(version) >= (0, 19, 1) and ".dev" not in version
    return f"KeyError: 'layers.0.{'moe.moe' if twice else 'moe'}.experts.0.down_proj.weight_scale'"


def natural(flags: Flags, version: str, checkpoint: Checkpoint) -> tuple[list[Line], Ended]:
    """The start of this version with these flags and this checkpoint, and how it ends when nobody interferes."""
    number = release(version)
    lines = [*_head(flags, version), *_engine(flags, version, checkpoint)]
    if checkpoint.patched and number >= (0, 20, 1):
        starting = next(index for index, line in enumerate(lines) if line.text.startswith("Starting to load model"))
        return [*lines[: starting + 1], *failure(PATCH_CRASH)], Ended("exit", 1)
    weights = list(_weights(flags, version, checkpoint))
    if checkpoint.needs_patch and not checkpoint.patched and number < (0, 21, 0):
        first = next(index for index, line in enumerate(weights) if " 0% Completed" in line.text)
        return [*lines, *weights[: first + 1], *failure(_key_error(version))], Ended("exit", 1)
    lines += weights
    if checkpoint.nvfp4 and number < (0, 19, 0):
        return [*lines, *failure(FP4_CRASH)], Ended("exit", 1)
    return [*lines, *_compile(flags), *_memory_and_graphs(flags, version), *_serving(flags, version)], Ended("serve")


def scripted(flags: Flags, version: str, checkpoint: Checkpoint, start: Start) -> tuple[list[Line], Ended]:
    """The same with what the scenario changes."""
    lines, ended = natural(flags, version, checkpoint)
    lines = [line for line in lines if not any(part in line.text for part in start.drop)]
    for old, new in start.replace.items():
        lines = [replace(line, text=line.text.replace(old, new)) for line in lines]
    for after, rows in start.insert.items():
        at = next((index for index, line in enumerate(lines) if after in line.text), None)
        if at is not None:
            lines[at + 1 : at + 1] = [Line(row) for row in rows]
    if start.stop_after:
        at = next((index for index, line in enumerate(lines) if start.stop_after in line.text), None)
        if at is None:  # it ended by itself before
            return lines, ended
        lines, ended = lines[: at + 1], Ended(start.then, start.exit_code)
    elif start.then != "serve":
        ended = Ended(start.then, start.exit_code)
    lines += [Line(row) for row in start.last_words]
    if start.traceback:
        share = flags.number("gpu-memory-utilization", 0.9)
        message = start.traceback.replace("{utilization}", f"{share}").replace("{requested}", f"{share * TOTAL_GIB:.2f}")
        lines += failure(message)
    return lines, ended


def statistics(generated: float, prompts: float, running: int, usage: float) -> Line:
    """The line that vLLM prints every ten seconds while it works."""
    text = (
        f"Engine 000: Avg prompt throughput: {prompts:.1f} tokens/s, Avg generation throughput: {generated:.1f} tokens/s,"
        f" Running: {running} reqs, Waiting: 0 reqs, GPU KV cache usage: {usage:.1f}%, Prefix cache hit rate: 0.0%"
    )
    return next(_log(API, "loggers.py:259", text))
