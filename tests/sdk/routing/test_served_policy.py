"""A collector serves the newest approved policy, and a router follows it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from fastapi import FastAPI

from sdk.routing.fakes import POLICY
from tierlight.routing.policy import Policy
from tierlight.routing.source import PolicySource
from tierlight_collector.api import api_router
from tierlight_collector.stores import open_store

OTHER = POLICY.replace('target = "nano"', 'target = "lite"')


def test_a_router_follows_what_is_approved(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'calls.db'}")
    app = FastAPI()
    app.include_router(api_router(store))

    async def ask(etag: str) -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://collector"
        ) as client:
            return await client.get("/api/v1/policy", headers={"if-none-match": etag} if etag else {})

    def fetch(etag: str) -> tuple[str, bytes] | None:
        answer = asyncio.run(ask(etag))
        return (answer.headers["etag"], answer.content) if answer.status_code == 200 else None

    try:
        missing = asyncio.run(ask(""))
        assert (missing.status_code, missing.json()) == (
            404,
            {"error": "no routing policy has been approved yet"},
        )
        first = Policy.from_toml(POLICY)
        store.add_policy(POLICY, first.version, "anna", "the first one")
        source = PolicySource("http://collector/api/v1/policy", poll_s=3600, fetch=fetch)
        assert source.current() == first
        assert asyncio.run(ask(f'"{first.version}"')).status_code == 304
        store.add_policy(OTHER, Policy.from_toml(OTHER).version, "anna", "cheaper")
        source.refresh()
        assert source.current().routes["intent"].default == "lite"
        assert asyncio.run(ask("")).headers["x-tierlight-policy-revision"] == "2"
        source.close()
    finally:
        store.close()
