"""A seeded store with the dashboard over it, asked through ASGI: no port, no clock."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from dashboard import seed
from tierlight_collector.stores import open_store
from tierlight_collector.stores.protocol import Store
from tierlight_dashboard.app import create_app
from tierlight_dashboard.views.site import DashboardSettings

ORIGIN = "http://127.0.0.1:4319"


class Browser:
    """Asks the app as a browser of one session would."""

    def __init__(self, store: Store, **options: Any) -> None:
        self.store = store
        given = DashboardSettings(clock=lambda: seed.NOW_NS, cache_seconds=0, secret=b"test")
        self.app = create_app(store, replace(given, **options))
        self.cookies: dict[str, str] = {}

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        content: str | None = None,
        follow: bool = False,
    ) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url=ORIGIN, cookies=self.cookies, follow_redirects=follow
            ) as client:
                answer = await client.request(method, path, headers=headers, data=data, content=content)
                self.cookies = dict(client.cookies.items())
                return answer

        return asyncio.run(send())

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.ask("GET", path, headers=headers)

    def text(self, path: str) -> str:
        """The page, which must be there."""
        answer = self.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[-400:])
        return answer.text

    def block(self, path: str, name: str) -> httpx.Response:
        """The answer htmx would get for the element with that id."""
        return self.ask(
            "GET",
            path,
            headers={"HX-Request": "true", "HX-Request-Type": "partial", "HX-Target": f"div#{name}"},
        )

    def token(self) -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.text("/settings"))
        assert found
        return found.group(1)

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Send a form of a page of this session."""
        return self.ask("POST", path, data={"csrf": self.token(), **fields})


@pytest.fixture(scope="session")
def month(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The seeded month with hostile calls in it; only read."""
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('month') / 't.db'}", now_ns=lambda: seed.NOW_NS)
    seed.fill(store, volume=0.25, with_hostile=True)
    yield Browser(store)
    store.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Browser]:
    """Two days of calls with alerts and recommendations, to act on."""
    store = open_store(f"sqlite:///{tmp_path / 't.db'}", now_ns=lambda: seed.NOW_NS)
    seed.fill(store, days=2, volume=0.1)
    yield Browser(store)
    store.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Browser]:
    """A store nothing was ever sent to."""
    store = open_store(f"sqlite:///{tmp_path / 't.db'}")
    yield Browser(store)
    store.close()
