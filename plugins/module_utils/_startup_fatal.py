# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""The lines after which vLLM will not start any more, what they mean on a DGX Spark, and what to do."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

# Flags that recipes use, for "did you mean".
_FLAGS = [
    "api-key",
    "attention-backend",
    "chat-template",
    "dtype",
    "enable-auto-tool-choice",
    "enable-chunked-prefill",
    "enable-prefix-caching",
    "enforce-eager",
    "gpu-memory-utilization",
    "kv-cache-dtype",
    "kv-cache-memory-bytes",
    "language-model-only",
    "limit-mm-per-prompt",
    "linear-backend",
    "load-format",
    "max-model-len",
    "max-num-batched-tokens",
    "max-num-seqs",
    "moe-backend",
    "override-generation-config",
    "quantization",
    "reasoning-parser",
    "revision",
    "safetensors-load-strategy",
    "seed",
    "served-model-name",
    "shutdown-timeout",
    "speculative-config",
    "swap-space",
    "tensor-parallel-size",
    "tokenizer",
    "tool-call-parser",
    "trust-remote-code",
]


@dataclass(frozen=True)
class Fatal:
    """Why it cannot start: C(seen) in a few words, the C(line) that says so, and the C(remedy)."""

    seen: str
    line: str
    remedy: str


@dataclass(frozen=True)
class Rule:
    """A line that ends a start. C(remedy) may use the groups of C(pattern) as {0}, {1}, …; C(example) is a real line, for the tests."""

    pattern: re.Pattern[str]
    remedy: str
    example: str


def _rule(pattern: str, remedy: str, example: str) -> Rule:
    return Rule(re.compile(pattern), remedy, example)


_MEMORY = (
    "look at what holds memory ('nvidia-smi', 'ollama ps', 'docker ps'), wait until a stopped container has given its memory back (a GB10"
    " may take a minute), drop the page cache before the start, or lower gpu-memory-utilization"
)
_PATCH = "gemma4_patched.py fits vLLM 0.19.x only: take the patch out for this image, or take an image with vLLM 0.19"

