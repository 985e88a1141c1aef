"""A router that was made before its workers were forked, as a preloading server makes it."""

from __future__ import annotations

import os

import pytest

from tierlight.routing import HttpProvider, Policy, Router
from tierlight.testing import FakeProvider, FakeReply

POLICY = """
schema = 1
[defaults]
timeout_s = 2.0
[target.small]
provider = "openai"
model = "gpt-5.4-nano"
base_url = "{url}/v1"
fallback = "none"
[route.echo]
target = "small"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_workers_get_their_own_answers_though_their_parent_was_connected() -> None:
    with FakeProvider(lambda request: FakeReply(text=request.prompt)).serve() as url:
        provider = HttpProvider(api_key="k")
        router = Router(Policy.from_toml(POLICY.format(url=url)), providers={"openai": provider})

        def hears_itself(who: str) -> bool:
            return all(router.chat("echo", f"{who} {n}").text == f"{who} {n}" for n in range(50))

        router.chat("echo", "warm")  # leaves a connection open
        child = os.fork()
        if child == 0:
            is_right = False
            try:
                is_right = hears_itself("child")
            finally:
                os._exit(0 if is_right else 1)
        assert hears_itself("parent")
        assert os.waitpid(child, 0)[1] == 0
        router.close()
        provider.close()
