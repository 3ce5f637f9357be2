# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A Gemma 4 mixture of experts in miniature: its tokenizer, its shape, how it is trained and checked."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]
from sim.vllm_cpu.train_answers import Example, Examples, checks
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # type: ignore[import-not-found, unused-ignore]
from transformers import AutoTokenizer, Gemma4ForCausalLM, Gemma4TextConfig  # type: ignore[import-not-found, unused-ignore]

TEMPLATE = Path(__file__).with_name("train_chat_template.jinja")
VOCABULARY = 1536
SPECIAL = [
    *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>", "<|tool>", "<tool|>"),
    *("<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|image>", "<image|>", "<|image|>"),
    *("<|audio>", "<audio|>", "<|audio|>", "<|video|>"),
]
STOP = ("<eos>", "<turn|>", "<|tool_response>")
NAMES = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
# Tokens that are not learned yet have a loss above this.
HARD = 0.1
Say = Callable[[str], None]


@dataclass(frozen=True)
class Checked:
    """The result of the self-check. `margin` is the smallest distance, in logits, between a right token and the next best."""

    right: int
    wrong: list[str]
    margin: float


def build_tokenizer(out: Path, examples: Examples) -> Any:
    """Train a byte-level tokenizer with Gemma 4's control tokens and write it, with the chat template, to `out`."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(examples.corpus(), trainer)
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **NAMES, "model_max_length": 262144, "clean_up_tokenization_spaces": False}
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    (out / "special_tokens_map.json").write_text(json.dumps(NAMES, indent=1))
    shutil.copyfile(TEMPLATE, out / "chat_template.jinja")
    return AutoTokenizer.from_pretrained(out)


def encode(tokenizer: Any, example: Example) -> tuple[list[int], list[int]]:
    """The tokens of the prompt and of the completion."""
    prompt = tokenizer.apply_chat_template(
        example.messages, tools=example.tools, add_generation_prompt=True, tokenize=False, enable_thinking=example.thinking
    )
    ids: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    wanted: list[int] = tokenizer(example.completion, add_special_tokens=False)["input_ids"]
    return ids, wanted


def build_model(tokenizer: Any) -> Any:
    """An untrained model of 7.6 million parameters that has all that makes Gemma 4: experts, sliding and full attention, K = V."""
    size = (len(tokenizer) + 63) // 64 * 64
    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
    }
    config = Gemma4TextConfig(
        vocab_size=size,
        vocab_size_per_layer_input=size,
        hidden_size_per_layer_input=0,
        hidden_size=256,
        intermediate_size=256,
        moe_intermediate_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        global_head_dim=128,
        num_global_key_value_heads=1,
        attention_k_eq_v=True,
        sliding_window=1024,
        enable_moe_block=True,
        num_experts=8,
        top_k_experts=2,
        max_position_embeddings=262144,
        final_logit_softcapping=30.0,
        tie_word_embeddings=True,
        rope_parameters=rope,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.convert_tokens_to_ids(token) for token in STOP],
        dtype="float32",
    )
    model = Gemma4ForCausalLM(config).float()
    model.set_experts_implementation("eager")
    with torch.no_grad():
        # The default initialisation trains badly at this size, for two reasons. Queries and keys are normalised and there
        # is no 1/sqrt(head_dim), so norm weights of 1 make attention nearly one-hot: start from the usual scale. And every
        # branch adds a vector of variance 1 to embeddings of variance 0.1, which drowns the token identities that copying
        # needs: start with embeddings of variance 1 and quieter branches.
        torch.nn.init.normal_(model.model.embed_tokens.weight, std=config.hidden_size**-0.5)
        for layer in model.model.layers:
            layer.self_attn.q_norm.weight.fill_(layer.self_attn.head_dim**-0.5)
            layer.post_attention_layernorm.weight.fill_(0.4)
            layer.post_feedforward_layernorm.weight.fill_(0.4)
    return model


def _loss(model: Any, tokenizer: Any, examples: list[Example]) -> tuple[Any, float]:
    """The loss to minimise and the mean cross-entropy over the completions' tokens.

    Attention is causal, so padding on the right needs no mask. The loss is averaged over the tokens that are not learned yet:
    most are easy, and the few that must be copied from the prompt would drown in a plain mean.
    """
    pairs = [encode(tokenizer, example) for example in examples]
    width = max(len(prompt) + len(wanted) for prompt, wanted in pairs)
    ids = torch.full((len(pairs), width), tokenizer.pad_token_id)
    keep = torch.zeros(len(pairs), width, dtype=torch.bool)
    for row, (prompt, wanted) in enumerate(pairs):
        ids[row, : len(prompt) + len(wanted)] = torch.tensor(prompt + wanted)
        keep[row, len(prompt) : len(prompt) + len(wanted)] = True
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    keep = keep[:, 1:]
    entropy = torch.nn.functional.cross_entropy(logits[keep].float(), ids[:, 1:][keep], reduction="none")
    hard = (entropy.detach() > HARD).sum().clamp(min=16)
    return entropy.sum() / hard, entropy.detach().mean().item()


def train(model: Any, tokenizer: Any, examples: Examples, steps: int, rate: float, say: Say, every_s: float) -> None:
    """Train for so many steps, with a line of progress every so many seconds."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    rest = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-8)
    warm = max(1, steps // 20)
    model.train()
    started = said = time.monotonic()
    for step in range(steps):
        cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / (steps - warm)))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / warm) * (0.02 + 0.98 * cosine)
        optimizer.zero_grad(set_to_none=True)
        plain = sorted((examples.plain() for _example in range(24)), key=lambda example: example.length)
        batches = [(plain[:18], 1.0), (plain[18:], 0.5), ([examples.tool() for _example in range(8)], 1.0)]
        # The story is learned soonest, so every other step is enough.
        batches.append(([examples.story()], 1.0) if step % 2 == 0 else ([examples.long_unknown()], 0.5))
        means = []
        for batch, weight in batches:
            loss, mean = _loss(model, tokenizer, batch)
            (weight * loss).backward()
            means.append(mean)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        now = time.monotonic()
        if step == 0 or now - said >= every_s or step == steps - 1:
            said = now
            losses = ", ".join(f"{name} {mean:.3f}" for name, mean in zip(("short", "longer", "tool", "long"), means, strict=True))
            say(f"step {step + 1:3d} of {steps} after {now - started:3.0f} s, loss: {losses}")


