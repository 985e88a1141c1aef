"""What is left to do with a finished record away from the calling thread: redact, price, encode."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tierlight import semconv
from tierlight._encode import Encoder
from tierlight._guard import report
from tierlight._lifecycle import imports
from tierlight._record import ExportSettings, FinishedCall, Record
from tierlight._version import __version__

if TYPE_CHECKING:
    from tierlight.pricing import PriceBook

log = logging.getLogger("tierlight")


class Finisher:
    """Turns records into encoded spans and log records; belongs to one thread."""

    def __init__(self, settings: ExportSettings) -> None:
        self._settings = settings
        self._encoder = Encoder(settings.resource or {}, __version__)
        self._book: PriceBook | None = None
        self._is_priced = settings.price

    def load_prices(self) -> None:
        """Load the price book (about 0.2 s, once); a fault leaves pricing to the collector."""
        if self._book is not None or not self._is_priced:
            return
        try:
            with imports:
                from tierlight._cost import add_call_cost, add_cost
                from tierlight.pricing import PriceBook, Usage

                path = self._settings.price_file
                book = PriceBook.from_toml(Path(path).read_bytes()) if path else PriceBook.default()
                _ = book.version  # loads every source now
            self._book, self._usage = book, Usage
            self._add_cost, self._add_call_cost = add_cost, add_call_cost
        except Exception as error:  # noqa: BLE001  a broken price file must not stop the export
            self._is_priced = False
            report("load the prices", error)

    def encoded(self, record: Record, lost_before: Mapping[str, int], max_bytes: int) -> bytes | str:
        """The record as a tagged `Span` or `LogRecord`, or why it is lost: `serialize`, `too_large`.

        Args:
            lost_before: spans lost and not yet reported, by reason: this span will tell.
        """
        attributes = record.attributes
        if record.prepare is not None:
            try:
                record.prepare(record)  # type: ignore[arg-type]  # a record's own function takes its own kind
            except Exception as error:  # noqa: BLE001  the user's redactor may raise anything
                report("redact the contents", error)
                drop_contents(record, "redaction_failed")
                attributes[semconv.TIERLIGHT_INSTRUMENTATION_ERROR] = f"redaction: {type(error).__name__}"
            record.prepare = None
        if not isinstance(record, FinishedCall):
            return self._log(record)
        if self._book is not None:
            try:
                if record.attempts is None:
                    self._add_cost(record, self._book, self._usage, self._settings.draft_cost)
                else:
                    self._add_call_cost(record, self._book, self._usage)
            except Exception as error:  # noqa: BLE001  a call without a price is still a call
                report("price a call", error)
                attributes[semconv.TIERLIGHT_INSTRUMENTATION_ERROR] = f"price: {type(error).__name__}"
        if lost_before:
            attributes[semconv.TIERLIGHT_SDK_DROPPED] = sum(lost_before.values())
            attributes[semconv.TIERLIGHT_SDK_DROPPED_REASON] = ",".join(
                f"{reason}:{count}" for reason, count in sorted(lost_before.items())
            )
        return self._span(record, max_bytes)

    def request(self, items: list[bytes]) -> bytes:
        """Encoded items of one kind as one export request."""
        return self._encoder.request(items)

    def _log(self, record: Record) -> bytes | str:
        try:
            return self._encoder.log(record)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001  one bad score must not take the batch with it
            report("encode a score", error)
            return "serialize"

    def _span(self, call: FinishedCall, max_bytes: int) -> bytes | str:
        try:
            encoded = self._encoder.span(call)
            if len(encoded) > max_bytes:
                drop_contents(call, "size")
                encoded = self._encoder.span(call)
        except Exception as error:  # noqa: BLE001  one bad record must not take the batch with it
            report("encode a call", error)
            return "serialize"
        return encoded if len(encoded) <= max_bytes else "too_large"


def drop_contents(record: Record, reason: str) -> None:
    """Take the captured texts off a record and say so on it; the figures stay."""
    attributes = record.attributes
    for key in semconv.CONTENT_ATTRIBUTES:
        attributes.pop(key, None)
    attributes[semconv.TIERLIGHT_CONTENT_DROPPED] = reason
    record.prepare = None
    if isinstance(record, FinishedCall):
        record.message = ""
        record.content_bytes = 0
