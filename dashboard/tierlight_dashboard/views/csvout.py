"""Tables as files: CSV that a spreadsheet cannot take for formulas, and the same rows as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence

from fastapi.responses import Response, StreamingResponse

from .site import file_name

Cell = str | int | float | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_AT_ONCE = 200


def safe(cell: Cell) -> str:
    """A cell as text; one that a spreadsheet would run gets a leading quote, numbers stay numbers, unknown is empty.

    >>> safe("=HYPERLINK(1)"), safe(-1.5), safe(None)
    ("'=HYPERLINK(1)", '-1.5', '')
    """
    if cell is None:
        return ""
    if isinstance(cell, int | float):
        return repr(cell)
    text = cell.replace("\x00", "\ufffd")
    return "'" + text if text.startswith(_FORMULA) else text


def csv_text(heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Iterator[str]:
    """The table in pieces of some hundred rows."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(heads)
    for i, row in enumerate(rows, 1):
        writer.writerow([safe(cell) for cell in row])
        if i % _AT_ONCE == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def csv_response(name: str, heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Response:
    """The table as a download."""
    headers = {"Content-Disposition": f'attachment; filename="tierlight-{file_name(name)}.csv"'}
    return StreamingResponse(csv_text(heads, rows), media_type="text/csv; charset=utf-8", headers=headers)


def json_response(heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Response:
    """The same table as a list of objects; unknown is null."""
    body = json.dumps([dict(zip(heads, row, strict=True)) for row in rows], ensure_ascii=False)
    return Response(body, media_type="application/json")
