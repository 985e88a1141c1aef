"""What tierlight raises in the user's process. Only mistakes in its own set-up raise; a call never does.

TierlightError
├── ConfigurationError    an argument or a variable is not usable; the message names it
│   └── PolicyError       a routing policy that must not be loaded; the message names the key
├── ScoreError            a score that cannot be right (not finite, no name)
└── RoutingError          the router could not serve the call
    ├── NoTarget              no eligible target was left
    ├── ProviderError         a provider refused a request of the router's own clients, or could not be reached
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


class ProviderError(RoutingError):
    """A provider refused a request, or could not be reached.

    Attributes:
        status_code: HTTP status, None where no answer came.
        code: the provider's own word for it, such as `model_not_found`; "" without one.
        retry_after_s: how long the provider asks to wait, None where it does not say.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        code: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.code = code
        self.retry_after_s = retry_after_s


class ProviderTimeout(ProviderError, TimeoutError):
    """A provider did not answer in time. What it did until then it may still bill."""


class ProviderUnreachable(ProviderError, ConnectionError):
    """The connection to a provider failed."""


class DeadlineExceeded(RoutingError):
    """The deadline of the whole chain of attempts ran out."""
