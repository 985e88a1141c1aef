"""One call's life: it begins, its response is read, it ends once, and a lean record is handed over.

Hot path: two clocks, two ids and a dict. No OpenTelemetry SDK span is built for our own pipeline (24 to 34 us
each, measured 2026-11); the sink writes the record to the wire by itself.
"""

# Long because one call from begin to end; on the hot path nothing is gained by a further module.
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from . import semconv as s
from ._content import Frozen, Preparation
from ._describe import describe
from ._failure import error_class, http_status, machine_code
from ._guard import guarded
from ._join import join_attributes
from ._record import KIND_INTERNAL, AttributeValue, FinishedCall
from ._runtime import Runtime
from ._spec import ROUTE_SPAN, Attributes, Request, RouteSpec
from ._usage import ResponseFacts

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

_TRUNCATED: Final = frozenset(
    {"length", "max_tokens", "MAX_TOKENS", "incomplete", "model_length", "model_context_window_exceeded"}
)


class Call:
    """A call under way: what `with route(...) as call` and `current_call()` give.

    It ends by itself. Nothing here raises for a fault of ours.
    """

    # Defaults on the class, not in `__init__`: a plain call sets a third of them.
    id: str = ""
    trace_id: int = 0
    span_id: int = 0
    start_ns: int = 0
    output: Frozen | None = None
    context: Context | None = None  # what is current for OpenTelemetry while a request runs
    span: Span | None = None  # of the application's own provider, where that was joined
    asked: tuple[RouteSpec, tuple[Any, ...], dict[str, Any]] | None = None  # arguments, for a judge
    checks: tuple[tuple[str, Any], ...] = ()
    is_block: bool = False  # of a `with` block, which returns nothing: the requests inside bring the answers
    attempts: list[FinishedCall] | None = None  # of the span around several: their records, as they end
    baseline: tuple[str, str] | None = None  # of the same: provider and model to compare its cost with
    _annotations: Attributes | None = None
    _scores: dict[str, float] | None = None
    _observed: ResponseFacts | None = None
    _first_perf: int | None = None
    _end_perf: int | None = None
    _inner_calls: int = 0
    _inner_last: object = None
    _inner_facts: ResponseFacts | None = None
    _inner_call: Call | None = None
    _is_foreign: bool = False
    _held: tuple[Call, FinishedCall] | None = None

    def __init__(
        self,
        runtime: Runtime,
        spec: RouteSpec,
        outer: Call | None,
        trace_id: int,
        parent_span_id: int | None,
        request: Request | None,
    ) -> None:
        self.runtime = runtime
        self.spec = spec
        self._outer = outer
        self._request = request
        self.trace_id = trace_id
        self.parent_span_id = parent_span_id
        self.span_id = runtime.ids.span_id()
        if spec.checks and request is None:
            self.checks = spec.checks
        self._is_open = [True]  # list.pop is atomic: only one of several ends gets through
        self.start_ns = runtime.clock.time_ns()
        self._perf = runtime.clock.perf_ns()
        if outer is not None and request is not None and outer._lends_its_id():
            self.id = outer.id  # what the application asked for and the request that answers it are one call
        else:
            self.id = runtime.ids.call_id(self.start_ns)
        if outer is not None:
            outer._inner_calls += 1

    def _lends_its_id(self) -> bool:
        return self._inner_calls == 0 if self._request is None else self._request.is_route

    # ---- what a user says about the call ----------------------------------------------------------------

    @property
    def route(self) -> str:
        """The declared route, "" for a wrapped client outside of any."""
        return self.spec.name

    @guarded("annotate a call")
    def annotate(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Add attributes to the span, under names of `tierlight.semconv` or your own."""
        if self._annotations is None:
            self._annotations = {}
        self._annotations.update(attributes)

    @guarded("take the cost of a call")
    def cost(self, amount: float, currency: str = "USD") -> None:
        """Say what the call cost, where you know better than a price list.

        Args:
            amount: in whole units of the currency, 0 or more.
            currency: ISO 4217.
        """
        self.annotate(
            {
                s.TIERLIGHT_COST_AMOUNT: float(amount),
                s.TIERLIGHT_COST_CURRENCY: currency,
                s.TIERLIGHT_COST_SOURCE: "caller",
            }
        )

    @guarded("take a business key")
    def join(self, **keys: str) -> None:
        """Name the business keys of the answer (`ticket="T-17"`), so that an outcome of days later finds its call.

        Only a hash of the value is sent, unless `configure(open_join_keys=...)` lists the key.
        """
        if self.is_recorded:
            self.annotate(join_attributes(self.runtime, keys))

    @guarded("say whose call it is")
    def identify(self, *, user: str | None = None, conversation: str | None = None) -> None:
        """Say whose call it is, and of which conversation it is a part.

        Args:
            user: sent as a hash unless `configure(open_join_keys=...)` lists "user".
            conversation: the session's id, sent as it is.
        """
        if not self.is_recorded:
            return
        if user:
            hashed = join_attributes(self.runtime, {"user": user})
            self.annotate({s.USER_ID: next(iter(hashed.values()))})
        if conversation:
            self.annotate({s.GEN_AI_CONVERSATION_ID: conversation})

    @property
    def is_recorded(self) -> bool:
        """False for what `with route(...)` gives where nothing is recorded."""
        return True

    @property
    def request(self) -> Request | None:
        """What is known of the request; None for a call that is only declared."""
        return self._request

    @property
    def captures_content(self) -> bool:
        """Whether its texts are captured."""
        said = self.spec.captures_content
        return self.runtime.content.captures if said is None else said

    def leave_to_others(self) -> None:
        """An instrumentation that is not ours records this call: it has no span of its own then."""
        self._inner_calls += 1
        self._is_foreign = True

    def is_known_inside(self, result: object) -> bool:
        """Whether a call inside has this very result and records it."""
        return self._inner_calls > 0 and result is not None and result is self._inner_last

    # ---- its end ----------------------------------------------------------------------------------------

    def first_chunk(self) -> None:
        """Note that the first chunk of the answer is there."""
        if self._first_perf is None:
            self._first_perf = self.runtime.clock.perf_ns()

    def answer_arrived(self) -> None:
        """Note that the answer is whole: what is done with it before the end is not the call's time."""
        self._end_perf = self.runtime.clock.perf_ns()

    def take_score(self, name: str, value: float) -> None:
        """Put a score on the span: on the one of the request inside, where that is the real call."""
        if self._scores is None:
            self._scores = {}
        self._scores[s.TIERLIGHT_SCORE_PREFIX + name] = value

    @property
    def wants_text(self) -> bool:
        """Whether somebody will look at the text of a stream."""
        outer = self._outer
        return bool(self.checks or self.captures_content or self.asked) or (
            outer is not None and bool(outer.checks or outer.asked)
        )

    def answering(self) -> Call:
        """The call that really answered: the last one inside, else this one."""
        return self._inner_call if self._inner_call is not None and self.request is None else self

    def answer_for(self, block: Call, arguments: Mapping[str, Any]) -> None:
        """Have the answer of this request checked and judged as the block around it declares."""
        spec = block.spec
        self.checks = spec.checks
        if spec.judge is not None:
            self.asked = (spec, (), dict(arguments))

    def pass_on_checks(self) -> bool:
        """Leave checks and judge to the call inside, if its stream is still to be read."""
        inner = self._inner_call
        if inner is None or not inner._is_open:
            return False
        inner.checks, self.checks = self.checks, ()
        inner.asked, self.asked = self.asked, None
        return True

    def take_facts(self, facts: ResponseFacts) -> None:
        """Keep what a response says until the end; the last one counts."""
        self._observed = facts

    @guarded("record the end of a call")
    def succeed(self, facts: ResponseFacts | None, result: object = None) -> None:
        """End well, with what the result says of itself."""
        if not self._close():
            return
        own = facts or self._observed
        if self._is_covered(own, result) or (self.spec.needs_facts and own is None and not self._request):
            self._release()
            return
        outcome = "ok"
        if own is not None and own.finish_reasons and own.finish_reasons[0] in _TRUNCATED:
            outcome = "truncated"
        self.tell_outer(result, own)
        self._hand_over(self._record(own, outcome, self._first_perf is not None or None))

    @guarded("record a failed call")
    def fail(self, error: BaseException, facts: ResponseFacts | None = None) -> None:
        """End with the exception that the call raised."""
        if not self._close():
            return
        own = facts or self._observed
        is_inner = self._is_foreign or error is self._inner_last or http_status(error) is None
        if self._inner_calls and self._request is None and is_inner:
            self._release()
            return
        word = error_class(error)
        if word == "not_sent" and own is not None:
            word = "unknown"  # an answer was there, so something had been sent
        outcome = word if word in ("cancelled", "not_sent") else "error"
        self.tell_outer(error, own)
        record = self._record(own, outcome, False if self._first_perf is not None else None)
        record.is_error = outcome != "cancelled"
        record.attributes[s.ERROR_TYPE] = word
        status = http_status(error)
        if status is not None:
            record.attributes[s.HTTP_RESPONSE_STATUS_CODE] = status
        code = machine_code(error)
        record.message = f"{type(error).__name__}: {code}" if code else type(error).__name__
        self._hand_over(record)

    @guarded("record an abandoned stream")
    def abandon(self, facts: ResponseFacts | None = None) -> None:
        """End because nobody reads the stream any more."""
        if not self._close():
            return
        own = facts or self._observed
        if self._inner_calls and self._request is None:
            self._release()
            return
        self.tell_outer(None, own)
        record = self._record(own, "cancelled", False)
        record.attributes[s.ERROR_TYPE] = "cancelled"
        self._hand_over(record)

    def _close(self) -> bool:
        try:
            return self._is_open.pop()
        except IndexError:
            return False

    def _is_covered(self, facts: ResponseFacts | None, result: object) -> bool:
        """Whether the calls inside were the real ones: then this one is only their route and has no span."""
        if not self._inner_calls or self._request is not None:
            return False
        inner = self._inner_facts
        return (
            facts is None
            or self._is_foreign
            or (result is not None and result is self._inner_last)
            or (inner is not None and (facts == inner or bool(inner.response_id == facts.response_id != "")))
        )

    def tell_outer(self, last: object, facts: ResponseFacts | None = None) -> None:
        """Let the calls around this one know its result, so that they do not record it a second time."""
        outer = self._outer
        while outer is not None:
            if outer._is_open:
                outer._inner_last = last
                outer._inner_call = self
                if facts is not None:
                    outer._inner_facts = facts
            outer = outer._outer

    def _release(self) -> None:
        """End without a span: the scores go on the span of the call inside that waited for them."""
        self._deliver_held(self._scores)
        # What is still read must be free to be collected: its end leads back to here.
        self._inner_last = None

    def _deliver_held(self, scores: dict[str, float] | None) -> None:
        held, self._held = self._held, None
        if held is not None:
            call, record = held
            if scores:
                record.attributes.update(scores)
            call._deliver(record)

    def _hand_over(self, record: FinishedCall) -> None:
        self._deliver_held(None)
        self._inner_last = None
        outer = self._outer
        if outer is not None and outer.attempts is not None:
            outer.attempts.append(record)
        if outer is not None and outer.checks and outer._is_open:
            # The route around it will say how good the answer was: its scores go on this very span.
            outer._deliver_held(None)
            outer._held = (self, record)
        else:
            self._deliver(record)

    def _deliver(self, record: FinishedCall) -> None:
        joined = self.runtime.joined
        if joined is None:
            self.runtime.sink.offer(record)
        else:
            joined.finish(record, self.span, self.context)

    def _record(self, facts: ResponseFacts | None, outcome: str, completed: bool | None) -> FinishedCall:
        spec, request = self.spec, self._request
        if request is not None and request.is_route:
            return self._record_route(request, outcome)
        attributes = spec.base.copy()
        attributes[s.TIERLIGHT_CALL_ID] = self.id
        operation, provider, model = "chat", spec.provider, spec.model
        if request is not None:
            operation, provider = request.operation, request.provider or provider
            model = request.model or model
            attributes.update(request.attributes)
        if facts is not None:
            if request is None:
                operation = facts.operation
            provider = provider or facts.provider
            model = model or facts.model
            describe(facts, attributes)
        else:
            attributes[s.TIERLIGHT_USAGE_SOURCE] = "absent"
        attributes[s.GEN_AI_OPERATION_NAME] = operation
        if provider:
            attributes[s.GEN_AI_PROVIDER_NAME] = provider
        if model:
            attributes[s.GEN_AI_REQUEST_MODEL] = model
        attributes[s.TIERLIGHT_OUTCOME] = outcome
        if self._first_perf is not None:
            attributes[s.GEN_AI_REQUEST_STREAM] = True
            attributes[s.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = (self._first_perf - self._perf) / 1e9
        if completed is not None:
            attributes[s.TIERLIGHT_STREAM_COMPLETED] = completed
        if self._annotations is not None:
            attributes.update(self._annotations)
        if self._scores is not None:
            attributes.update(self._scores)
        record = self._span_record(f"{operation} {model}" if model else operation, attributes)
        if self._annotations is not None or self.captures_content:
            self._prepare(record)
        return record

    def _span_record(self, name: str, attributes: Attributes) -> FinishedCall:
        end_perf = self._end_perf if self._end_perf is not None else self.runtime.clock.perf_ns()
        end_ns = self.start_ns + end_perf - self._perf
        return FinishedCall(
            self.trace_id, self.span_id, self.parent_span_id, name, self.start_ns, end_ns, attributes
        )

    def _record_route(self, request: Request, outcome: str) -> FinishedCall:
        base = self.spec.base
        attributes: Attributes = {name: base[name] for name in ROUTE_SPAN if name in base}
        attributes[s.TIERLIGHT_SPAN_ROLE] = "route"
        attributes[s.TIERLIGHT_CALL_ID] = self.id
        attributes[s.TIERLIGHT_OUTCOME] = outcome
        attributes.update(request.attributes)
        if self._annotations is not None:
            attributes.update(self._annotations)
        record = self._span_record(f"route {self.spec.name}", attributes)
        record.kind = KIND_INTERNAL
        record.attempts, record.baseline = self.attempts, self.baseline
        if self._annotations is not None:
            self._prepare(record)
        return record

    def _prepare(self, record: FinishedCall) -> None:
        contents: dict[str, Frozen] = {}
        if self.captures_content:
            if self._request is not None and self._request.contents is not None:
                contents.update(self._request.contents)
            if self.output is not None:
                contents[s.GEN_AI_OUTPUT_MESSAGES] = self.output
        annotations = self._annotations or {}
        texts = tuple(name for name, value in annotations.items() if isinstance(value, str))
        preparation = Preparation(self.runtime.content, contents, texts)
        record.prepare = preparation
        record.content_bytes = preparation.nbytes


class IdleCall(Call):
    """What a `with` block gets where nothing is recorded: before `configure()`, or sampled out."""

    def __init__(self, spec: RouteSpec) -> None:
        self.spec = spec
        self.parent_span_id = None
        self._outer = self._request = None
        self._is_open = []

    @property
    def is_recorded(self) -> bool:
        return False
