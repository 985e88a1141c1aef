"""One chat, embedding or rerank request in the words of each provider's API. Pure: paths and JSON only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..errors import ConfigurationError
from .request import ModelRequest

_ANTHROPIC_MAX_TOKENS: Final = 4096  # the API insists on a number
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wire:
    """How one API is spoken: path and body of a request, its headers, and the chunks in its lines."""

    request: Callable[[str, ModelRequest, bool], tuple[str, Body]]
    headers: Callable[[str], dict[str, str]]
    chunks: Callable[[Iterable[str]], Iterator[Any]]


def _events(lines: Iterable[str]) -> Iterator[Any]:
    for line in lines:
        if line.startswith("data:"):
            data = line[5:].strip()
            if data and data != "[DONE]":
                yield json.loads(data)


def _json_lines(lines: Iterable[str]) -> Iterator[Any]:
    for line in lines:
        if line.strip():
            yield json.loads(line)


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _openai(model: str, request: ModelRequest, is_streaming: bool) -> tuple[str, Body]:
    if request.operation == "embeddings":
        return "/embeddings", {"model": model, "input": list(request.inputs), **request.settings}
    if request.operation == "rerank":
        return "/rerank", {
            "model": model,
            "query": request.query,
            "documents": list(request.inputs),
            **request.settings,
        }
    body: Body = {"model": model, "messages": list(request.messages), **request.settings}
    if is_streaming:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return "/chat/completions", body


def _system_of(request: ModelRequest) -> tuple[str, list[Mapping[str, Any]]]:
    """System messages as one text, and the others."""
    system = [str(one["content"]) for one in request.messages if one.get("role") in ("system", "developer")]
    return "\n\n".join(system), [
        one for one in request.messages if one.get("role") not in ("system", "developer")
    ]


def _anthropic(model: str, request: ModelRequest, is_streaming: bool) -> tuple[str, Body]:
    if request.operation != "chat":
        raise ConfigurationError(f"anthropic has no {request.operation}: choose another target for it")
    system, messages = _system_of(request)
    settings = dict(request.settings)
    body: Body = {"model": model, "messages": messages}
    body["max_tokens"] = settings.pop(
        "max_tokens", settings.pop("max_completion_tokens", _ANTHROPIC_MAX_TOKENS)
    )
    if system:
        body["system"] = system
    if "stop" in settings:
        stop = settings.pop("stop")
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if "tools" in settings:
        body["tools"] = [_anthropic_tool(tool) for tool in settings.pop("tools")]
    settings.pop(
        "response_format", None
    )  # the API has no such setting; the prompt and the validators ask for it
    if is_streaming:
        body["stream"] = True
    return "/messages", {**body, **settings}


def _anthropic_tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return tool
    return {
        "name": function["name"],
        "description": function.get("description", ""),
        "input_schema": function.get("parameters", {"type": "object"}),
    }


def _gemini(model: str, request: ModelRequest, is_streaming: bool) -> tuple[str, Body]:
    path = f"/models/{model}:"
    if request.operation == "embeddings":
        texts = [
            {"model": f"models/{model}", "content": {"parts": [{"text": text}]}} for text in request.inputs
        ]
        return f"{path}batchEmbedContents", {"requests": texts}
    if request.operation != "chat":
        raise ConfigurationError(f"gemini has no {request.operation}: choose another target for it")
    system, messages = _system_of(request)
    settings = dict(request.settings)
    config: Body = {}
    for ours, theirs in (
        ("max_tokens", "maxOutputTokens"), ("max_completion_tokens", "maxOutputTokens"), ("temperature", "temperature"),
        ("top_p", "topP"), ("seed", "seed"),
    ):  # fmt: skip
        if ours in settings:
            config[theirs] = settings.pop(ours)
    form = settings.pop("response_format", None)
    if form is not None and form.get("type") in ("json_object", "json_schema"):
        config["responseMimeType"] = "application/json"
    body: Body = {
        "contents": [
            {
                "role": "model" if one.get("role") == "assistant" else "user",
                "parts": [{"text": str(one["content"])}],
            }
            for one in messages
        ]
    }
    if system:
        body["systemInstruction"] = {"parts": [{"text": system}]}
    if config:
        body["generationConfig"] = config
    if "tools" in settings:
        functions = [tool.get("function", tool) for tool in settings.pop("tools")]
        body["tools"] = [{"functionDeclarations": functions}]
    method = "streamGenerateContent?alt=sse" if is_streaming else "generateContent"
    return path + method, {**body, **settings}


def _ollama(model: str, request: ModelRequest, is_streaming: bool) -> tuple[str, Body]:
    if request.operation == "embeddings":
        return "/api/embed", {"model": model, "input": list(request.inputs)}
    if request.operation != "chat":
        raise ConfigurationError(f"ollama has no {request.operation}: choose another target for it")
    settings = dict(request.settings)
    options: Body = {}
    for ours, theirs in (
        ("max_tokens", "num_predict"),
        ("temperature", "temperature"),
        ("top_p", "top_p"),
        ("seed", "seed"),
    ):
        if ours in settings:
            options[theirs] = settings.pop(ours)
    form = settings.pop("response_format", None)
    body: Body = {"model": model, "messages": list(request.messages), "stream": is_streaming, **settings}
    if options:
        body["options"] = options
    if form is not None:
        body["format"] = "json"
    return "/api/chat", body


WIRES: Final[Mapping[str, Wire]] = {
    "openai": Wire(_openai, _bearer, _events),
    "anthropic": Wire(
        _anthropic,
        lambda key: {"anthropic-version": "2023-06-01", **({"x-api-key": key} if key else {})},
        _events,
    ),
    "gemini": Wire(_gemini, lambda key: {"x-goog-api-key": key} if key else {}, _events),
    "ollama": Wire(_ollama, _bearer, _json_lines),
}
