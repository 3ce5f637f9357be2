# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The shapes of vLLM's OpenAI API: requests as it checks them, answers and their parts as it writes them."""

from __future__ import annotations

import hashlib
import math
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.vllm_scripted import picture, prose, scenario
from sim.vllm_scripted.answers import Piece, prompt_text
from sim.vllm_scripted.flags import Flags

# What the chat template adds to a prompt.
TEMPLATE_TOKENS = 9
# What a square picture adds to it: Gemma 4 fits each into a budget of 280.
PICTURE_TOKENS = 256
VOCABULARY = 262_144
OTHER_TOKENS = (" the", " a", " one", " this", " some")


class ApiError(Exception):
    """A request that is refused as vLLM refuses it."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.param = status, kind, param

    def body(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.status}}


@dataclass(frozen=True)
class Request:
    """A request for a generation, checked."""

    body: Mapping[str, Any]
    chat: bool
    model: str
    limit: int
    prompt_tokens: int
    streaming: bool
    include_usage: bool
    continuous_usage: bool
    logprobs: int | None
    """How many alternatives with each token; None without log probabilities."""


def _check_tools(body: Mapping[str, Any], flags: Flags) -> None:
    choice = body.get("tool_choice", "auto" if body.get("tools") else "none")
    if choice == "auto" and not flags.on("enable-auto-tool-choice"):
        raise ApiError(400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
    if choice not in ("auto", "none") and not body.get("tools"):
        raise ApiError(400, "When using `tool_choice`, `tools` must be set.")


def _check_pictures(body: Mapping[str, Any], flags: Flags) -> None:
    urls = picture.urls(body)
    if len(urls) > flags.pictures:
        text = f"At most {flags.pictures} image(s) may be provided in one prompt. Set `--limit-mm-per-prompt` to increase this limit."
        raise ApiError(400, text)
    try:
        for url in urls:
            picture.colour(url)
    except picture.PictureError as error:
        raise ApiError(400, f"{error}") from error


def check(body: Any, flags: Flags, *, chat: bool) -> Request:
    """Understand a request's body. Raises ApiError with vLLM's words."""
    if not isinstance(body, dict):
        raise ApiError(
            400, "[{'type': 'model_attributes_type', 'loc': ('body',), 'msg': 'Input should be a valid dictionary'}]", "Bad Request"
        )
    wanted = "messages" if chat else "prompt"
    if wanted not in body or (chat and not isinstance(body[wanted], list)):
        kind, text = ("list_type", "Input should be a valid list") if wanted in body else ("missing", "Field required")
        raise ApiError(400, f"[{{'type': '{kind}', 'loc': ('body', '{wanted}'), 'msg': '{text}', 'input': …}}]", "Bad Request")
    model = body.get("model") or flags.served_names[0]
    if model not in flags.served_names:
        raise ApiError(404, f"The model `{model}` does not exist.", "NotFoundError", "model")
    if chat:
        _check_tools(body, flags)
        _check_pictures(body, flags)
    prompt_tokens = len(prose.tokens(prompt_text(body))) + len(picture.urls(body)) * PICTURE_TOKENS + (TEMPLATE_TOKENS if chat else 1)
    most = flags.max_model_len
    asked = body.get("max_completion_tokens") or body.get("max_tokens") if chat else body.get("max_tokens", 16)
    if asked is not None and (not isinstance(asked, int) or asked < 1):
        raise ApiError(400, f"max_tokens must be at least 1, got {asked}.", param="max_tokens")
    if prompt_tokens + (asked or 1) > most:
        raise ApiError(
            400,
            f"This model's maximum context length is {most} tokens. However, you requested {asked or 1} output tokens and your prompt"
            f" contains at least {prompt_tokens} input tokens, for a total of at least {prompt_tokens + (asked or 1)} tokens."
            " Please reduce the length of the input prompt or the number of requested output tokens.",
        )
    if int(body.get("min_tokens") or 0) > (asked or most):
        raise ApiError(400, f"min_tokens must be less than or equal to max_tokens={asked}, got {body['min_tokens']}.")
    streaming = bool(body.get("stream"))
    options = body.get("stream_options") or {}
    if options and not streaming:
        raise ApiError(400, "Stream options can only be defined when `stream=True`.")
    logprobs = (int(body.get("top_logprobs") or 0) if body.get("logprobs") else None) if chat else body.get("logprobs")
    include = bool(options.get("include_usage")) or flags.on("enable-force-include-usage")
    return Request(
        body,
        chat,
        model,
        asked or most - prompt_tokens,
        prompt_tokens,
        streaming,
        include,
        include and bool(options.get("continuous_usage_stats")),
        logprobs,
    )


def rendered(request: Request) -> dict[str, Any]:
    """The prompt as tokens, from which a router tells whether two prompts begin alike."""
    ids = [zlib.crc32(token.encode()) % VOCABULARY for token in prose.tokens(prompt_text(request.body))]
    return {"request_id": f"render-{uuid.uuid4().hex[:16]}", "model": request.model, "token_ids": ids, "features": None}


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """vLLM's usage object."""
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}


