"""The forms of the page of models: a price of one's own, taking it back, and pricing stored calls again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Final

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response
from starlette.datastructures import FormData

from tierlight.errors import ConfigurationError
from tierlight_collector.prices import OwnPrice, own_prices

from . import fmt
from .site import Site

AMOUNTS: Final = {"input": "In", "cached_input": "Cached", "output": "Out"}
MOST_ROWS: Final = 500
WAIT_S: Final = 0.4


@dataclass(frozen=True, slots=True)
class Sent:
    """A form that was not accepted: what was typed, and what is wrong, by field; `whole` where no field is to blame."""

    provider: str = ""
    model: str = ""
    typed: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    whole: str = ""


def read_price(form: FormData) -> tuple[OwnPrice, dict[str, str]]:
    """The price in a form, and what is wrong with it by field."""
    typed = {f.name: str(form.get(f.name, "")).strip() for f in fields(OwnPrice)}
    errors: dict[str, str] = {}
    for name in AMOUNTS:
        text = typed[name].removeprefix("$").replace(",", "").strip()
        if not text:
            if name != "cached_input":
                errors[name] = "expected US dollars for a million tokens; 0 for a model that costs nothing"
            continue
        try:
            amount = Decimal(text)
        except InvalidOperation:
            amount = Decimal(-1)
        if not (amount.is_finite() and 0 <= amount <= 1_000_000):
            errors[name] = "expected US dollars for a million tokens, such as 0.25"
        else:
            typed[name] = f"{amount:f}"
    if typed["valid_from"]:
        try:
            typed["valid_from"] = date.fromisoformat(typed["valid_from"]).isoformat()
        except ValueError:
            errors["valid_from"] = "expected a date such as 2026-11-01, or nothing for since ever"
    for name in ("provider", "model"):
        if not typed[name] or "*" in typed[name] or len(typed[name]) > 200:
            errors[name] = "expected a name without *; patterns go into the price file"
    return OwnPrice(**typed), errors


def set_price(site: Site, form: FormData) -> Sent | OwnPrice:
    """Keep the price of a form in place of one of the same model and day; what is wrong with it where it cannot be."""
    price, errors = read_price(form)
    rows = [row for row in own_prices(site.store.settings()) if row.key != price.key]
    whole = ""
    if not errors and len(rows) >= MOST_ROWS:
        whole = f"{MOST_ROWS} prices are set here: move them to a price file."
    if not errors and not whole:
        try:
            site.set_prices([*rows, price])
            return price
        except ConfigurationError as error:
            whole = fmt.visible(error, 300)
    return Sent(
        price.provider, price.model, {f.name: str(form.get(f.name, "")) for f in fields(price)}, errors, whole
    )


def remove_price(site: Site, form: FormData) -> None:
    """Take a price back.

    Raises:
        HTTPException: 404, none of that model and day is set.
    """
    key = tuple(str(form.get(name, "")) for name in ("provider", "model", "valid_from"))
    rows = own_prices(site.store.settings())
    kept = [row for row in rows if row.key != key]
    if len(kept) == len(rows):
        raise HTTPException(404, "No such price is set here.")
    site.set_prices(kept)


def recost(site: Site, form: FormData) -> None:
    """Look what pricing stored calls again would change, do it, or stop.

    Raises:
        HTTPException: 422, an order nobody knows; 409, a run is going on.
    """
    what = str(form.get("do", ""))
    if what == "stop":
        site.recost.stop()
    elif what in ("look", "apply"):
        if not site.recost.start(site.book, str(form.get("model", ""))[:200], does=what == "apply"):
            raise HTTPException(409, "Calls are being priced already: stop that first, or wait for its end.")
    else:
        raise HTTPException(422, "Expected look, apply or stop.")
    site.recost.wait(WAIT_S)


def register(pages: APIRouter, site: Site, show: Callable[[Request, Sent], Response]) -> None:
    """Add the forms; `show(request, sent)` renders the page with a form that was not accepted."""

    @pages.post("/models/price")
    async def price(request: Request) -> Response:
        form = await site.form(request)
        outcome = await site.aside(lambda: set_price(site, form))
        if isinstance(outcome, Sent):
            return await site.aside(lambda: show(request, outcome))
        if site.recost.start(site.book, outcome.model, does=False):
            await site.aside(lambda: site.recost.wait(WAIT_S))
        return site.redirect(request, "/models", done="priced")

    @pages.post("/models/price/remove")
    async def remove(request: Request) -> Response:
        form = await site.form(request)
        await site.aside(lambda: remove_price(site, form))
        return site.redirect(request, "/models", done="removed")

    @pages.post("/models/recost")
    async def run(request: Request) -> Response:
        form = await site.form(request)
        await site.aside(lambda: recost(site, form))
        return site.redirect(request, "/models", done="recost")
