"""The `tierlight` command: one module per group of commands, each registering itself on the app."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; without the server's packages say how to install them and exit with 2."""
    try:
        from .commands import app
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] in {
            "tierlight",
            "tierlight_collector",
            "tierlight_dashboard",
        }:
            raise
        sys.stderr.write(
            f"tierlight: the command line needs the server ({missing.name} is missing): "
            "pip install 'tierlight[server]'\n"
        )
        raise SystemExit(2) from missing
    app()
