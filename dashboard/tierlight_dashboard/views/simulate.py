"""What-if: all on one flagship, as it was, as proposed. Recomputed from stored sums, nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tierlight_collector.records import Rollup

from ..analysis.whatif import Choice, RouteUse, WhatIf, pricer, proposals, uses_of, what_if
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
        return uses_of(self._parts)

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
        shown = self.state.get("s")
        states = ("ready", "collecting", "proposed") if shown == "proposed" else ("ready",)
        picked: dict[str, Choice] = {}
        if shown != "today":
            picked = proposals(self.site.store.recommendations(), self._parts, states)
        for route, name in self.chosen.items():
            provider, _, model = name.partition(":")
            if not model:
                picked.pop(route, None)
            elif route not in picked or picked[route].model != model:
                picked[route] = Choice(provider, model)
        return picked

    @cached_property
    def result(self) -> Panel[WhatIf]:
        return self.site.panel(self.compute)

    def compute(self) -> WhatIf:
        price = pricer(self.site.book, self.site.now_ns)
        return what_if(self.uses, self.flagship or ("", ""), self.choices, price)

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
