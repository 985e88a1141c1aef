"""Steering the forwarding of a running server: what `tierlight forward` asks, behind the guard of the API."""

from __future__ import annotations

from typing import Final, Literal

from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse

from .api import ApiRoute
from .forward import Forwarder

Action = Literal["pause", "resume", "skip", "skip-all"]
PATH: Final = "/api/v1/forward"


def forward_router(forwarder: Forwarder | None) -> APIRouter:
    """The routes under /api/v1/forward; without a forwarder every target is unknown."""
    router = APIRouter(route_class=ApiRoute)

    @router.post(PATH + "/{name}/{action}", tags=["operation"])
    async def steer(name: str, action: Action) -> JSONResponse:
        """Pause a target, try it again, or give up what waits for it; says how many spans were given up."""
        known = {status.target.name for status in forwarder.status()} if forwarder is not None else set()
        if forwarder is None or name not in known:
            names = ", ".join(sorted(known)) or "there are none"
            raise HTTPException(404, f"no target of that name: {names}")
        skipped = 0
        if action == "pause":
            await forwarder.pause(name)
        elif action == "resume":
            await forwarder.resume(name)
        else:
            skipped = await forwarder.skip(name, everything=action == "skip-all")
        return JSONResponse({"skipped": skipped})

    return router
