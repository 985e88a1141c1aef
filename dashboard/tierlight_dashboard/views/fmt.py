"""How numbers, money, times and foreign text are written. The only formatter module; every function is pure.

Unknown is None and is written "–", never 0 and never NaN. Minus signs are true minus signs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

UNKNOWN = "–"
MINUS = "−"
NANO = 1_000_000_000
LONGEST_NAME = 200

# What may not reach a screen as it is: controls, and characters that turn the reading direction.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True)
class Currency:
    """What money is shown in; `per_usd` units are worth one US dollar."""

    symbol: str = "$"
    per_usd: float = 1.0
    code: str = "USD"


USD = Currency()


def _signed(text: str, negative: bool) -> str:
    return (MINUS if negative else "") + text


def _is_unknown(x: float | None) -> bool:
    return x is None or not math.isfinite(x)


def exact(n: float | None) -> str:
    """A whole number in full, grouped by thousands.

    >>> exact(1204)
    '1,204'
    """
    if n is None or _is_unknown(n):
        return UNKNOWN
    return _signed(f"{abs(round(n)):,}", round(n) < 0)


def count(n: float | None) -> str:
    """A number of things, short: in full below 10,000, then k, M, B with two or three digits.

    >>> count(9999), count(865_400), count(8_912_000)
    ('9,999', '865k', '8.9M')
    """
    if n is None or _is_unknown(n):
        return UNKNOWN
    size = abs(n)
    if size < 10_000:
        return exact(n)
    for unit, name in ((1e3, "k"), (1e6, "M"), (1e9, "B"), (1e12, "T")):
        scaled = size / unit
        if scaled < 999.5 or name == "T":
            text = f"{scaled:.1f}".removesuffix(".0") if scaled < 99.95 else f"{scaled:,.0f}"
            return _signed(text + name, n < 0)
    raise AssertionError("the last unit takes everything")


def significant(x: float, digits: int = 2) -> str:
    """`x` >= 0 with that many significant digits, never in scientific notation.

    >>> significant(0.000012345), significant(0)
    ('0.000012', '0')
    """
    if x == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(x)))
    rounded = round(x, places)
    places = digits - 1 - math.floor(math.log10(abs(rounded))) if rounded else places
    return f"{rounded:,.{max(0, places)}f}"


def money(nusd: float | None, currency: Currency = USD) -> str:
    """Nano-dollars as money: no cents from 100 on, two decimals down to a cent, two digits below.

    >>> money(23_989_000_000_000), money(31_140_000_000), money(1_240_000), money(None)
    ('$23,989', '$31.14', '$0.0012', '–')
    """
    if nusd is None or _is_unknown(nusd):
        return UNKNOWN
    amount = nusd / NANO * currency.per_usd
    size = abs(amount)
    if size == 0:
        text = "0"
    elif size >= 99.995:
        text = f"{size:,.0f}"
    elif size >= 0.00995:
        text = f"{size:.2f}"
    else:
        text = significant(size)
    return _signed(currency.symbol + text, amount < 0 and text != "0")


def money_exact(nusd: float | None, currency: Currency = USD) -> str:
    """The same with every digit down to a thousandth of a cent, for titles and tables."""
    if nusd is None or _is_unknown(nusd):
        return UNKNOWN
    amount = nusd / NANO * currency.per_usd
    text = f"{abs(amount):,.5f}" if abs(amount) >= 0.01 or amount == 0 else significant(abs(amount), 4)
    return _signed(currency.symbol + text, amount < 0)


def per_thousand(nusd: float | None, calls: int) -> float | None:
    """Nano-dollars per 1,000 calls; None where there is no priced call.

    >>> per_thousand(2_000_000, 100)
    20000000.0
    """
    return None if nusd is None or calls <= 0 else nusd * 1000 / calls


def percent(share: float | None, digits: int = 1) -> str:
    """A rate: 0 and "almost 0" read differently, and so do 1 and "almost 1".

    >>> percent(0), percent(0.0004), percent(0.871), percent(0.99999)
    ('0%', '<0.1%', '87.1%', '>99.9%')
    """
    if share is None or _is_unknown(share):
        return UNKNOWN
    smallest = 10.0**-digits
    value = share * 100
    if 0 < value < smallest:
        return f"<{smallest:.{digits}f}%"
    if 100 - smallest < value < 100:
        return f">{100 - smallest:.{digits}f}%"
    text = f"{abs(value):.{digits}f}"
    text = text.removesuffix("." + "0" * digits) if value in (0, 100) else text
    return _signed(text + "%", value < 0 and float(f"{abs(value):.{digits}f}") != 0)


def points(diff: float | None, digits: int = 1) -> str:
    """A difference of two rates in percentage points, always with its sign.

    >>> points(-0.037), points(0.008)
    ('−3.7 pt', '+0.8 pt')
    """
    if diff is None or _is_unknown(diff):
        return UNKNOWN
    text = f"{abs(diff) * 100:.{digits}f}"
    sign = "" if float(text) == 0 else (MINUS if diff < 0 else "+")
    return f"{sign}{text} pt"


def change(now: float | None, before: float | None) -> str:
    """Relative change against `before`, with its sign; unknown where there is nothing to compare with.

    >>> change(112, 100), change(1, 0)
    ('+12%', '–')
    """
    if now is None or before is None or before <= 0 or not math.isfinite(now):
        return UNKNOWN
    ratio = now / before - 1
    if ratio >= 9.995:
        return f"{now / before:,.0f}×"
    text = f"{abs(ratio) * 100:.0f}"
    return ("" if text == "0" else MINUS if ratio < 0 else "+") + text + "%"


def duration(ms: float | None) -> str:
    """A length of time from milliseconds.

    >>> duration(0.4), duration(410), duration(2860), duration(125_000), duration(7_500_000)
    ('<1 ms', '410 ms', '2.9 s', '2 min 5 s', '2 h 5 min')
    """
    if ms is None or _is_unknown(ms):
        return UNKNOWN
    if ms < 0:
        return MINUS + duration(-ms)
    if ms == 0:
        return "0 ms"
    if ms < 1:
        return "<1 ms"
    if ms < 999.5:
        return f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = round(seconds / 60)
    if minutes < 2880:
        return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
    return f"{round(seconds / 86400)} days"


def size(nbytes: float | None) -> str:
    """Bytes in decimal units.

    >>> size(2_140_000)
    '2.1 MB'
    """
    if nbytes is None or _is_unknown(nbytes):
        return UNKNOWN
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.1f} {name}"
    return f"{nbytes:.0f} B"


def at(ns: int, zone: tzinfo) -> datetime:
    """The aware datetime of a nanosecond time in `zone` (to the microsecond)."""
    return datetime.fromtimestamp(ns // NANO, tz=UTC).replace(microsecond=ns % NANO // 1000).astimezone(zone)


def iso(ns: int | None, zone: tzinfo = UTC) -> str:
    """ISO 8601 with milliseconds and the zone's offset; "" where unknown."""
    return "" if ns is None else at(ns, zone).isoformat(timespec="milliseconds")


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def day(when: datetime) -> str:
    """The day as people write it: 17 Nov."""
    return f"{when.day} {_MONTHS[when.month - 1]}"


