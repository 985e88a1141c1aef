"""`tierlight demo`: a week of a customer-support app, played through the real SDK and the real OTLP path."""

from .play import play

__all__ = ["play"]
