"""The ends of one stream, and the call that ends with it: once, by whatever comes first.

Only the first and last chunks are kept, so that memory does not grow with the stream.
"""

from __future__ import annotations

import atexit
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from ._call import Call
from ._chunks import facts_from_chunks
from ._content import Frozen
from ._guard import attempt, guarded
from ._judge import consider
from ._messages import MAX_TEXT, text_of_chunk
from ._usage import ResponseFacts, usage_from
from ._validate import run_checks

HEAD: Final = 4  # model, id, prompt tokens and the start of a refusal
TAIL: Final = 6  # finish reason and totals, also where a helper adds events of its own


class Tap:
    """The ends of one stream, and its call."""

    __slots__ = ("__weakref__", "_characters", "_texts", "_watch", "call", "head", "keep", "tail")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.head: list[object] = []
        self.tail: deque[object] = deque(maxlen=TAIL)
        self._watch: _Watch | None = None
        self._texts: list[str] = []
        self._characters = 0
        self.keep: Callable[[object], None] = self._hear if call.wants_text else self.tail.append

    def _hear(self, chunk: object) -> None:
        """Keep a chunk, and its text for those who want to look at the whole answer."""
        self.tail.append(chunk)
        if self._characters < MAX_TEXT:
            text = attempt("read a chunk's text", text_of_chunk, chunk)[1]
            if text:
                self._texts.append(text)
                self._characters += len(text)

    def _take_text(self, is_complete: bool) -> None:
        call = self.call
        if not call.wants_text:
            return
        text = "".join(self._texts)[:MAX_TEXT]
        self._texts.clear()
        if call.captures_content and text:
            call.output = Frozen([{"role": "assistant", "parts": [{"type": "text", "content": text}]}])
        if is_complete:
            if call.checks:
                run_checks(call, text)
            if call.asked is not None:
                consider(call, text)

    def begin(self, chunk: object) -> None:
        """Take one of the first chunks."""
        if not self.head:
            self.call.first_chunk()
        self.head.append(chunk)

    def take(self, chunk: object) -> None:
        """Take any chunk."""
        if len(self.head) < HEAD:
            self.begin(chunk)
        self.keep(chunk)

    def watch(self, stream: object) -> None:
        """End the call when the stream object is collected or the process ends, at the latest."""
        if not _watched:
            # At the first stream, so after the pipeline's own hook: it runs before that one.
            atexit.unregister(_abandon_all)
            atexit.register(_abandon_all)
        watch = _Watch(stream, _collected)
        watch.tap = self
        self._watch = _watched[id(watch)] = watch

    def complete(self, result: object = None) -> None:
        """The stream was read to its end."""
        self._let_go()
        self._take_text(True)
        facts = self._facts(True)
        if facts is None and result is not None:
            facts = usage_from(result)
        self.call.succeed(facts, result)

    def fail(self, error: BaseException) -> None:
        """Reading the stream raised."""
        self._let_go()
        self._take_text(False)
        self.call.fail(error, self._facts(False))

    def abandon(self) -> None:
        """Nobody reads on."""
        self._let_go()
        self._take_text(False)
        self.call.abandon(self._facts(False))

    def _let_go(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            _watched.pop(id(watch), None)

    @guarded("read the end of a stream")
    def _facts(self, is_complete: bool) -> ResponseFacts | None:
        head, tail = self.head, self.tail
        self.head, self.tail = [None], deque(maxlen=1)  # the chunks are not needed after this
        if len(head) < HEAD:
            return facts_from_chunks(head, is_complete)
        known = {id(chunk) for chunk in head}
        return facts_from_chunks([*head, *(one for one in tail if id(one) not in known)], is_complete)


class _Watch(weakref.ref[Any]):
    __slots__ = ("tap",)
    tap: Tap


# Streams under way, by the id of their watch: a stream itself need not have a hash.
# Not `weakref.finalize`, which does the same for 3 us more a stream.
_watched: dict[int, _Watch] = {}


def _collected(watch: weakref.ref[Any]) -> None:
    known = _watched.pop(id(watch), None)
    if known is not None:
        known.tap.abandon()


def _abandon_all() -> None:
    for watch in list(_watched.values()):
        watch.tap.abandon()


class WatchingTap(Tap):
    """Leaves the call open: what the stream said is only kept for the call's own end."""

    __slots__ = ()

    def complete(self, result: object = None) -> None:
        """Keep what the whole stream said."""
        self._keep(True)

    def fail(self, error: BaseException) -> None:
        """Keep what had arrived; the error goes its own way."""
        self._keep(False)

    def abandon(self) -> None:
        """Keep what had arrived."""
        self._keep(False)

    def _keep(self, is_complete: bool) -> None:
        self._let_go()
        facts = self._facts(is_complete)
        if facts is not None:
            self.call.take_facts(facts)
