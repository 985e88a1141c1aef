"""Models and prices: what each costs, which price was used, how old it is, and when a model is retired."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cached_property

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tierlight.pricing import PriceRow
from tierlight_collector.prices import OwnPrice, own_prices
from tierlight_collector.records import Rollup
from tierlight_collector.rollup import total

from ..analysis.verdict import Quality, quality_of
from . import charts, fmt
from .csvout import Cell, csv_response, json_response
from .priceform import AMOUNTS, Sent, register
from .recost import Course
from .routetable import Figures
from .shell import Formats
from .site import Panel, Site
from .urlstate import PAGE_ROWS, State

HEADS = (
    "provider", "model", "tier", "calls", "unpriced_calls", "cost_usd", "input_usd_per_m", "cached_usd_per_m", "output_usd_per_m", "valid_from", "price_source",
    "price_version", "retires", "routes", "quality", "p95_ms",
)  # fmt: skip
SOON_DAYS = 60


@dataclass(frozen=True, slots=True)
class ModelRow(Figures):
    """One model that was used, with its present price."""

    provider: str
    model: str
    tier: str
    sums: Rollup
    routes: tuple[str, ...]
    price: PriceRow | None
    retires: date | None
    quality: Quality | None


class Models:
    """Models in use, unknown prices first, and the price book itself."""

    def __init__(self, site: Site, state: State, formats: Formats, sent: Sent | None = None) -> None:
        self.site, self.state, self.f = site, state, formats
        self.sent = sent or Sent()

    @property
    def recost(self) -> Course:
        return self.site.recost.course

    @cached_property
    def own(self) -> list[OwnPrice]:
        """The prices set on this page, by model."""
        return sorted(own_prices(self.site.store.settings()), key=lambda row: row.key)

    def is_sent(self, row: ModelRow) -> bool:
        """Whether the form that was not accepted is the one of this model."""
        return bool(self.sent.model) and (self.sent.provider, self.sent.model) == (row.provider, row.model)

    def typed(self, row: ModelRow, name: str) -> str:
        return self.sent.typed.get(name, "") if self.is_sent(row) else ""

    def wrong(self, row: ModelRow, name: str) -> str:
        return self.sent.errors.get(name, "") if self.is_sent(row) else ""

    @property
    def done(self) -> str:
        return {
            "priced": "Saved. Calls that come from now on are priced by it.",
            "removed": "Taken back. Calls that come from now on are priced without it.",
        }.get(self.state.get("done"), "")

    @cached_property
    def today(self) -> date:
        return fmt.at(self.site.now_ns, self.state.zone).date()

    @cached_property
    def used(self) -> Panel[list[ModelRow]]:
        return self.site.panel(self.rows)

    def rows(self) -> list[ModelRow]:
        parts = self.site.rollups(
            self.state.window, ("route", "provider", "model", "tier"), self.state.where()
        )
        groups: dict[tuple[str, str, str], list[Rollup]] = {}
        for part in parts:
            groups.setdefault((part.key[1], part.key[2], part.key[3]), []).append(part)
        rows = []
        for (provider, model, tier), pieces in groups.items():
            sums = total(pieces)
            named = bool(model)
            rows.append(
                ModelRow(
                    provider, model, tier, sums, tuple(sorted({p.key[0] for p in pieces})),
                    self.site.book.quote(provider, model, self.site.now_ns) if named else None,
                    self.site.book.retirement(provider, model) if named else None,
                    quality_of(sums),
                )
            )  # fmt: skip
        return sorted(rows, key=lambda r: (r.price is not None, -r.sums.cost_nusd, -r.sums.calls, r.model))

    @property
    def unpriced(self) -> list[ModelRow]:
        return [r for r in self.used.value or [] if r.sums.unpriced]

    @property
    def unpriced_share(self) -> float | None:
        rows = self.used.value or []
        calls = sum(r.sums.calls for r in rows)
        return sum(r.sums.unpriced for r in rows) / calls if calls else None

    @property
    def retiring(self) -> list[ModelRow]:
        rows = [
            r for r in self.used.value or [] if r.retires is not None and (r.retires - self.today).days <= 365
        ]
        return sorted(rows, key=lambda r: r.retires or date.max)

    def days_to(self, day: date) -> int:
        return (day - self.today).days

    @property
    def is_soon(self) -> bool:
        return any(self.days_to(r.retires) <= SOON_DAYS for r in self.retiring if r.retires is not None)

    @property
    def book_age_days(self) -> int:
        return (self.today - self.site.book.as_of).days

    @property
    def book_version(self) -> str:
        return self.site.book.version

    @cached_property
    def scatter(self) -> charts.Chart:
        """Cost per 1,000 calls against quality, a dot a model."""
        points = [
            (
                fmt.visible(r.model, 30),
                r.per_1k_nusd / fmt.NANO,
                r.quality.interval.mean,
                r.sums.calls,
                f"t-{r.tier or 'none'}",
            )
            for r in self.used.value or []
            if r.per_1k_nusd and r.quality is not None and r.quality.interval.n >= 10
        ]
        return charts.scatter(
            points,
            lambda usd: self.f.money(usd * fmt.NANO).removesuffix(".00"),
            lambda v: fmt.percent(v, 0),
            label=f"Cost per 1,000 calls against quality of {len(points)} models with at least 10 scores; cheaper is left, better is up.",
        )

    @property
    def scatter_rows(self) -> list[tuple[str, str, str, str]]:
        """The dots of the chart as a table."""
        return [
            (
                fmt.visible(r.model, 60),
                self.f.money(r.per_1k_nusd),
                fmt.percent(r.quality.interval.mean),
                fmt.exact(r.sums.calls),
            )
            for r in self.used.value or []
            if r.per_1k_nusd and r.quality is not None and r.quality.interval.n >= 10
        ]

    # ---- the whole book ----------------------------------------------------------------------------------

    @cached_property
    def book(self) -> list[PriceRow]:
        wanted = self.state.get("q").casefold()
        if not wanted:
            return []
        return [r for r in self.site.book.rows() if wanted in f"{r.provider} {r.model}".casefold()][
            :PAGE_ROWS
        ]

    def cells(self) -> Iterator[tuple[Cell, ...]]:
        for r in self.rows():
            p = r.price
            yield (
                r.provider, r.model, r.tier, r.sums.calls, r.sums.unpriced, None if r.cost_nusd is None else r.cost_nusd / fmt.NANO,
                *((None,) * 3 if p is None else (_number(p.input_usd), _number(p.cached_usd), _number(p.output_usd))),
                "" if p is None or p.valid_from is None else p.valid_from.isoformat(), "" if p is None else p.source, "" if p is None else p.version,
                "" if r.retires is None else r.retires.isoformat(), " ".join(r.routes), None if r.quality is None else r.quality.interval.mean, r.p95,
            )  # fmt: skip


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def dollars(value: Decimal | None) -> str:
    """A price per million tokens, with all its digits and at least two decimals.

    >>> dollars(Decimal("0.5")), dollars(Decimal("0.0025")), dollars(None)
    ('$0.50', '$0.0025', '–')
    """
    if value is None:
        return fmt.UNKNOWN
    whole, _, part = f"{value.normalize():f}".partition(".")
    return f"${whole}.{part:0<2}"


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    def model(request: Request) -> tuple[State, Models]:
        state = site.state(request)
        return state, Models(site, state, site.formats(state))

    def show(request: Request, sent: Sent | None) -> Response:
        state = site.state(request)
        page = Models(site, state, site.formats(state), sent)
        return site.render(
            request, "models.html", state=state, page="models", title="Models and prices", blocks=("book", "recost"), status=422 if sent else 200,
            model={"p": page, "dollars": dollars, "amounts": AMOUNTS},
        )  # fmt: skip

    @pages.get("/models")
    def models(request: Request) -> Response:
        return show(request, None)

    register(pages, site, show)

    @pages.get("/chart/models.svg")
    def scatter(request: Request) -> Response:
        return site.svg(model(request)[1].scatter, "Cost per 1,000 calls against quality", "models")

    @pages.get("/models.csv")
    def as_csv(request: Request) -> Response:
        return csv_response("models", HEADS, model(request)[1].cells())

    @pages.get("/models.json")
    def as_json(request: Request) -> Response:
        return json_response(HEADS, model(request)[1].cells())

    return pages