RULES: tuple[Rule, ...] = (
    _rule(
        r"error: unrecognized arguments: (.+)",
        "this vLLM knows no such flag: correct its spelling in the recipe's args, or take an image whose vLLM has it",
        "vllm serve: error: unrecognized arguments: --moe-backnd marlin",
    ),
    _rule(
        r"error: argument (--[a-z0-9-]+)[^:]*: (?:invalid|expected|not allowed)[^(]*",
        "{0} does not take this value: correct it in the recipe's args; the line lists what is accepted",
        "vllm serve: error: argument --moe-backend: invalid choice: 'marlinn' (choose from auto, cutlass, marlin)",
    ),
    _rule(
        r"\[FP4 gemm Runner\] Failed to (?:run|initialize) cutlass FP4 gemm",
        "this vLLM's CUTLASS kernels do not work on GB10 (SM 12.1): take the image vllm/vllm-openai:gemma4-cu130 (the tag gemma4 without"
        " -cu130 contains 0.18.2-dev) and set moe-backend: marlin",
        "RuntimeError: [FP4 gemm Runner] Failed to run cutlass FP4 gemm on sm120/sm121. Error: Error Internal",
    ),
    _rule(
        r"Error: NvFp4 MoE backend '(\w+)' does not support the deployment configuration",
        "moe-backend {0} cannot run this model on this GPU: set moe-backend: marlin",
        "ValueError: NvFp4 MoE backend 'FLASHINFER_CUTLASS' does not support the deployment configuration since kernel does not"
        " support gelu_tanh",
    ),
    _rule(
        r"Error: (?:moe_backend='(\w+)' is not supported for NvFp4 MoE|No NvFp4 MoE backend supports)",
        "set moe-backend: marlin, the backend that is known to work on GB10",
        "ValueError: No NvFp4 MoE backend supports the deployment configuration.",
    ),
    _rule(
        r"Failed to find a kernel that can implement the NVFP4 linear layer",
        "this vLLM or this device has no NVFP4 kernel: NVFP4 checkpoints need the CUDA image on a GB10, not a CPU build",
        "ValueError: Failed to find a kernel that can implement the NVFP4 linear layer. Reasons: not supported on CPU",
    ),
    _rule(
        r"Error: Free memory on device\b.* is less than desired GPU memory utilization",
        _MEMORY,
        "ValueError: Free memory on device cuda:0 (61.2/119.7 GiB) on startup is less than desired GPU memory utilization (0.85, 101.7"
        " GiB).",
    ),
    _rule(
        r"Error in memory profiling\. Initial free memory",
        "another process gave memory back while vLLM measured it, as an Ollama model does that is still unloading: unload it first and"
        " wait, then start",
        "AssertionError: Error in memory profiling. Initial free memory 80.1 GiB, current free memory 97.9 GiB. This happens when"
        " other processes",
    ),
    _rule(
        r"Error: No available memory for the cache blocks",
        "the weights leave no room for the KV cache: " + _MEMORY + " (here: raise it)",
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.",
    ),
    _rule(
        r"Error: To serve at least one request with the model",
        "the KV cache is too small for one request of max-model-len: lower max-model-len or raise gpu-memory-utilization",
        "ValueError: To serve at least one request with the models's max seq len (131072), (9.0 GiB KV cache is needed, which is larger"
        " than the available KV cache memory (4.1 GiB).",
    ),
    _rule(
        r"Failed to load model - not enough GPU memory|(?:torch\.|cuda\.)OutOfMemoryError"
        r"|Error: CUDA out of memory|CUDA error: out of memory",
        _MEMORY,
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.38 GiB.",
    ),
    _rule(
        r"Insufficient space in /dev/shm|Error: .*No space left on device.*shm|Bus error",
        "the container's shared memory is too small: set ipc: host or raise shm_size",
        "RuntimeError: Insufficient space in /dev/shm for shared-memory allocation: 160 MiB required, 64 MiB free.",
    ),
    _rule(
        r"Error: .*unexpected keyword argument 'reduce_results'",
        _PATCH,
        "TypeError: FusedMoE.__init__() got an unexpected keyword argument 'reduce_results'",
    ),
    _rule(
        r"Error: .*(?:weight_scale|weight_scale_2|input_scale)\b",
        "the checkpoint's NVFP4 scales do not fit the model's parameters: bg-digitalservices' checkpoint needs gemma4_patched.py on vLLM"
        " 0.19 and none on vLLM 0.21 and later; see that the patch is mounted and meant for this version",
        "KeyError: 'layers.0.experts.0.down_proj.weight_scale_2'",
    ),
    _rule(
        r"Error: (?:There is no module or parameter named|Following weights were not initialized from checkpoint)",
        "the checkpoint names its tensors as this vLLM does not expect: a patch is missing, or the checkpoint is for another vLLM",
        "ValueError: There is no module or parameter named 'layers.0.moe' in Gemma4Model",
    ),
    _rule(
        # The error itself has no words: NotImplementedError.
        r"line \d+, in tie_weights$",
        "vLLM 0.24 cannot load a ModelOpt checkpoint of this model: take an image with 0.25.1 or later, or with 0.19 and the patch",
        'File "/usr/local/lib/python3.12/dist-packages/vllm/model_executor/layers/quantization/base_config.py", line 55, in tie_weights',
    ),
    _rule(
        r"AmbiguousGlobalPerLayerAttributeError",
        "vLLM 0.27 cannot load this model with the transformers that it ships: take another version of the image",
        "transformers.exceptions.AmbiguousGlobalPerLayerAttributeError: num_key_value_heads is ambiguous",
    ),
    _rule(
        r"(?:SafetensorError|Error while deserializing header)",
        "a weight file is damaged or incomplete: run the role model, which checks every file and fetches bad ones again",
        "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
    ),
    _rule(
        r"Error: .*(?:Can't load the configuration of|does not appear to have a file named|Can't load tokenizer"
        r"|Invalid repository ID or local directory)",
        "the model directory is empty, incomplete or mounted elsewhere: run the role model and compare the mount with the path after"
        " --model",
        "OSError: Can't load the configuration of '/models/gemma4'. If you were trying to load it from the Hub",
    ),
    _rule(
        r"invalid (tool call|reasoning) parser: (\S+)",
        "this vLLM has no {0} parser {1}: gemma4 is registered since vLLM 0.19.0",
        "KeyError: 'invalid tool call parser: gemma5 (chose from { gemma4,pythonic })'",
    ),
    _rule(
        r"[Rr]easoning parser '?(\S+?)'? not found",
        "this vLLM has no reasoning parser {0}: gemma4 is registered since vLLM 0.19.0",
        "KeyError: \"Reasoning parser 'gemma5' not found. Available parsers: gemma4, qwen3\"",
    ),
    _rule(
        r"(?:User-specified )?max_model_len \(?(\d+)\)? is greater than the derived max_model_len",
        "the model does not take so long a context: lower max-model-len",
        "pydantic_core.ValidationError: 1 validation error for ModelConfig: Value error, User-specified max_model_len (999999) is greater"
        " than the derived max_model_len",
    ),
    _rule(
        r"`limit_mm_per_prompt` is only supported for multimodal models",
        "this checkpoint is for text only: take limit-mm-per-prompt out of the recipe's args, and image out of its probes",
        "  Value error, `limit_mm_per_prompt` is only supported for multimodal models. [type=value_error, input_value=ArgsKwargs()]",
    ),
    _rule(
        r"Failed to infer device type|No CUDA GPUs are available|libcuda\.so\.1: cannot open|Error: .*Found no NVIDIA driver",
        "the container does not see the GPU: it must be created with GPUs, by a Docker that knows the nvidia runtime; run the role"
        " container_toolkit",
        "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG`",
    ),
    _rule(
        r"CUDA driver version is insufficient for CUDA runtime version",
        "the driver is older than the image's CUDA: update it (580.x is good on a GB10), or take an image with an older CUDA",
        "torch.AcceleratorError: CUDA error: CUDA driver version is insufficient for CUDA runtime version",
    ),
    _rule(
        r"no kernel image is available for execution on the device",
        "the image has no kernels for SM 12.1: take one that is built for the GB10",
        "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device",
    ),
    _rule(
        r"exec format error",
        "the image is built for another processor: a DGX Spark needs linux/arm64",
        "exec /usr/bin/python3: exec format error",
    ),
    _rule(
        r"\[Errno 98\].*[Aa]ddress already in use",
        "the port inside the container is taken, which happens with network mode host: stop what listens there",
        "OSError: [Errno 98] Address already in use",
    ),
    _rule(
        r"InvalidCxxCompiler|Unable to find torch_shm_manager|aot_compile is not supported",
        "this CPU image cannot compile: keep enforce-eager: true and TORCHDYNAMO_DISABLE=1",
        "torch._inductor.exc.InductorError: InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx:"
        " (None, 'g++')",
    ),
)

