"""Approving and undoing policies over HTTP: what `tierlight policy` asks while a server holds the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from tierlight.errors import PolicyError
from tierlight.routing.policy import MAX_BYTES
from tierlight_collector.api import ApiRoute
from tierlight_collector.decisions import PolicyRevision
from tierlight_collector.stores.protocol import Store

from .policybook import approve, undo

PATH: Final = "/api/v1/policy"
Who = Annotated[str, Query(min_length=1, max_length=80, description="who decides it")]
Note = Annotated[str, Query(max_length=400, description="why")]


def policy_router(store: Store, clock_ns: Callable[[], int]) -> APIRouter:
    """The writing half of /api/v1/policy, behind the same guard as the rest of the API."""
    router = APIRouter(route_class=ApiRoute)

    async def written(write: Callable[[], PolicyRevision]) -> JSONResponse:
        try:
            added = await run_in_threadpool(write)
        except PolicyError as error:
            raise HTTPException(422, str(error)) from error
        return JSONResponse({"revision": added.revision, "version": added.version, "note": added.note})

    @router.post(PATH, tags=["policy"])
    async def approve_policy(request: Request, by: Who, note: Note = "") -> JSONResponse:
        """Approve the TOML in the body as the policy that is served; 422 says what must not be in it."""
        body = await request.body()
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"a policy has at most {MAX_BYTES} bytes, got {len(body)}")
        try:
            toml = body.decode()
        except UnicodeDecodeError as error:
            raise HTTPException(422, "the policy is not UTF-8 text") from error
        return await written(lambda: approve(store, toml, by, note, clock_ns()))

    @router.post(PATH + "/undo", tags=["policy"])
    async def undo_policy(
        by: Who, revision: Annotated[int | None, Query(ge=1, lt=2**31)] = None
    ) -> JSONResponse:
        """Take back what one revision changed, the newest if none is named, by writing another."""
        return await written(lambda: undo(store, revision, by, clock_ns()))

    return router
