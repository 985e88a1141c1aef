"""Experiments and the evidence behind a move of tier: start, stop, approve, take back. Nothing is routed from here."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response
from starlette.datastructures import FormData

from tierlight_collector.decisions import Experiment, Recommendation, RecommendationState
from tierlight_collector.records import HOUR_NS, Rollup

from ..analysis.verdict import Quality, quality_of
from .revisions import SHOWN, Row, follow, rows
from .routetable import rate
from .site import WHO, Site
from .urlstate import State

DONE: Final = {
    "start": "Started. Give the experiment to your router as shown below; nothing is sent anywhere by itself.",
    "stop": "Stopped. What was measured is kept.",
    "resume": "Running again.",
    "ship": "Approved. A served policy now gives the candidate 95 % of calls; without one, change the configuration as shown. The route is watched for 14 days.",
    "unship": "Taken back.",
    "dismiss": "Dismissed.",
    "restore": "Brought back.",
    "undone": "The revision is undone by a new one, which routers fetch within half a minute. Experiments follow the policy.",
}
UNDO: Final = {"stop": "resume", "start": "stop", "ship": "unship", "dismiss": "restore"}
SHARE: Final = {"ab": 0.5, "shadow": 0.05}
# From which states an action may start, and where it ends.
MOVES: Final[dict[str, tuple[tuple[str, ...], RecommendationState]]] = {
    "ship": (("ready",), "shipped"),
    "unship": (("shipped",), "ready"),
    "dismiss": (("proposed", "collecting", "ready"), "dismissed"),
    "restore": (("dismissed",), "proposed"),
}


@dataclass(frozen=True, slots=True)
class Arm:
    """What one side did while the experiment ran."""

    name: str
    sums: Rollup
    quality: Quality | None

    @property
    def error_rate(self) -> float | None:
        return rate(self.sums.errors, self.sums.calls)


class Experiments:
    """All experiments and all verdicts."""

    def __init__(self, site: Site, state: State) -> None:
        self.site, self.state = site, state

    @cached_property
    def all(self) -> list[Experiment]:
        return sorted(self.site.store.experiments(), key=lambda e: (e.state != "running", -e.started_ns))

    @cached_property
    def advice(self) -> dict[int, Recommendation]:
        return {r.id: r for r in self.site.store.recommendations()}

    @cached_property
    def open(self) -> list[Recommendation]:
        rank = {"ready": 0, "shipped": 1, "collecting": 2, "proposed": 3, "stale": 4, "dismissed": 5}
        moves = [r for r in self.advice.values() if r.action in ("downgrade", "upgrade", "fix_prompt")]
        return sorted(moves, key=lambda r: (rank.get(r.state, 6), -(r.saving_low_nusd or 0), r.route))

    def of(self, experiment: Experiment) -> Recommendation | None:
        return self.advice.get(experiment.recommendation_id or 0)

    @cached_property
    def revisions(self) -> list[Row]:
        """The newest revisions of the approved policy; one more is read, to compare the last with."""
        return rows(self.site.store.policies(limit=SHOWN + 1))

    @cached_property
    def done(self) -> tuple[str, str, str]:
        what, _, ident = self.state.get("done").partition(".")
        return DONE.get(what, ""), UNDO.get(what, ""), ident


class ExperimentPage(Experiments):
    """One experiment."""

    def __init__(self, site: Site, state: State, experiment: Experiment) -> None:
        super().__init__(site, state)
        self.e = experiment

    @cached_property
    def r(self) -> Recommendation | None:
        return self.of(self.e)

    @cached_property
    def ending(self) -> str:
        """Why the watch ended it, "" where a person did or it goes on."""
        if self.e.ended_ns is None:
            return ""
        word = self.e.state.replace("_", " ")
        entries = self.site.store.audit(limit=1_000)
        return next(
            (one.detail for one in entries if (one.subject, one.action) == (self.e.id, word)), ""
        ) or (self.r.reason if self.r is not None and self.r.state == self.e.state else "")

    @cached_property
    def arms(self) -> list[Arm]:
        """The route's calls of both models in the page's range, shadow calls included."""
        parts = self.site.rollups(
            self.state.window,
            ("model",),
            self.state.where(route=(self.e.route,), purpose=("production", "shadow")),
        )
        gate = self.site.preferences().gate_scores.get(self.e.route, "")
        wanted = (self.e.control, self.e.candidate)
        return [Arm(p.key[0], p, quality_of(p, gate)) for name in wanted for p in parts if p.key[0] == name]

    @property
    def policy(self) -> str:
        """What a policy file would say; where a policy is approved, the served one says it already."""
        e = self.e
        name, route = json.dumps(e.id), json.dumps(e.route)
        control, candidate = json.dumps(e.control), json.dumps(e.candidate)
        if e.kind == "shadow":
            return f"[shadow.{name}]\nroute = {route}\ntarget = {candidate}   # the name of your target for this model\nshare = {e.share:g}"
        return (
            f"[experiment.{name}]\nroute = {route}\n"
            f"arms = {{ control = {control}, candidate = {candidate} }}   # the names of your targets for these models\n"
            f'weights = {{ control = {1 - e.share:g}, candidate = {e.share:g} }}\nunit = "call"'
        )

    @cached_property
    def figures(self) -> dict[str, Any]:
        """The stored evidence card, flattened to what can be shown."""
        card = (self.r.card if self.r is not None else None) or self.e.card or {}
        plain = card.get("figures", card)
        return (
            {str(k): v for k, v in plain.items() if isinstance(v, str | int | float)}
            if isinstance(plain, dict)
            else {}
        )


def start(site: Site, form: FormData) -> str:
    """Store a new experiment for a proposal; gives its id."""
    r = _recommendation(site, form)
    kind = str(form.get("kind", ""))
    if kind not in SHARE or not r.candidate_model:
        raise HTTPException(422, "Expected kind ab or shadow and a proposal with a candidate.")
    stem = re.sub(r"[^a-z0-9]+", "-", f"{r.route}-{r.candidate_model}".lower()).strip("-")[:60] or "route"
    taken = {e.id for e in site.store.experiments()}
    ident = next(name for n in range(1, len(taken) + 2) if (name := f"{stem}-{n}") not in taken)
    experiment = Experiment(
        ident, r.route, "ab" if kind == "ab" else "shadow", r.current_model, r.candidate_model, SHARE[kind], "running", site.now_ns, None, WHO, r.id
    )  # fmt: skip
    site.store.save_experiment(experiment, WHO)
    if r.state in ("proposed", "rolled_back"):
        site.store.update_recommendation(replace(r, state="collecting", updated_ns=site.now_ns), WHO)
    follow(site, experiment)
    return ident


def change(site: Site, form: FormData) -> str:
    """Stop an experiment or let it go on; gives the word for it."""
    what = str(form.get("do", ""))
    experiment = _experiment(site, str(form.get("id", "")))
    if what == "stop" and experiment.state == "running":
        changed = replace(experiment, state="stopped", ended_ns=site.now_ns)
    elif what == "resume" and experiment.state == "stopped":
        changed = replace(experiment, state="running", ended_ns=None)
    else:
        raise HTTPException(422, f"An experiment that is {experiment.state} cannot be changed so.")
    site.store.save_experiment(changed, WHO)
    follow(site, changed)
    return what


def decide(site: Site, form: FormData) -> str:
    """Approve, take back, dismiss or bring back a recommendation; gives the word for it."""
    r, what = _recommendation(site, form), str(form.get("do", ""))
    if what not in MOVES:
        raise HTTPException(422, f"Expected one of {', '.join(MOVES)}.")
    before, after = MOVES[what]
    if r.state not in before:
        raise HTTPException(422, f"A recommendation that is {r.state} cannot be changed so.")
    reason = str(form.get("note", "")).strip()[:200]
    if what == "dismiss" and not reason:
        raise HTTPException(422, "Say why, so that the next reader knows.")
    days = str(form.get("days", "0")) if what == "dismiss" else "0"
    if days not in ("0", "7", "30", "90"):
        raise HTTPException(422, "Expected 7, 30 or 90 days, or 0 for good.")
    changed = replace(
        r,
        state=after,
        dismissed_reason=reason if what == "dismiss" else "",
        dismissed_until_ns=site.now_ns + int(days) * 24 * HOUR_NS if days != "0" else None,
        updated_ns=site.now_ns,
    )
    site.store.update_recommendation(changed, WHO)
    if what in ("ship", "unship"):
        _ship(site, r, is_shipped=what == "ship")
    return what


def _ship(site: Site, r: Recommendation, *, is_shipped: bool) -> None:
    """Move the experiment behind a recommendation on to the hold-out, or back."""
    before = ("running", "stopped") if is_shipped else ("shipped",)
    for experiment in site.store.experiments():
        if experiment.state in before and (experiment.route, experiment.candidate) == (
            r.route,
            r.candidate_model,
        ):
            changed = replace(
                experiment,
                state="shipped" if is_shipped else "running",
                shipped_ns=site.now_ns if is_shipped else None,
                ended_ns=None,
            )
            site.store.save_experiment(changed, WHO)
            follow(site, changed)
            return


def _recommendation(site: Site, form: FormData) -> Recommendation:
    ident = str(form.get("id", ""))
    found = (
        site.store.recommendation(int(ident))
        if ident.isascii() and ident.isdigit() and len(ident) < 18
        else None
    )
    if found is None:
        raise HTTPException(404, "There is no such recommendation; it may have been replaced by a newer one.")
    return found


def _experiment(site: Site, ident: str) -> Experiment:
    for experiment in site.store.experiments():
        if experiment.id == ident:
            return experiment
    raise HTTPException(404, "There is no such experiment.")


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    @pages.get("/experiments")
    def experiments(request: Request) -> Response:
        state = site.state(request)
        return site.render(
            request,
            "experiments.html",
            state=state,
            page="experiments",
            title="Experiments",
            model={"p": Experiments(site, state)},
        )

    @pages.get("/experiments/{ident}")
    def experiment(request: Request, ident: str) -> Response:
        state = site.state(request)
        page = ExperimentPage(site, state, _experiment(site, ident))
        return site.render(
            request, "experiment.html", state=state, page="experiments", title=ident, model={"p": page}
        )

    @pages.post("/experiments/start")
    async def begin(request: Request) -> Response:
        form = await site.form(request)
        ident = await site.aside(lambda: start(site, form))
        return site.redirect(request, f"/experiments/{ident}", done=f"start.{ident}")

    @pages.post("/experiments/act")
    async def experiment_act(request: Request) -> Response:
        form = await site.form(request)
        what = await site.aside(lambda: change(site, form))
        return site.redirect(request, str(form.get("next", "/experiments")), done=f"{what}.{form.get('id')}")

    @pages.post("/recommendations/act")
    async def recommendation_act(request: Request) -> Response:
        form = await site.form(request)
        what = await site.aside(lambda: decide(site, form))
        return site.redirect(request, str(form.get("next", "/experiments")), done=f"{what}.{form.get('id')}")

    return pages
