"""tierlight: a light per route. See what each kind of LLM call costs, whether its quality holds, which tier it needs.

>>> import tierlight
>>> @tierlight.route("classify-intent", tier="small")
... def classify(question):
...     return {"model": "gpt-5-mini", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}
>>> classify("Where is my parcel?")["model"]
'gpt-5-mini'
"""

from ._call import Call
from ._config import aflush, configure, flush, shutdown, stats
from ._context import current_call
from ._judge import Judge
from ._lifecycle import install_signal_flush
from ._observe import carry, observe
from ._route import Route, route
from ._score import score
from ._usage import ResponseFacts, usage_from
from ._validate import Matches, OneOf, Schema
from ._version import __version__
from ._wrap import wrap
from .errors import ConfigurationError, ScoreError, TierlightError

__all__ = [
    "Call",
    "ConfigurationError",
    "Judge",
    "Matches",
    "OneOf",
    "ResponseFacts",
    "Route",
    "Schema",
    "ScoreError",
    "TierlightError",
    "__version__",
    "aflush",
    "carry",
    "configure",
    "current_call",
    "flush",
    "install_signal_flush",
    "observe",
    "route",
    "score",
    "shutdown",
    "stats",
    "usage_from",
    "wrap",
]
