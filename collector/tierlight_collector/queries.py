"""How the API's parameters become filters, ranges and cursors; what means nothing is a `BadQuery`."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import Depends, HTTPException, Query
from pydantic import Field

from .records import Cursor, Filters, Purpose, TimeRange
from .shapes import Json, iso_time

DAY_NS: Final = 86_400_000_000_000
MAX_RANGE_DAYS: Final = 400

_T = TypeVar("_T")
Word = Annotated[str, Query(max_length=256)]
Words = Annotated[list[Annotated[str, Field(max_length=256)]], Query(max_length=100)]
Moment = Annotated[datetime | None, Query(description="ISO 8601; without a zone it is UTC")]


class BadQuery(HTTPException):
    """A parameter or body that means nothing here; the message says what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


def filters_of(
    env: Words = [],  # noqa: B006 - FastAPI copies it, here and below
    route: Words = [],  # noqa: B006
    provider: Words = [],  # noqa: B006
    model: Words = [],  # noqa: B006
    tier: Words = [],  # noqa: B006
    arm: Words = [],  # noqa: B006
    purpose: Annotated[list[Purpose], Query(max_length=5)] = ["production"],  # noqa: B006
) -> Filters:
    return Filters(
        env=tuple(env),
        route=tuple(route),
        provider=tuple(provider),
        model=tuple(model),
        tier=tuple(tier),
        arm=tuple(arm),
        purpose=tuple(purpose),
    )


def call_filters_of(
    base: Annotated[Filters, Depends(filters_of)],
    error: bool | None = None,
    unpriced: bool | None = None,
    q: Annotated[
        str, Query(max_length=256, description="exact trace, span, call, response, session or user id")
    ] = "",
    since: Annotated[Moment, Query(alias="from")] = None,
    until: Annotated[Moment, Query(alias="to")] = None,
) -> Filters:
    start_ns, end_ns = ns_of(since) if since else 0, ns_of(until) if until else 0
    if start_ns and end_ns and start_ns >= end_ns:
        raise BadQuery("expected from to be earlier than to")
    return Filters(
        env=base.env,
        route=base.route,
        provider=base.provider,
        model=base.model,
        tier=base.tier,
        arm=base.arm,
        purpose=base.purpose,
        error=error,
        unpriced=unpriced,
        text=q,
        start_ns=start_ns,
        end_ns=end_ns,
    )


def ns_of(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since_epoch = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (
        since_epoch.days * 86_400 + since_epoch.seconds
    ) * 1_000_000_000 + since_epoch.microseconds * 1_000


def range_of(since: datetime | None, until: datetime | None, now_ns: int) -> TimeRange:
    end_ns = ns_of(until) if until else now_ns
    start_ns = ns_of(since) if since else end_ns - 7 * DAY_NS
    if not 0 <= start_ns < end_ns:
        raise BadQuery("expected from to be earlier than to, and neither before 1970")
    if end_ns - start_ns > MAX_RANGE_DAYS * DAY_NS:
        raise BadQuery(f"expected a range of at most {MAX_RANGE_DAYS} days")
    return TimeRange(start_ns, end_ns)


def range_json(when: TimeRange) -> Json:
    return {"from": iso_time(when.start_ns), "to": iso_time(when.end_ns)}


def check_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadQuery("expected tz to be the name of a time zone, such as Europe/Berlin") from error


def id_of(text: str, length: int) -> bytes:
    if len(text) != 2 * length or not text.isascii() or not text.isalnum():
        raise HTTPException(404, "no such call")
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise HTTPException(404, "no such call") from error


# ---- cursors ---------------------------------------------------------------------------------------------


def _seal(place: str, query: str) -> str:
    return hashlib.sha256(f"{place}\n{query}".encode()).hexdigest()[:12]


def write_cursor(cursor: Cursor | None, query: str) -> str | None:
    if cursor is None:
        return None
    place = f"{cursor.value}.{cursor.seq}"
    return base64.urlsafe_b64encode(f"{place}.{_seal(place, query)}".encode()).decode().rstrip("=")


def read_cursor(text: str, query: str) -> Cursor | None:
    """Where the page before ended, None for the first page; a cursor of another query means nothing here."""
    if not text:
        return None
    try:
        place, _, seal = (
            base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii").rpartition(".")
        )
        value, _, seq = place.partition(".")
        cursor = Cursor(int(value), int(seq))
    except ValueError as error:
        raise BadQuery("cursor is not one that this API gave") from error
    if seal != _seal(place, query) or write_cursor(cursor, query) != text:
        raise BadQuery("cursor belongs to another query")
    return cursor


def page_of(rows: Sequence[_T], cursor: str, limit: int, *, query: str) -> tuple[Sequence[_T], str | None]:
    """A slice of a list that is short enough to be made whole."""
    after = read_cursor(cursor, query)
    start = after.seq if after else 0
    end = start + limit
    return rows[start:end], write_cursor(Cursor(0, end), query) if end < len(rows) else None
