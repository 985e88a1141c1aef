"""What a page is made from: the template environment, and static files under names that hold their hash."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from . import fmt, glyphs

HERE: Final = Path(__file__).resolve().parent.parent


def environment(static: Mapping[str, str]) -> Environment:
    """Jinja2 with autoescape everywhere and no forgiving of names that do not exist."""
    env = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(
        count=fmt.count,
        exact=fmt.exact,
        percent=fmt.percent,
        points=fmt.points,
        duration=fmt.duration,
        size=fmt.size,
        visible=fmt.visible,
        readable=fmt.readable,
        plural=fmt.plural,
        about=fmt.about,
    )
    env.globals.update(
        static=static,
        spark=glyphs.spark,
        interval=glyphs.interval,
        share_bar=glyphs.share_bar,
        span_bar=glyphs.span_bar,
        meter=glyphs.meter,
    )
    env.globals["m"] = env.get_template(
        "_macros.html"
    ).module  # blocks rendered alone do not run a template's imports
    return env


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file whose name changes with its content, so that it may be kept for ever."""

    hashed: str
    body: bytes
    gzipped: bytes
    media_type: str


def static_files(folder: Path) -> dict[str, StaticFile]:
    """All files below `folder` by their plain name, with the content hash in the name they are served under."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".css", ".js", ".svg"):
            continue
        body = path.read_bytes()
        hashed = f"{path.stem}.{hashlib.sha256(body).hexdigest()[:8]}{path.suffix}"
        media_type = mimetypes.types_map.get(path.suffix, "application/octet-stream")
        files[path.name] = StaticFile(hashed, body, gzip.compress(body, 9, mtime=0), media_type)
    return files