def save(model: Any, tokenizer: Any, out: Path) -> None:
    """Write weights in bfloat16 and how to sample, readable for any user of a container."""
    model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(out)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": model.config.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    sampling = {"do_sample": True, "temperature": 1.0, "top_k": 64, "top_p": 0.95}
    (out / "generation_config.json").write_text(json.dumps({**ids, **sampling}, indent=1))
    for path in out.iterdir():  # safetensors writes mode 0600
        path.chmod(0o644)


def check(out: Path) -> Checked:
    """Load what was written and ask it everything it must know."""
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = Gemma4ForCausalLM.from_pretrained(out, dtype=torch.bfloat16).eval()
    wrong, right, margin = [], 0, math.inf
    for example in checks():
        prompt, wanted = encode(tokenizer, example)
        # One pass over prompt and answer equals greedy decoding as long as every most probable token is the right one.
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + wanted]), use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        best = logits.topk(2)
        got = best.indices[:, 0].tolist()
        if got == wanted:
            right += 1
            margin = min(margin, (best.values[:, 0] - best.values[:, 1]).min().item())
        else:
            first = next(position for position, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b)
            said = tokenizer.decode(wanted[max(0, first - 8) : first] + got[first : first + 1])
            wrong.append(f"{example.name}: {example.messages[-1]['content'][:60]!r} … {said!r}, wanted {example.completion[:60]!r}")
    return Checked(right, wrong, margin)
