"""Lines of JSON that are no OTLP, as the spans they tell of: our own calls, LiteLLM's logs, Langfuse's exports.

Each becomes a span in the dialect that its origin speaks over OTLP, so that one set of rules reads both. Ids that are
none of OTLP's are hashed: the same line always gives the same span. Pure: a dict in, records out.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidRecord
from ..records import ScoreRecord, SpanRecord
from .langfuse import langfuse_observation, langfuse_score
from .litellm import litellm_call
from .own import own_call
from .parts import Line, pick

__all__ = ["Read", "read_line"]


@dataclass(frozen=True, slots=True)
class Read:
    """What one line tells of."""

    spans: tuple[SpanRecord, ...] = ()
    scores: tuple[ScoreRecord, ...] = ()


def read_line(line: Line) -> Read:
    """The spans and scores of one line, whichever of the known forms it has.

    Raises:
        InvalidRecord: the form is unknown, or the line lacks what makes a span (ids, a start).
    """
    if "request_model" in line and "span_id" in line:
        span, scores = own_call(line)
        return Read((span,), scores)
    if "call_type" in line and ("response_cost" in line or "spend" in line or "litellm_call_id" in line):
        return Read((litellm_call(line),))
    if pick(line, "traceId", "trace_id") is not None and pick(line, "type") is not None:
        return Read((langfuse_observation(line),))
    if pick(line, "dataType", "data_type") is not None and pick(line, "traceId", "trace_id") is not None:
        return Read((), (langfuse_score(line),))
    raise InvalidRecord("a line that is neither OTLP nor a call of tierlight, LiteLLM or Langfuse")