def moment(ns: int | None, zone: tzinfo, *, seconds: bool = False) -> str:
    """A point in time, absolute, 24 h: 17 Nov 09:00."""
    if ns is None:
        return UNKNOWN
    when = at(ns, zone)
    return f"{day(when)} {when:%H:%M:%S}" if seconds else f"{day(when)} {when:%H:%M}"


def moment_full(ns: int | None, zone: tzinfo) -> str:
    """The same with year and milliseconds, for one call: 2026-11-24 08:59:58.123."""
    if ns is None:
        return UNKNOWN
    when = at(ns, zone)
    return f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03d}"


def ago(ns: int | None, now_ns: int) -> str:
    """How long before now, in one unit: 40 s ago; 3 h ago."""
    if ns is None:
        return UNKNOWN
    seconds = (now_ns - ns) / NANO
    if seconds < 1:
        return "just now" if seconds > -60 else "in the future"
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name} ago"
    raise AssertionError("seconds >= 1 here")


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def visible(text: object, longest: int = LONGEST_NAME) -> str:
    """Foreign text made safe to read: controls and direction overrides as escapes, cut at `longest`.

    >>> visible("a\\u202eb")
    'a\\\\u202eb'
    """
    shown = str(text)
    cut = shown[: longest + 1]
    shown = _HIDDEN.sub(_escape, cut[:longest]).replace("\t", " ").replace("\n", "⏎")
    return shown + "…" if len(cut) > longest else shown


def readable(text: str) -> str:
    """Foreign text over several lines: like `visible`, but keeps its lines and its length."""
    return _HIDDEN.sub(_escape, text.replace("\r\n", "\n"))


def about(sentence: str, route: str) -> str:
    """A sentence for a place that names the route already.

    >>> about("Quality (ok) of a/b: 76.6 %, was 98.9 %", "a/b")
    'Quality (ok): 76.6 %, was 98.9 %'
    """
    if not route:
        return sentence
    for word in ("of", "on", "Keep", "Learning", "Hold"):
        sentence = sentence.replace(
            f"{word} {route}", f"{word} this route" if word in ("Keep", "Learning", "Hold") else ""
        )
    return sentence.replace("  ", " ").replace(" :", ":").replace(" .", ".").replace(" ,", ",")


def plural(n: int, one: str, many: str = "") -> str:
    """The number with its word: 1 call, 2 calls."""
    return f"{exact(n)} {one if n == 1 else many or one + 's'}"