def _logprob(token: str, position: int) -> float:
    """A plausible value, the same for the same token at the same place."""
    value = hashlib.blake2s(f"{position} {token}".encode(), digest_size=2).digest()
    return -((int.from_bytes(value) / 65536) ** 6) * 2 - 1e-5


def _entry(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": list(token.encode())}


def chat_logprobs(pieces: Sequence[Piece], alternatives: int, start: int, *, broken: bool) -> dict[str, Any]:
    """The `logprobs` of a chat choice."""
    content = []
    for offset, piece in enumerate(pieces):
        value = math.nan if broken else _logprob(piece.text, start + offset)
        entries = [_entry(piece.text, value), *(_entry(word, value - 3 - number) for number, word in enumerate(OTHER_TOKENS))]
        content.append({**entries[0], "top_logprobs": entries[:alternatives]})
    return {"content": content}


def without_nan(value: Any) -> Any:
    """NaN as null, as a stream writes it."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    return [without_nan(inner) for inner in value] if isinstance(value, list) else value


def chunks(pieces: Sequence[Piece], size: int, script: scenario.Stream) -> Iterator[tuple[list[Piece], bool]]:
    """The pieces of each step, and whether it makes an event."""
    for made, index in enumerate(range(0, len(pieces), size), start=1):
        group = list(pieces[index : index + size])
        swallowed = index < script.swallow_first or (script.swallow_every > 0 and made % script.swallow_every == 0)
        last = index + size >= len(pieces)
        visible = last or (not swallowed and any(piece.kind != "silent" for piece in group))
        yield group, visible


def delta(pieces: Sequence[Piece]) -> dict[str, Any]:
    """What these tokens change in the message. A token without text makes an empty text."""
    result: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []
    for piece in pieces:
        if piece.kind in ("content", "reasoning"):
            result[piece.kind] = result.get(piece.kind, "") + piece.text
        elif piece.kind == "name":
            head = {"id": f"chatcmpl-tool-{uuid.uuid4().hex[:16]}", "type": "function", "index": 0}
            calls.append({**head, "function": {"name": piece.text}})
        elif piece.kind == "arguments":
            if calls and "arguments" in calls[-1]["function"]:
                calls[-1]["function"]["arguments"] += piece.text
            else:
                calls.append({"index": 0, "function": {"arguments": piece.text}})
    if calls:
        result["tool_calls"] = calls
    return result or {"content": ""}


def message(pieces: Sequence[Piece]) -> dict[str, Any]:
    """The whole message of an answer that is not streamed."""
    texts = {kind: "".join(piece.text for piece in pieces if piece.kind == kind) for kind in ("content", "reasoning", "name", "arguments")}
    result: dict[str, Any] = {"role": "assistant", "content": texts["content"], "refusal": None, "annotations": None, "audio": None}
    result |= {"function_call": None, "tool_calls": [], "reasoning": texts["reasoning"] or None}
    if texts["name"]:
        function = {"name": texts["name"], "arguments": texts["arguments"]}
        result["tool_calls"] = [{"id": f"chatcmpl-tool-{uuid.uuid4().hex[:16]}", "type": "function", "function": function}]
        result["content"] = texts["content"] or None
    return result


def completion_logprobs(pieces: Sequence[Piece]) -> dict[str, Any]:
    """The `logprobs` of a completion."""
    texts = [piece.text for piece in pieces]
    values = [_logprob(text, position) for position, text in enumerate(texts)]
    offsets = [sum(map(len, texts[:position])) for position in range(len(texts))]
    tops = [{text: value} for text, value in zip(texts, values, strict=True)]
    return {"text_offset": offsets, "token_logprobs": values, "tokens": texts, "top_logprobs": tops}
