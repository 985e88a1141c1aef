"""A trace from the top down, however deep, wide or broken it is; and the texts of a call."""

from __future__ import annotations

from tierlight_collector.records import Resource, SpanRecord
from tierlight_dashboard.views.messages import MOST_TEXT, read_messages
from tierlight_dashboard.views.waterfall import DEEPEST, MOST_ROWS, Node, Waterfall


def span(number: int, parent: int | None) -> SpanRecord:
    above = b"" if parent is None else parent.to_bytes(8, "big")
    return SpanRecord(
        b"t" * 16, number.to_bytes(8, "big"), above, "step", 1, number, number + 10, 0, "", "", "", {}, (), Resource({})
    )  # fmt: skip


def rows(nodes: tuple[Node, ...]) -> list[Node]:
    return [n for node in nodes for n in (node, *rows(node.children))]


def test_a_chain_deeper_than_a_page_is_folded_and_opens_by_branch() -> None:
    chain = [span(0, None), *(span(n, n - 1) for n in range(1, 200))]
    top = rows(Waterfall(chain, {}, "").tree)
    assert len(top) == DEEPEST + 1
    assert sum(n.folded for n in top) == 200 - len(top), "every span is shown or counted"
    last = top[-1].span.span_id
    branch = Waterfall(chain, {}, last.hex())
    assert branch.is_branch
    assert branch.tree[0].span.span_id == last
    assert len(rows(branch.tree)) == DEEPEST + 1


def test_a_trace_with_many_spans_shows_its_top_and_counts_the_rest() -> None:
    wide = [span(0, None), *(span(n, 0) for n in range(1, 51))]
    wide += [span(1000 + n, 1 + n % 50) for n in range(3_000)]
    fall = Waterfall(wide, {}, "")
    shown = rows(fall.tree)
    assert len(shown) == MOST_ROWS
    assert len(shown) + sum(n.folded for n in shown) == len(wide)
    assert {n.span.span_id for n in shown} >= {s.span_id for s in wide[:51]}, "the top before the depth"
    assert fall.rest == 0


def test_more_roots_than_rows_are_counted() -> None:
    fall = Waterfall([span(n, None) for n in range(MOST_ROWS + 7)], {}, "")
    assert fall.rest == 7


def test_spans_that_are_each_others_parents_end() -> None:
    fall = Waterfall([span(1, 2), span(2, 1), span(3, 3)], {}, "")
    assert len(rows(fall.tree)) + fall.rest == 3


def test_an_unknown_branch_shows_the_whole() -> None:
    assert not Waterfall([span(1, None)], {}, "ff").is_branch


def test_a_mask_is_told_apart_from_the_text() -> None:
    (message,) = read_messages("write to [redacted:email] or [redacted:card]", "user", False)
    assert message.pieces == [("write to ", False), ("email", True), (" or ", False), ("card", True)]
    assert message.masks == 2


def test_a_long_text_is_cut_on_the_page_and_kept_for_the_file() -> None:
    (message,) = read_messages("x" * (MOST_TEXT + 1), "user", False)
    assert message.is_cut
    assert sum(len(piece) for piece, _ in message.pieces) == MOST_TEXT
    assert len(message.whole) == MOST_TEXT + 1
