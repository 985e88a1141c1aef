"""A provider's invoice against what was traced: billed minus stored cost, by provider, period and (if told) model.

The bill is the authority. Traced below billed means calls that send no spans, or prices that are too low; traced above
billed means discounts, credits, or prices that are too high.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from .errors import BadRequest
from .normalise.models import family
from .normalise.providers import canonical

_PERIODS: Final = ("day", "date", "month", "period")
_AMOUNTS: Final = ("amount_usd", "amount", "cost_usd", "cost", "total")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_MONTH: Final = re.compile(r"\d{4}-\d{2}")
_NANO: Final = Decimal(1_000_000_000)
NO_MODEL: Final = "(unknown)"

Key = tuple[str, str, str]  # period, provider, model family ("" = all models)


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """What a provider charged for a day or a month; `model` "" = for all of them."""

    period: str
    provider: str
    model: str
    nusd: int


@dataclass(frozen=True, slots=True)
class Traced:
    """What the store holds of one day, provider and model."""

    day: str
    provider: str
    model: str
    calls: int
    unpriced: int
    nusd: int


@dataclass(frozen=True, slots=True)
class Reconciled:
    """One line of the comparison; `billed_nusd` None = traced, and not on the invoice."""

    period: str
    provider: str
    model: str
    billed_nusd: int | None
    traced_nusd: int
    calls: int
    unpriced: int

    @property
    def difference_nusd(self) -> int | None:
        """Billed minus traced."""
        return None if self.billed_nusd is None else self.billed_nusd - self.traced_nusd

    @property
    def share(self) -> float | None:
        """The difference as a part of the bill; None where nothing was billed."""
        difference = self.difference_nusd
        return difference / self.billed_nusd if difference is not None and self.billed_nusd else None


def read_invoice(text: str) -> list[InvoiceLine]:
    """The lines of a CSV file with the columns `provider`, `day` or `month`, `amount` in USD, and perhaps `model`.

    Raises:
        BadRequest: a column is missing, or a line's value is not as expected; the message names line and column.
    """
    rows = csv.DictReader(io.StringIO(text.lstrip("﻿")), skipinitialspace=True)
    names = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
    period = next((names[name] for name in _PERIODS if name in names), None)
    amount = next((names[name] for name in _AMOUNTS if name in names), None)
    if "provider" not in names or period is None or amount is None:
        raise BadRequest(
            "expected the columns provider, day or month, amount (and perhaps model, currency), got "
            + (", ".join(names) or "none")
        )
    found = []
    for number, row in enumerate(rows, 2):
        said = {name: (row.get(column) or "").strip() for name, column in names.items()}
        currency = said.get("currency", "").upper()
        if currency not in ("", "USD"):
            raise BadRequest(
                f"line {number}: expected currency USD, got {currency}: convert the invoice first"
            )
        when = (row.get(period) or "").strip()
        if not (_DAY.fullmatch(when) or _MONTH.fullmatch(when)):
            raise BadRequest(f"line {number}: expected {period} as 2026-11 or 2026-11-24, got {when!r}")
        if not said["provider"]:
            raise BadRequest(f"line {number}: expected a provider, got none")
        found.append(
            InvoiceLine(
                when,
                canonical(said["provider"]),
                family(said["model"]) if said.get("model") else "",
                _nusd((row.get(amount) or "").strip(), number, amount),
            )
        )
    return found


def reconcile(lines: Iterable[InvoiceLine], traced: Iterable[Traced]) -> list[Reconciled]:
    """The invoice beside what was traced, each at the detail of the invoice, by period, provider and model.

    A provider that names models in a period is compared model by model, and its traced models that no line names are
    added. Providers and periods without a line are left out: other invoices speak of them.
    """
    billed: dict[Key, int] = defaultdict(int)
    for line in lines:
        billed[line.period, line.provider, line.model] += line.nusd
    sums: dict[Key, list[int]] = {key: [0, 0, 0] for key in billed}
    by_model = {(period, provider) for period, provider, model in billed if model}
    for each in traced:
        for period in (each.day, each.day[:7]):
            keys = [(period, each.provider, "")]
            if (period, each.provider) in by_model:
                keys.append((period, each.provider, family(each.model) or NO_MODEL))
            for key in keys:
                if key in billed or (key[2] and key[:2] in by_model):
                    total = sums.setdefault(key, [0, 0, 0])
                    total[0] += each.nusd
                    total[1] += each.calls
                    total[2] += each.unpriced
    return [Reconciled(*key, billed.get(key), *total) for key, total in sorted(sums.items())]


def _nusd(text: str, number: int, column: str) -> int:
    try:
        value = Decimal(text.replace(",", "").removeprefix("$"))
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise BadRequest(f"line {number}: expected {column} as a number of US dollars, got {text!r}")
    return int((value * _NANO).to_integral_value())
