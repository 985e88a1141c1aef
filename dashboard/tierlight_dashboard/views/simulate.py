"""What-if: all on one flagship, as it was, as proposed. Recomputed from stored sums, nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tierlight_collector.records import Rollup

from ..analysis.policytext import Move, policy_text
from ..analysis.whatif import (
    Choice,
    Line,
    RouteUse,
    WhatIf,
    price_change,
    pricer,
    proposals,
    uses_of,
    what_if,
)
from . import fmt
from .baseline import baseline_of
from .csvout import Cell, csv_response, json_response
from .site import Panel, Site
from .urlstate import State

PRESETS = (("", "ready moves"), ("proposed", "all proposals"), ("today", "today"))


HEADS = (
    "route", "calls", "all_flagship_usd", "today_usd", "proposed_usd", "proposed_low_usd", "proposed_high_usd", "today_model", "proposed_model",
    "accepted", "basis", "note",
)  # fmt: skip
ROWS = 25  # each with a list of all models to choose from
APART = ("m", "a", "pm", "pi", "po")  # the page's own parts of the address


@dataclass(frozen=True, slots=True)
class Asked:
    """What was chosen by hand: a model per route, the share of its answers that is accepted, a price that changes."""

    models: Mapping[str, str] = field(default_factory=dict)  # route -> "provider:model", ":" less = as today
    accepted: Mapping[str, float] = field(default_factory=dict)
    price_of: str = ""  # provider:model
    input_change: float = 0.0  # -0.2 = a fifth cheaper
    output_change: float = 0.0


@dataclass(frozen=True, slots=True)
class PriceChange:
    """What another price of one model does to each route that uses it, and to the whole."""

    model: str
    routes: tuple[tuple[str, int, int], ...]  # route, cost now, cost then

    @property
    def now_nusd(self) -> int:
        return sum(now for _, now, _ in self.routes)

    @property
    def then_nusd(self) -> int:
        return sum(then for _, _, then in self.routes)


class Simulation:
    """The three worlds for the models chosen in the address."""

    def __init__(self, site: Site, state: State, asked: Asked) -> None:
        self.site, self.state, self.asked = site, state, asked

    @cached_property
    def _parts(self) -> list[Rollup]:
        return self.site.rollups(
            self.state.window, ("route", "provider", "model", "tier"), self.state.where()
        )

    @cached_property
    def uses(self) -> list[RouteUse]:
        return uses_of(self._parts)

    @cached_property
    def models(self) -> list[tuple[str, str, str]]:
        """(provider, model, tier) that can be chosen: what has a price and is in use anywhere, or is proposed."""
        seen = {
            (p.key[1], p.key[2], p.key[3])
            for p in self._parts
            if p.calls > p.unpriced and p.key[3] != "specialised"
        }
        known = {model for _, model, _ in seen}
        proposed = {
            (self.choices[r.route].provider, r.candidate_model, r.candidate_tier)
            for r in self.site.recent("recommendations", self.site.store.recommendations)
            if r.candidate_model not in known
            and r.route in self.choices
            and self.choices[r.route].model == r.candidate_model
        }
        return sorted(seen | proposed, key=lambda key: (key[2], key[1]))

    @cached_property
    def flagship(self) -> tuple[str, str] | None:
        return baseline_of(self.site, self._parts)

    @cached_property
    def choices(self) -> dict[str, Choice]:
        shown = self.state.get("s")
        states = ("ready", "collecting", "proposed") if shown == "proposed" else ("ready",)
        picked: dict[str, Choice] = {}
        if shown != "today":
            advice = self.site.recent("recommendations", self.site.store.recommendations)
            picked = proposals(advice, self._parts, states)
        for route, name in self.asked.models.items():
            provider, _, model = name.partition(":")
            if not model:
                picked.pop(route, None)
            elif route not in picked or picked[route].model != model:
                picked[route] = Choice(provider, model)
        for route, accepted in self.asked.accepted.items():
            if route in picked:
                picked[route] = replace(picked[route], accepted=accepted)
        return picked

    @cached_property
    def result(self) -> Panel[WhatIf]:
        return self.site.panel(self.compute)

    def compute(self) -> WhatIf:
        price = pricer(self.site.book, self.site.now_ns)
        return what_if(self.uses, self.flagship or ("", ""), self.choices, price)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The routes of this page, dearest first."""
        start = (self.state.page - 1) * ROWS
        return () if self.result.value is None else self.result.value.lines[start : start + ROWS]

    @property
    def pages(self) -> int:
        return max(1, -(-len(self.result.value.lines if self.result.value else ()) // ROWS))

    @property
    def elsewhere(self) -> list[tuple[str, str]]:
        """What was chosen for routes of other pages, for the form of this one to carry along."""
        here = {line.route for line in self.lines}
        return [
            (name, value)
            for name, value in self.pairs()
            if name in ("m", "a") and value.rpartition("~")[0] not in here
        ]

    def turned(self, page: int) -> str:
        """The address of another page of routes, with all that was chosen."""
        pairs = [*self.state.query(page=str(page)), *self.pairs()]
        return "/simulate?" + urlencode(pairs)

    def pairs(self) -> list[tuple[str, str]]:
        """All that was chosen by hand and is not what the page shows anyway, for an address."""
        default = Simulation(self.site, self.state, Asked()).choices
        asked = self.asked
        pairs = [
            ("m", f"{route}~{name}")
            for route, name in asked.models.items()
            if name.partition(":")[2] != (default[route].model if route in default else "")
        ]
        pairs += [
            ("a", f"{route}~{accepted * 100:g}")
            for route, accepted in asked.accepted.items()
            if accepted < 1 and route in self.choices
        ]
        if asked.price_of:
            pairs += [("pm", asked.price_of), ("pi", f"{asked.input_change * 100:g}"), ("po", f"{asked.output_change * 100:g}")]  # fmt: skip
        return pairs

    def address(self, path: str = "/simulate") -> str:
        """The page, or a file of it, with all that was chosen by hand: to be mailed or kept."""
        pairs = [*self.state.query(), *self.pairs()]
        return f"{path}?{urlencode(pairs)}" if pairs else path

    @property
    def saving(self) -> int:
        w = self.result.value
        return 0 if w is None else w.today_nusd - w.proposed_nusd

    def main_use(self, route: str) -> RouteUse | None:
        """The use with most calls of a route today."""
        own = [u for u in self.uses if u.route == route]
        return max(own, key=lambda u: (u.calls, u.model)) if own else None

    def now_of(self, route: str) -> str:
        """The model that answers most calls of a route today."""
        use = self.main_use(route)
        return "" if use is None else use.model

    def accepted(self, route: str) -> str:
        """The share of a proposed model's answers that is used, in percent as a form shows it."""
        return f"{self.choices[route].accepted * 100:g}" if route in self.choices else "100"

    @cached_property
    def price_change(self) -> PriceChange | None:
        """What the price change asked about would do; None where none was asked about."""
        provider, _, model = self.asked.price_of.partition(":")
        if not model:
            return None
        factors = 1 + self.asked.input_change, 1 + self.asked.output_change
        price = pricer(self.site.book, self.site.now_ns)
        return PriceChange(model, price_change(self.uses, provider, model, *factors, price))

    @cached_property
    def used_models(self) -> list[tuple[str, str]]:
        """(provider, model) in use with a price, the dearest first: whose price may change."""
        cost: dict[tuple[str, str], int] = {}
        for part in self._parts:
            if part.calls > part.unpriced:
                cost[part.key[1], part.key[2]] = cost.get((part.key[1], part.key[2]), 0) + part.cost_nusd
        return sorted(cost, key=lambda key: (-cost[key], key))

    def policy(self) -> str:
        """The policy file that the chosen models amount to."""
        served = next(iter(self.site.store.policies(limit=1)), None)
        tiers = {(provider, model): tier for provider, model, tier in self.models}
        moves = []
        for route, choice in sorted(self.choices.items()):
            now = self.main_use(route)
            if now is None or now.model == choice.model:
                continue
            to = choice.provider, choice.model, tiers.get((choice.provider, choice.model), "")
            moves.append(Move(route, (now.provider, now.model, now.tier), to, choice.accepted))
        return policy_text("" if served is None else served.toml, moves)

    def is_chosen(self, route: str, provider: str, model: str) -> bool:
        choice = self.choices.get(route)
        return choice is not None and choice.model == model and choice.provider in ("", provider)

    def cells(self) -> Iterator[tuple[Cell, ...]]:
        for line in self.compute().lines:
            proposed = line.proposed
            costs = (line.flagship.cost_nusd, line.today.cost_nusd, proposed.cost_nusd, proposed.low_nusd, proposed.high_nusd)  # fmt: skip
            choice = self.choices.get(line.route)
            yield (
                line.route, line.calls, *(None if c is None else c / fmt.NANO for c in costs), self.now_of(line.route), line.proposed_model,
                None if choice is None else choice.accepted, proposed.basis, proposed.note,
            )  # fmt: skip


def read_asked(values: Mapping[str, list[str]]) -> Asked:
    """What was chosen by hand; what cannot be read is left out."""
    return Asked(
        dict(read_choices(values.get("m", []))),
        {
            route: share
            for route, text in read_choices(values.get("a", []))
            if (share := _percent(text, 0, 100)) is not None and share < 1
        },
        next(iter(values.get("pm", [])), "")[:600],
        _percent(next(iter(values.get("pi", [])), ""), -100, 1000) or 0.0,
        _percent(next(iter(values.get("po", [])), ""), -100, 1000) or 0.0,
    )


def _percent(text: str, least: float, most: float) -> float | None:
    """A number of percent as a share; None when it is none or out of bounds."""
    try:
        value = float(text.replace("\N{MINUS SIGN}", "-").strip().removesuffix("%"))
    except ValueError:
        return None
    return value / 100 if least <= value <= most else None


def read_choices(values: list[str]) -> list[tuple[str, str]]:
    """`route~provider:model` pairs; the last separator counts, since a route's name may hold one.

    >>> read_choices(["a~b~openai:gpt-5-mini", "nonsense"])
    [('a~b', 'openai:gpt-5-mini')]
    """
    pairs = [value.rpartition("~") for value in values[:200] if len(value) <= 600]
    return [(route, model) for route, mark, model in pairs if mark]


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    def model(request: Request) -> tuple[State, Simulation]:
        state = site.state(request, apart=APART)
        asked = {name: request.query_params.getlist(name) for name in APART}
        return state, Simulation(site, state, read_asked(asked))

    @pages.get("/simulate")
    def simulate(request: Request) -> Response:
        state, page = model(request)
        return site.render(
            request,
            "simulate.html",
            state=state,
            page="simulate",
            title="What-if",
            blocks=("worlds",),
            replace_url=page.address(),
            model={"p": page, "presets": PRESETS},
        )

    @pages.get("/simulate.csv")
    def as_csv(request: Request) -> Response:
        return csv_response("what-if", HEADS, model(request)[1].cells())

    @pages.get("/simulate.json")
    def as_json(request: Request) -> Response:
        return json_response(HEADS, model(request)[1].cells())

    @pages.get("/simulate.toml")
    def as_policy(request: Request) -> Response:
        headers = {"Content-Disposition": 'attachment; filename="policy.toml"'}
        return Response(model(request)[1].policy(), media_type="application/toml", headers=headers)

    return pages
