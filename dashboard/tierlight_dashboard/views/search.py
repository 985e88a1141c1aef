"""Go anywhere by a few letters: pages, routes, models, and calls by their id."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import Response

from . import fmt
from .docs import PAGES
from .shell import NAV
from .site import Site
from .urlstate import State, route_path

MOST = 20
PLACES = (
    ("Rules of alerts", "/alerts/rules"), ("Send calls", "/welcome"), ("Settings: money and budget", "/settings#money"),
    ("Settings: quality floors and margins", "/settings#quality"), ("Settings: data retention", "/settings#data"),
    ("Settings: notifications", "/settings#notify"), ("Settings: export", "/settings#export"), ("Settings: who did what", "/settings#log"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hit:
    label: str
    kind: str
    href: str


def find(site: Site, state: State, text: str) -> list[Hit]:
    """What the letters may mean, names that begin with them first."""
    wanted = text.strip().casefold()
    hits = [Hit(label, "page", state.carried(path)) for _, path, label, _ in NAV]
    hits += [Hit(label, "page", state.carried(path)) for label, path in PLACES if wanted]
    hits += [Hit(title, "how it is computed", state.carried(f"/docs/{name}")) for name, title in PAGES]
    if wanted:
        hits += [Hit(r.route, "route", state.carried(route_path(r.route))) for r in site.routes()]
    hits = [h for h in hits if wanted in h.label.casefold()]
    hits.sort(key=lambda h: (not h.label.casefold().startswith(wanted), h.kind != "page", h.label))
    if re.fullmatch("[0-9a-f]{32}", wanted):
        hits.insert(0, Hit(f"trace {wanted[:12]}…", "trace", state.carried(f"/traces/{wanted}")))
    if wanted:
        hits.append(
            Hit(
                f"calls of “{fmt.visible(text, 40)}” (id, session or user)",
                "calls",
                state.carried("/calls", q=text.strip()),
            )
        )
        hits.append(
            Hit(
                f"prices of “{fmt.visible(text, 40)}”", "price book", state.carried("/models", q=text.strip())
            )
        )
    return hits[:MOST]


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    @pages.get("/search")
    def search(request: Request) -> Response:
        state = site.state(request)
        hits = find(site, state, state.get("q"))
        return site.render(
            request,
            "search.html",
            state=state,
            page="search",
            title="Search",
            blocks=("found",),
            replace_url=False,
            model={"hits": hits},
        )

    return pages
