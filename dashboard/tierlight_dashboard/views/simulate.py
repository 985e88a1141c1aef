"""What-if: all on one flagship, as it was, as proposed. Recomputed from stored sums, nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tierlight.pricing import Cost, Usage
from tierlight_collector.decisions import Recommendation
from tierlight_collector.records import Rollup

from ..analysis.whatif import Choice, RouteUse, WhatIf, what_if
from . import fmt
from .baseline import baseline_of
from .csvout import Cell, csv_response
from .site import Panel, Site
from .urlstate import State

PRESETS = (("", "ready moves"), ("proposed", "all proposals"), ("today", "today"))


class Simulation:
    """The three worlds for the models chosen in the address (`s=route~provider:model` per line)."""

    def __init__(self, site: Site, state: State, chosen: list[tuple[str, str]]) -> None:
        self.site, self.state, self.chosen = site, state, dict(chosen)

    @cached_property
    def _parts(self) -> list[Rollup]:
        return self.site.rollups(
            self.state.window, ("route", "provider", "model", "tier"), self.state.where()
        )

    @cached_property
    def uses(self) -> list[RouteUse]:
        return [
            RouteUse(
                p.key[0], p.key[1], p.key[2], p.key[3], p.calls, p.tokens_unknown, p.unpriced, p.cost_nusd, p.input_tokens, p.cached_input_tokens,
                p.cache_write_input_tokens, p.output_tokens,
            )
            for p in self._parts
        ]  # fmt: skip

    @cached_property
    def models(self) -> list[tuple[str, str, str]]:
        """(provider, model, tier) that can be chosen: what is in use anywhere and has a price."""
        seen = {
            (p.key[1], p.key[2], p.key[3])
            for p in self._parts
            if p.calls > p.unpriced and p.key[3] != "specialised"
        }
        return sorted(seen, key=lambda key: (key[2], key[1]))

    @cached_property
    def flagship(self) -> tuple[str, str] | None:
        return baseline_of(self.site, self._parts)

    @cached_property
    def choices(self) -> dict[str, Choice]:
        advice = {
            r.route: r
            for r in self.site.store.recommendations()
            if r.candidate_model
            and r.state
            in (("ready", "collecting", "proposed") if self.state.get("s") == "proposed" else ("ready",))
        }
        picked: dict[str, Choice] = {}
        if self.state.get("s") != "today":
            for route, r in advice.items():
                picked[route] = self._choice(r)
        for route, name in self.chosen.items():
            provider, _, model = name.partition(":")
            if not model:
                picked.pop(route, None)
            elif route not in picked or picked[route].model != model:
                picked[route] = Choice(provider, model)
        return picked

    def _choice(self, r: Recommendation) -> Choice:
        """A recommended model; only a shadow comparison on the route counts as measured."""
        provider = next((p.key[1] for p in self._parts if p.key[2] == r.candidate_model), "")
        if r.rung in ("shadow", "ab") and r.card is not None:
            per_call = r.card["figures"]["saving_low_nusd"]
            if per_call is not None:
                return Choice(provider, r.candidate_model, per_call, r.pairs)
        return Choice(provider, r.candidate_model)

    def _price(self, provider: str, model: str, use: RouteUse) -> int | None:
        """Mean call of the group times its number of calls: a price step for long prompts is met only where calls meet it."""
        known = use.calls - use.tokens_unknown
        if known <= 0:
            return None
        usage = Usage(
            input_tokens=round(use.input_tokens / known),
            cached_input_tokens=round(use.cached_input_tokens / known),
            cache_write_input_tokens=round(use.cache_write_input_tokens / known),
            output_tokens=round(use.output_tokens / known),
        )
        cost = self.site.book.price(usage, provider, model, self.site.now_ns)
        return cost.nusd * known if isinstance(cost, Cost) else None

    @cached_property
    def result(self) -> Panel[WhatIf]:
        return self.site.panel(self.compute)

    def compute(self) -> WhatIf:
        return what_if(self.uses, self.flagship or ("", ""), self.choices, self._price)

    def address(self) -> str:
        """The page with all that was chosen by hand, to be mailed or kept."""
        default = Simulation(self.site, self.state, []).choices
        pairs = [
            ("m", f"{route}~{name}")
            for route, name in self.chosen.items()
            if name.partition(":")[2] != (default[route].model if route in default else "")
        ]
        return "/simulate?" + urlencode([*self.state.query(), *pairs])

    @property
    def saving(self) -> int:
        w = self.result.value
        return 0 if w is None else w.today_nusd - w.proposed_nusd

    def now_of(self, route: str) -> str:
        """The model that answers most calls of a route today."""
        own = [u for u in self.uses if u.route == route]
        return max(own, key=lambda u: (u.calls, u.model)).model if own else ""

    def is_chosen(self, route: str, provider: str, model: str) -> bool:
        choice = self.choices.get(route)
        return choice is not None and choice.model == model and choice.provider in ("", provider)

    def cells(self) -> Iterator[tuple[Cell, ...]]:
        for line in self.compute().lines:
            yield (
                line.route, line.calls, *(None if c.cost_nusd is None else c.cost_nusd / fmt.NANO for c in (line.flagship, line.today, line.proposed)),
                line.proposed_model, line.proposed.basis, line.proposed.note,
            )  # fmt: skip


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
        state = site.state(request, apart=("m",))
        return state, Simulation(site, state, read_choices(request.query_params.getlist("m")))

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
        heads = (
            "route",
            "calls",
            "all_flagship_usd",
            "today_usd",
            "proposed_usd",
            "proposed_model",
            "basis",
            "note",
        )
        return csv_response("what-if", heads, model(request)[1].cells())

    return pages
