"""How commands print rows: a table for people, JSON, JSON lines or CSV for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]


class Format(StrEnum):
    """What `--format` takes."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


def emit(rows: Iterable[Row], columns: Sequence[str], fmt: Format, *, empty: str) -> None:
    """Print the rows; `columns` are what a table and CSV show, JSON holds every key. Unknown is null or "–"."""
    if fmt is Format.jsonl:
        for row in rows:
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
    elif fmt is Format.json:
        sys.stdout.write(json.dumps(list(rows), ensure_ascii=False, indent=2) + "\n")
    elif fmt is Format.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_csv_cell(row.get(column)) for column in columns])
    else:
        listed = list(rows)
        if not listed:
            sys.stdout.write(empty + "\n")
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            is_number = any(isinstance(row.get(column), int | float) for row in listed)
            table.add_column(column, justify="right" if is_number else "left", overflow="fold")
        for row in listed:
            table.add_row(*(_table_cell(row.get(column)) for column in columns))
        Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200).print(table)


def _csv_cell(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets a leading apostrophe; numbers stay numbers."""
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value


def _table_cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(ch if ch.isprintable() else "�" for ch in text)
