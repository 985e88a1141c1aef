"""The words of every judgement: one place, so that page, alert message and export say the same.

Numbers are shown as a person reads them: rates in percent, differences of rates in points (pt), money with
two significant digits below a cent and without cents from a hundred dollars on, a true minus sign.
"""

from __future__ import annotations

NUSD = 1_000_000_000


def money(nusd: float) -> str:
    """Nano-dollars as dollars.

    >>> money(4_078_300_000_000), money(12_340_000_000), money(340), money(-2_500_000_000)
    ('$4,078', '$12.34', '$0.00000034', '−$2.50')
    """
    usd = abs(nusd) / NUSD
    sign = "−" if nusd < 0 else ""
    if usd == 0:
        return "$0"
    if usd >= 100:
        return f"{sign}${usd:,.0f}"
    if usd >= 0.01:
        return f"{sign}${usd:,.2f}"
    return f"{sign}${_two_digits(usd)}"


def _two_digits(value: float) -> str:
    places = 1
    while value * 10**places < 10 and places < 12:
        places += 1
    return f"{value:.{places}f}".rstrip("0").rstrip(".")


def percent(share: float) -> str:
    """A share as percent with one decimal.

    >>> percent(0.871), percent(1.0)
    ('87.1 %', '100.0 %')
    """
    return f"{share * 100:.1f} %"


def points(difference: float, unit: str = " pt") -> str:
    """A difference of shares in points, always signed.

    >>> points(-0.037), points(0.008, "")
    ('−3.7 pt', '+0.8')
    """
    value = difference * 100
    return f"{'−' if value < 0 else '+'}{abs(value):.1f}{unit}"


def count(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    >>> count(1, "call"), count(1204, "call")
    ('1 call', '1,204 calls')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def days(number: float) -> str:
    """A waiting time in days, rounded up to what a person plans with.

    >>> days(0.3), days(6.2), days(45)
    ('less than a day', '7 days', '45 days')
    """
    if number < 1:
        return "less than a day"
    whole = int(number) + (number > int(number))
    return count(whole, "day")
