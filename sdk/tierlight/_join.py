"""Business keys that tie an outcome of days later to its call."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from . import semconv as s
from ._record import AttributeValue
from ._runtime import Runtime


def join_attributes(runtime: Runtime, join: Mapping[str, str]) -> dict[str, AttributeValue]:
    """`tierlight.join.<key>` for each business key: as it is where allow-listed, else only its hash."""
    return {
        f"{s.TIERLIGHT_JOIN_PREFIX}{key}": str(value)
        if key in runtime.open_join_keys
        else hashed_join_value(key, str(value), runtime.join_salt)
        for key, value in join.items()
    }


def hashed_join_value(key: str, value: str, salt: bytes = b"") -> str:
    """What is sent of a business key: the same on every machine with the same salt, and not the key itself.

    Args:
        salt: a secret of the team (`configure(join_salt=...)`); without one a short value, such as a
            ticket number, can be found by trying them all.
    """
    return hmac.new(salt or b"tierlight", f"{key}\0{value}".encode(), hashlib.sha256).hexdigest()[:32]
