"""The first schema."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def migrate(connection: sqlite3.Connection) -> None:
    script = Path(__file__).with_suffix(".sql").read_text("utf-8")
    for statement in script.split(";\n"):
        if statement.strip():
            connection.execute(statement)
