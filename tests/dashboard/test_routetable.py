"""Which routes a table has a row for."""

from __future__ import annotations

from tierlight_collector.records import Rollup
from tierlight_dashboard.views.routetable import dearest


def test_a_short_table_has_all_parts_of_the_dearest_routes() -> None:
    parts = [
        Rollup(("a", "p", "m", "mid"), calls=1, cost_nusd=5),
        Rollup(("b", "p", "m", "mid"), calls=1, cost_nusd=6),
        Rollup(("a", "p", "n", "small"), calls=1, cost_nusd=2),
        Rollup(("c", "p", "m", "mid"), calls=1, cost_nusd=6),
    ]
    assert [part.key[:3:2] for part in dearest(parts, 2)] == [("a", "m"), ("b", "m"), ("a", "n")]
    assert dearest(parts, 9) == parts
