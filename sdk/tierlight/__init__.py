"""tierlight: a light per route."""

from ._version import __version__

__all__ = ["__version__"]
