"""What was said in a call: messages by role, from whatever shape they were captured in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from . import fmt

MOST_TEXT = 20_000  # characters of one message on a page
_MASK = re.compile(r"\[redacted:([\w-]{1,40})\]")


@dataclass(frozen=True, slots=True)
class Message:
    """What one role said; tool calls apart, folded. `whole` is the text before it was cut for the page."""

    role: str
    whole: str
    tools: tuple[tuple[str, str], ...]
    is_cut_at_source: bool

    @property
    def is_cut(self) -> bool:
        return len(self.whole) > MOST_TEXT

    @property
    def pieces(self) -> list[tuple[str, bool]]:
        """The text as (piece, is it a mask); a mask says what it hides, such as `email`."""
        parts = _MASK.split(self.whole[:MOST_TEXT])
        return [(part, bool(at % 2)) for at, part in enumerate(parts) if part]

    @property
    def masks(self) -> int:
        return len(_MASK.findall(self.whole)) + sum(len(_MASK.findall(body)) for _, body in self.tools)


def plain(value: object) -> str:
    """A value of any shape as text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str):
        return value
    return json.dumps(value, default=repr, ensure_ascii=False)


def read_messages(body: str, role: str, truncated: bool) -> list[Message]:
    """Messages from a captured body: the conventions' JSON, a plain list of role and content, or plain text."""
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = body
    if isinstance(parsed, Mapping) and isinstance(parsed.get("messages"), list):
        parsed = parsed["messages"]
    if isinstance(parsed, list) and parsed and all(isinstance(m, Mapping) for m in parsed):
        if all("type" in m and "role" not in m for m in parsed):  # bare parts
            return [_message(role, parsed, truncated)]
        return [
            _message(str(m.get("role", role)), m.get("parts", m.get("content", "")), truncated)
            for m in parsed
        ]
    return [_message(role, parsed, truncated)]


def _message(role: str, content: object, truncated: bool) -> Message:
    texts: list[str] = []
    tools: list[tuple[str, str]] = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, Mapping):
            kind = str(part.get("type", ""))
            if kind.startswith("tool"):
                name = str(part.get("name") or part.get("id") or kind)
                body = part.get(
                    "arguments", part.get("response", part.get("result", part.get("content", "")))
                )
                tools.append((fmt.visible(f"{kind}: {name}", 80), fmt.readable(plain(body))))
                continue
            text = part.get("content", part.get("text"))
            texts.append(text if isinstance(text, str) else plain(part))
        else:
            texts.append(plain(part))
    return Message(fmt.visible(role, 40), fmt.readable("\n".join(texts)), tuple(tools), truncated)
