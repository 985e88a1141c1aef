"""For the tests of code that calls models: capture the calls, fake the provider, freeze the clock.

The pytest plug-in that comes with the package gives `captured_calls` and `fake_provider` as fixtures.
"""

from tierlight.testing._capture import (
    Captured,
    CapturedCall,
    CapturedScore,
    FrozenClock,
    SequentialIds,
    capture_calls,
)
from tierlight.testing._provider import FakeProvider
from tierlight.testing._wires.reply import FakeError, FakeReply, FakeRequest, FakeToolCall

__all__ = [
    "Captured",
    "CapturedCall",
    "CapturedScore",
    "FakeError",
    "FakeProvider",
    "FakeReply",
    "FakeRequest",
    "FakeToolCall",
    "FrozenClock",
    "SequentialIds",
    "capture_calls",
]
