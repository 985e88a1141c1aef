"""The bundled pages on how each figure is computed: linked from the figure, answered without a network."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from .site import Site

PAGES: Final = (
    ("spend", "Spend and forecast"),
    ("savings", "Savings against one flagship"),
    ("quality", "Quality and its interval"),
    ("alerts", "Alerts"),
    ("recommendations", "Recommendations and experiments"),
    ("whatif", "What-if"),
    ("prices", "Prices"),
    ("content", "Prompts and answers"),
)


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    @pages.get("/docs")
    def contents(request: Request) -> Response:
        return site.render(
            request,
            "docs/index.html",
            state=site.state(request),
            page="docs",
            title="How figures are computed",
            model={"pages": PAGES},
        )

    @pages.get("/docs/{name}")
    def page(request: Request, name: str) -> Response:
        title = dict(PAGES).get(name)
        if title is None:
            raise HTTPException(404)
        return site.render(
            request,
            f"docs/{name}.html",
            state=site.state(request),
            page="docs",
            title=title,
            model={"pages": PAGES},
        )

    return pages