# They end a start too, but say nothing themselves: the cause is the error before them.
_CONSEQUENCES = re.compile(r"Engine core initialization failed\. See root cause|EngineDeadError|EngineCore encountered a fatal error")


def recognise(line: str, last_error: str) -> Fatal | None:
    """What a line means if it ends the start, else None. C(last_error) is the newest line that named an exception."""
    for rule in RULES:
        found = rule.pattern.search(line)
        if found:
            remedy = rule.remedy.format(*(group or "" for group in found.groups()))
            if "unrecognized arguments" in line:
                remedy += _meant(found[1])
            return Fatal(found[0].removeprefix("Error: ").strip(" '\""), line, remedy)
    if not _CONSEQUENCES.search(line):
        return None
    cause = last_error or line
    return Fatal(cause, cause, "the lines before it say more: see the log's tail and 'docker logs'")


def _meant(arguments: str) -> str:
    """A hint for each misspelt flag that resembles a known one."""
    hints = []
    for word in arguments.split():
        if word.startswith("--"):
            flag = word.removeprefix("--").partition("=")[0]
            near = difflib.get_close_matches(flag, _FLAGS, n=1, cutoff=0.75)
            if near and near[0] != flag:
                hints.append(f"did you mean --{near[0]}?")
    return f" ({' '.join(hints)})" if hints else ""
