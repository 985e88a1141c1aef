"""The first minutes: what to paste, and a light that goes on with the first span."""

from __future__ import annotations

from functools import cached_property
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tierlight_collector.records import CallRow, Filters

from . import fmt
from .site import Site
from .urlstate import State

CLIENTS: Final = (
    ("python", "Any Python function"),
    ("openai", "OpenAI"),
    ("anthropic", "Anthropic"),
    ("otel", "Other languages"),
)
_HEAD: Final = 'import tierlight\n\ntierlight.configure(endpoint="{url}")\n\n'
SNIPPETS: Final = {
    "python": _HEAD
    + '@tierlight.route("answer-customer", tier="mid")\ndef answer(question: str):\n    return call_your_provider(question)   # return the provider\'s response object\n',
    "openai": "from openai import OpenAI\n"
    + _HEAD
    + 'client = OpenAI()\n\n@tierlight.route("answer-customer", tier="mid")\ndef answer(question: str):\n    return client.chat.completions.create(\n        model="gpt-5-mini",\n        messages=[{{"role": "user", "content": question}}],\n    )\n',
    "anthropic": "from anthropic import Anthropic\n"
    + _HEAD
    + 'client = Anthropic()\n\n@tierlight.route("answer-customer", tier="mid")\ndef answer(question: str):\n    return client.messages.create(\n        model="claude-sonnet-5-5",\n        max_tokens=500,\n        messages=[{{"role": "user", "content": question}}],\n    )\n',
    "otel": "export OTEL_EXPORTER_OTLP_ENDPOINT={url}\nexport OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf\nexport OTEL_SERVICE_NAME=my-app\n# any OpenTelemetry instrumentation of LLM calls (gen_ai.* attributes) works;\n# set the attribute tierlight.route on its spans to name the route\n",
}


class Welcome:
    """What has come in so far."""

    def __init__(self, site: Site, state: State) -> None:
        self.site, self.state = site, state

    @property
    def client(self) -> str:
        return self.state.get("client", "python")

    @property
    def snippet(self) -> str:
        return SNIPPETS[self.client].format(url=self.site.settings.otlp_url)

    @cached_property
    def first(self) -> CallRow | None:
        page = self.site.store.calls(Filters(purpose=()), limit=1)
        return page.rows[0] if page.rows else None

    @cached_property
    def counters(self) -> dict[str, int]:
        return dict(self.site.store.health().counters)

    @property
    def refusal(self) -> str:
        """The newest request that was not taken, and why; "" when all were."""
        last = self.site.settings.last_refusal()
        if last is None:
            return ""
        when = fmt.ago(last.at_ns, self.site.now_ns)
        return f"refused {when}: {last.signal}, {last.answer}: {last.reason}"

    @property
    def checks(self) -> list[tuple[str, str]]:
        """(state, sentence): what works, what does not, what is missing."""
        spans = self.counters.get("spans", 0)
        found = [("", f"the collector takes OTLP at {self.site.settings.otlp_url}")]
        found.append(
            ("" if spans else "wait", f"{spans:,} spans received" if spans else "waiting for the first span")
        )
        if self.refusal:
            found.append(("no", self.refusal))
        if spans and self.first is None:
            found.append(
                ("no", "none of them is a call to a model: an instrumentation must set gen_ai.request.model")
            )
        elif self.first is not None:
            call = self.first.call
            found.append(
                (
                    "" if call.model else "no",
                    "calls name their model" if call.model else "the newest call names no model",
                )
            )
            known = call.input_tokens is not None
            found.append(
                (
                    "" if known else "no",
                    "tokens are known"
                    if known
                    else "the newest call has no token counts: return the provider's response object",
                )
            )
            priced = call.cost_nusd is not None
            found.append(
                (
                    "" if priced else "no",
                    "cost is known"
                    if priced
                    else f"the newest call has no price: {call.unpriced_reason.replace('_', ' ') or 'unknown model'}",
                )
            )
        return found


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    @pages.get("/welcome")
    def welcome(request: Request) -> Response:
        state = site.state(request)
        model = {"p": Welcome(site, state), "clients": CLIENTS}
        return site.render(
            request,
            "welcome.html",
            state=state,
            page="welcome",
            title="Send calls",
            blocks=("signal",),
            model=model,
        )

    return pages
