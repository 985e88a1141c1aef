"""Whether the devices and local servers of a policy are there; asked in the background, never on a call's path."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, cast

from .declared import Target
from .providers import HttpProvider, Provider

PROBE_S: Final = 0.3
EVERY_S: Final = 30.0


class Devices:
    """The last known presence of each on-device target; one that was not probed yet counts as present."""

    def __init__(self, provider: Callable[[Target], Provider]) -> None:
        self._provider = provider
        self._known: dict[str, bool] = {}
        self._asked: dict[str, float] = {}
        self._lock = threading.Lock()

    def is_present(self, target: Target, now: float) -> bool:
        """What is known of a target; asks anew in the background after 30 seconds."""
        if target.tier != "on-device" or not target.base_url:
            return True
        with self._lock:
            is_due = now - self._asked.get(target.name, -EVERY_S) >= EVERY_S
            if is_due:
                self._asked[target.name] = now
        if is_due:
            threading.Thread(target=self.probe, args=(target,), name="tierlight-device", daemon=True).start()
        return self._known.get(target.name, True)

    def probe(self, target: Target) -> bool:
        """Ask the server for its models, now."""
        try:
            provider = self._provider(target)
            found = not hasattr(provider, "is_reachable") or cast("HttpProvider", provider).is_reachable(
                target, PROBE_S
            )
        except Exception:  # noqa: BLE001  a probe that fails in any way has found nobody
            found = False
        self._known[target.name] = found
        return found
