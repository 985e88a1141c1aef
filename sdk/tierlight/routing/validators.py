"""Checks of an answer that decide whether a cascade escalates. A verdict never holds text of the answer."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .._messages import answer_messages, text_of
from .._usage import fields, usage_from
from .declared import ValidatorSpec
from .request import ModelRequest

_BAD_ENDINGS: Final = frozenset(
    {
        "length",
        "max_tokens",
        "MAX_TOKENS",
        "content_filter",
        "SAFETY",
        "refusal",
        "RECITATION",
        "PROHIBITED_CONTENT",
    }
)
_REFUSAL: Final = re.compile(
    r"^\W*(i['’]?m (really )?sorry|i (can(['’]t|not)|am unable to|won['’]t)|sorry, (but )?i|as an ai\b|unfortunately, i can)",
    re.IGNORECASE,
)
_JSON_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a validator sees: the provider's response and its text."""

    response: Any
    text: str

    @classmethod
    def of(cls, response: Any) -> Answer:
        """The answer in any response that is understood."""
        return cls(response, text_of(response))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check found; `passed` is None where it could not judge."""

    name: str
    passed: bool | None
    detail: str = ""
    score: float | None = None
    duration_ms: float = 0.0

    @property
    def word(self) -> str:
        """pass, fail or error."""
        return "error" if self.passed is None else "pass" if self.passed else "fail"


Check = Callable[[ModelRequest, Answer], "Verdict | bool | float"]


def check(spec: ValidatorSpec, request: ModelRequest, answer: Answer, own: Mapping[str, Check]) -> Verdict:
    """Run one check that is not a judge.

    Args:
        own: the application's functions, by the name that `kind = "callable"` gives.
    """
    start = time.perf_counter()
    try:
        verdict = _verdict(spec, request, answer, own)
    except Exception as error:  # noqa: BLE001  a validator of the user's may raise anything
        verdict = Verdict(spec.kind, None, type(error).__name__)
    return Verdict(
        verdict.name, verdict.passed, verdict.detail, verdict.score, (time.perf_counter() - start) * 1000
    )


def _verdict(spec: ValidatorSpec, request: ModelRequest, answer: Answer, own: Mapping[str, Check]) -> Verdict:
    kind, options = spec.kind, spec.options
    match kind:
        case "json":
            return Verdict(
                kind,
                _parsed(answer.text) is not _NO_JSON,
                "it parses" if _parsed(answer.text) is not _NO_JSON else "it does not parse",
            )
        case "json_schema":
            found = _parsed(answer.text)
            problem = "it does not parse" if found is _NO_JSON else schema_problem(found, options["schema"])
            return Verdict(kind, not problem, problem)
        case "regex":
            return Verdict(kind, re.search(options["pattern"], answer.text) is not None)
        case "max_length":
            return Verdict(kind, len(answer.text) <= options["value"], f"{len(answer.text)} characters")
        case "min_length":
            return Verdict(kind, len(answer.text) >= options["value"], f"{len(answer.text)} characters")
        case "one_of":
            labels = {str(one).strip().casefold() for one in options["labels"]}
            return Verdict(kind, answer.text.strip().strip(".\"'").casefold() in labels)
        case "not_refusal":
            facts = usage_from(answer.response)
            return Verdict(
                kind, not (facts is not None and facts.is_refusal) and _REFUSAL.search(answer.text) is None
            )
        case "finish_reason":
            facts = usage_from(answer.response)
            if facts is None or not facts.finish_reasons:
                return Verdict(kind, None, "the answer has no finish reason")
            return Verdict(kind, facts.finish_reasons[0] not in _BAD_ENDINGS, facts.finish_reasons[0])
        case "tool_call":
            problem = _tool_problem(answer, options["tools"])
            return Verdict(kind, not problem, problem)
        case "min_margin" | "min_logprob":
            value = _margin(answer) if kind == "min_margin" else _mean_logprob(answer)
            if value is None:
                return Verdict(kind, None, "the answer does not say")
            return Verdict(kind, value >= options["value"], f"{value:.3f}")
        case "callable":
            return _own(options["name"], own, request, answer)
        case _:
            return Verdict(kind, None, "no such check")


def _own(name: str, own: Mapping[str, Check], request: ModelRequest, answer: Answer) -> Verdict:
    if name not in own:
        return Verdict(name, None, "the application gave no function of that name")
    found = own[name](request, answer)
    if isinstance(found, Verdict):
        return found
    if isinstance(found, bool):
        return Verdict(name, found)
    return Verdict(name, found >= 0.5, score=float(found))


_NO_JSON: Final = object()


def _parsed(text: str) -> Any:
    stripped = text.strip()
    if stripped.startswith("```"):
        stripped = stripped.strip("`").removeprefix("json").strip()
    try:
        return json.loads(stripped)
    except ValueError:
        return _NO_JSON


def schema_problem(value: Any, schema: Mapping[str, Any], path: str = "$") -> str:
    """What is wrong by a JSON schema of type, required, properties, items, enum, additionalProperties; "" if nothing.

    >>> schema_problem({"total": "12"}, {"type": "object", "properties": {"total": {"type": "number"}}})
    '$.total is string, expected number'
    """
    wanted = schema.get("type")
    names = [wanted] if isinstance(wanted, str) else list(wanted or ())
    if names and not any(_is(value, name) for name in names):
        actual = next((name for name in _JSON_TYPES if _is(value, name)), "unknown")
        return f"{path} is {actual}, expected {' or '.join(names)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{path} is not one of the allowed values"
    if isinstance(value, dict):
        known = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                return f"{path}.{name} is missing"
        for name, inner in value.items():
            if name in known:
                problem = schema_problem(inner, known[name], f"{path}.{name}")
                if problem:
                    return problem
            elif schema.get("additionalProperties") is False:
                return f"{path} has a property that is not allowed"
    if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        for n, inner in enumerate(value):
            problem = schema_problem(inner, schema["items"], f"{path}[{n}]")
            if problem:
                return problem
    return ""


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool) and name in ("number", "integer"):
        return False
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _JSON_TYPES.get(name, (object,)))


def _tool_problem(answer: Answer, tools: Any) -> str:
    known = {
        str(one["name"]): one.get("parameters", {}) for one in (tool.get("function", tool) for tool in tools)
    }
    calls = [
        part
        for message in answer_messages(answer.response)
        for part in message["parts"]
        if part["type"] == "tool_call"
    ]
    if not calls:
        return "no tool is called"
    for call in calls:
        if call["name"] not in known:
            return "an unknown tool is called"
        arguments = call["arguments"]
        if isinstance(arguments, str):
            arguments = _parsed(arguments)
        if not isinstance(arguments, Mapping):
            return "the arguments are no object"
        problem = schema_problem(dict(arguments), {"additionalProperties": False, **known[call["name"]]})
        if problem:
            return problem
    return ""


def _margin(answer: Answer) -> float | None:
    value = fields(answer.response).get("margin")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _mean_logprob(answer: Answer) -> float | None:
    choices = fields(answer.response).get("choices") or ()
    for choice in choices:
        tokens = fields(fields(choice).get("logprobs")).get("content") or ()
        values = [fields(token).get("logprob") for token in tokens]
        known = [float(value) for value in values if isinstance(value, int | float)]
        if known:
            return sum(known) / len(known)
    return None


JUDGE_PROMPT: Final = (
    "Judge the answer below by this rubric: {rubric}\n\nRequest:\n{request}\n\nAnswer:\n{answer}\n\n"
    "Reply with one number from 0 (bad) to 10 (perfect) and nothing else."
)
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")


def judge_request(spec: ValidatorSpec, request: ModelRequest, answer: Answer) -> ModelRequest:
    """What the judge is asked."""
    asked = "\n".join(str(message.get("content", "")) for message in request.messages)
    prompt = JUDGE_PROMPT.format(rubric=spec.options["rubric"], request=asked, answer=answer.text)
    return ModelRequest(
        messages=({"role": "user", "content": prompt},), settings={"max_tokens": 8, "temperature": 0}
    )


def judge_verdict(spec: ValidatorSpec, response: Any) -> Verdict:
    """What the judge says; None where it names no number."""
    found = _NUMBER.search(text_of(response))
    if found is None or float(found[0]) > 10:
        return Verdict("judge", None, "the judge named no number from 0 to 10")
    score = float(found[0]) / 10
    return Verdict("judge", score >= spec.options["value"], f"{score:g}", score)
