"""What tierlight raises in the user's process. Only mistakes in its own set-up raise; a call never does.

TierlightError
├── ConfigurationError    an argument or a variable is not usable; the message names it
│   └── PolicyError       a routing policy that must not be loaded; the message names the key
├── ScoreError            a score that cannot be right (not finite, no name)
└── RoutingError          the router could not serve the call
    ├── NoTarget              no eligible target was left
    └── DeadlineExceeded      the deadline of the whole chain of attempts ran out
"""

from __future__ import annotations


class TierlightError(Exception):
    """Base of everything tierlight raises on purpose."""


class ConfigurationError(TierlightError, ValueError):
    """An argument, a setting or an environment variable is not usable."""


class PolicyError(ConfigurationError):
    """A routing policy that must not be loaded."""


class ScoreError(TierlightError, ValueError):
    """A score that cannot be right."""


class RoutingError(TierlightError):
    """The router could not serve the call."""


class NoTarget(RoutingError):
    """No eligible target was left to try."""


class DeadlineExceeded(RoutingError):
    """The deadline of the whole chain of attempts ran out."""
