"""One routed call as a generator of steps: it says what to send and when to wait, and never does either itself.

The synchronous and the asynchronous router drive the same generator. Attempts go by: decide; ask; on a fault retry
or fail over; on a failed validator escalate; all within one deadline.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from .. import semconv as s
from .._call import Call
from .._content import Frozen
from .._guard import attempt
from .._messages import answer_messages
from .._record import Clock
from .._usage import ResponseFacts, usage_from
from ..errors import DeadlineExceeded
from .breaker import BreakerBoard, State
from .decide import Decision, Draws
from .declared import Route, Target, ValidatorSpec
from .faults import LONGEST_RETRY_AFTER_S, Fault, fault_of
from .latencies import Latencies
from .policy import Policy
from .reports import key_of, tell_fault, tell_success
from .request import Limits, ModelRequest
from .spans import end, fail, note
from .validators import Answer, Check, Verdict, check, judge_request, judge_verdict

LEAST_S: Final = 0.5  # with less than this left, another attempt is not worth beginning
BACKOFF_S: Final = 0.25
BACKOFF_MAX_S: Final = 4.0
_REFUSALS: Final = frozenset({"content_filter", "refusal", "SAFETY", "PROHIBITED_CONTENT"})


@dataclass(frozen=True, slots=True)
class Send:
    """Ask a target; the answer comes back as a `Reply`."""

    target: Target
    request: ModelRequest
    limits: Limits
    call: Call | None
    is_streaming: bool = False


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """How a `Send` ended."""

    result: Any = None
    error: BaseException | None = None


Steps = Generator[Send | Sleep, Reply | None, Any]


class Recorder(Protocol):
    """Begins the span of one attempt; None where nothing is recorded."""

    def __call__(
        self, target: Target, operation: str, attributes: Mapping[str, Any], purpose: str
    ) -> Call | None:
        """The call of the attempt."""


@dataclass
class Job:
    """Everything about one call: what is asked, what was decided, what happened."""

    policy: Policy
    route: Route
    request: ModelRequest
    decision: Decision
    clock: Clock
    rng: Draws
    board: BreakerBoard
    record: Recorder
    latencies: Latencies
    checks: Mapping[str, Check] = field(default_factory=dict)
    is_streaming: bool = False
    attempts: int = 0
    escalations: int = 0
    fallbacks: int = 0
    tried: list[str] = field(default_factory=list)
    answered: str = ""
    accepted_step: str = ""  # the cascade's step whose answer was accepted without escalation
    verdicts: tuple[Verdict, ...] = ()

    @property
    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return self.clock.perf_ns() / 1e9

    def target(self, name: str) -> Target:
        """A target of the policy."""
        return self.policy.targets[name]


@dataclass(slots=True)
class _Next:
    """The attempt to make: on which target and why."""

    target: str
    role: str = "primary"
    reason: str = "first"
    trigger: str = ""
    left: str = ""  # the target that was left
    step: str = ""  # of a cascade: the step that this target stands for


def run(job: Job) -> Steps:
    """Make attempts until one is good, no target is left or the time is over; gives the accepted response.

    Raises:
        DeadlineExceeded: the time ran out before anything could be asked.
        BaseException: the last attempt's own exception, with every attempt named in its notes.
    """
    deadline = job.now + job.route.deadline_s
    steps = [job.decision.chosen]
    if job.route.strategy == "cascade" and job.decision.chosen in job.route.candidates:
        steps = list(job.route.candidates[job.route.candidates.index(job.decision.chosen) :])
    todo = _Next(steps[0], step=steps[0])
    if not job.decision.is_delivered:
        # The assigned target is not to be had: this call is served by a fallback, though nothing has failed in it.
        todo = _Next(steps[0], "fallback", "fallback", job.decision.reason, job.decision.assigned, steps[0])
        job.fallbacks = 1
    retries = 0
    kept: tuple[Any, Call | None, str] | None = None  # an answer that a validator rejected: better than none
    pending = list(job.policy.chain(todo.target))
    while True:
        target = job.target(todo.target)
        left = deadline - job.now
        if left <= 0 and not job.attempts:
            raise DeadlineExceeded(
                f"route {job.route.name!r}: its deadline of {job.route.deadline_s:g} s was over before anything was asked"
            )
        state = job.board.state(key_of(target), job.now)
        job.board.admit(
            key_of(target), job.now, job.route.timeout_s + job.route.deadline_s, job.policy.breaker
        )
        call = job.record(target, job.request.operation, _attempt_attributes(job, todo, state), "production")
        job.attempts += 1
        job.tried.append(todo.target)
        limits = Limits(min(job.route.timeout_s, left), min(job.route.first_token_timeout_s, left))
        asked_at = job.now
        reply = yield Send(target, job.request, limits, call, job.is_streaming)
        assert reply is not None
        if reply.error is None:
            tell_success(job.board, job.policy.breaker, target, job.now)
            job.answered = todo.target
            if not job.is_streaming:
                job.latencies.tell(todo.target, job.now, job.now - asked_at)
            else:
                if call is not None:
                    call.annotate({s.TIERLIGHT_ATTEMPT_FINAL: True})
                return reply.result
            facts = usage_from(reply.result)
            if call is not None:
                call.answer_arrived()
                if call.captures_content:
                    call.output = attempt("capture an answer", _frozen_answer, reply.result)[1]
            refused = job.route.on_refusal == "fallback" and _is_refusal(facts)
            is_last = todo.step == steps[-1]
            verdicts, passed = ((), True) if refused else (yield from _judge(job, call, reply.result))
            job.verdicts = verdicts
            following = _after_answer(job, todo, steps, pending, refused, passed, is_last, deadline)
            if following is None:
                if kept is not None and refused:
                    result, kept_call, job.answered = kept
                    end(call, facts, verdicts, False)
                    end(kept_call, usage_from(result), (), True)
                    return result
                if kept is not None:
                    end(kept[1], usage_from(kept[0]), (), False)
                job.accepted_step = todo.target if passed and not is_last else ""
                end(call, facts, verdicts, True)
                return reply.result
            if kept is not None:
                end(kept[1], usage_from(kept[0]), (), False)
            # It stays unfinished until it is known whether a later answer takes its place.
            kept = (reply.result, call, todo.target)
            note(call, verdicts)
            todo, retries = following, 0
            pending = list(job.policy.chain(todo.target)) if todo.role == "escalation" else pending
            continue
        fault = fault_of(reply.error)
        tell_fault(job.board, job.policy.breaker, target, fault, job.now)
        wait = _retry_wait(job, fault, retries, deadline)
        if wait is not None:
            fail(call, reply.error, False)
            retries += 1
            yield Sleep(wait)
            todo = _Next(todo.target, "retry", "retry", fault.kind, todo.target, todo.step)
            continue
        following = _after_fault(job, todo, steps, pending, fault, deadline)
        if following is not None:
            fail(call, reply.error, False)
            todo, retries = following, 0
            continue
        fail(call, reply.error, kept is None)
        if (
            kept is not None
            and not isinstance(reply.error, (KeyboardInterrupt, SystemExit))
            and fault.kind != "cancelled"
        ):
            result, kept_call, job.answered = kept
            end(kept_call, usage_from(result), (), True)
            return result
        if kept is not None:
            end(kept[1], usage_from(kept[0]), (), False)
        _annotate_error(reply.error, job)
        raise reply.error


def _frozen_answer(response: Any) -> Frozen:
    return Frozen(answer_messages(response))


# ---- what follows ---------------------------------------------------------------------------------------


def _after_answer(
    job: Job,
    todo: _Next,
    steps: list[str],
    pending: list[str],
    refused: bool,
    passed: bool,
    is_last: bool,
    deadline: float,
) -> _Next | None:
    """The attempt after an answer, None to keep the answer."""
    if deadline - job.now < LEAST_S:
        return None
    if refused:
        name = _next_free(job, pending)
        if name is None:
            return None
        job.fallbacks += 1
        return _Next(name, "fallback", "fallback", "content_filter", todo.target, todo.step)
    if passed or is_last or job.route.strategy != "cascade":
        return None
    job.escalations += 1
    failed = next((one.name for one in job.verdicts if not one.passed), "validator")
    step = steps[steps.index(todo.step) + 1]
    return _Next(step, "escalation", "escalation", f"validator:{failed}", todo.target, step)


def _after_fault(
    job: Job, todo: _Next, steps: list[str], pending: list[str], fault: Fault, deadline: float
) -> _Next | None:
    """The attempt after a fault that is not tried again on the same target, None to give up."""
    if not fault.may_fail_over or deadline - job.now < LEAST_S:
        return None
    if fault.kind == "too_long":
        pending[:] = [name for name in pending if _is_longer(job.target(name), job.target(todo.target))]
    name, step = _next_free(job, pending), todo.step
    if name is None and step in steps[:-1]:
        name = step = steps[steps.index(step) + 1]  # a cascade's next step stands in for a fallback
        pending[:] = job.policy.chain(name)
    if name is None:
        return None
    job.fallbacks += 1
    return _Next(name, "fallback", "fallback", fault.kind, todo.target, step)


def _is_longer(target: Target, than: Target) -> bool:
    if target.max_input_tokens is None:
        return True
    return than.max_input_tokens is not None and target.max_input_tokens > than.max_input_tokens


def _next_free(job: Job, pending: list[str]) -> str | None:
    """The next target of the chain whose breaker lets a request through; the others are passed over."""
    while pending:
        name = pending.pop(0)
        target = job.target(name)
        if name in job.tried or not target.is_enabled or job.request.operation not in _operations(target):
            continue
        if job.board.is_available(key_of(target), job.now):
            return name
    return None


def _operations(target: Target) -> tuple[str, ...]:
    special = tuple(one for one in target.capabilities if one in ("embeddings", "rerank"))
    return special or ("chat",)


def _retry_wait(job: Job, fault: Fault, retries: int, deadline: float) -> float | None:
    """Seconds until the same target is asked again, None if it is not."""
    if not fault.may_retry or retries >= job.route.retries:
        return None
    if fault.kind == "rate_limit":
        if fault.retry_after_s is None or fault.retry_after_s > LONGEST_RETRY_AFTER_S:
            return None
        wait = fault.retry_after_s
    else:
        wait = job.rng.random() * min(BACKOFF_MAX_S, BACKOFF_S * 2**retries)
    return wait if deadline - job.now - wait >= LEAST_S else None


def _is_refusal(facts: ResponseFacts | None) -> bool:
    return facts is not None and (facts.is_refusal or bool(set(facts.finish_reasons) & _REFUSALS))


# ---- validators -----------------------------------------------------------------------------------------


def _judge(
    job: Job, call: Call | None, response: Any
) -> Generator[Send | Sleep, Reply | None, tuple[tuple[Verdict, ...], bool]]:
    """Run the route's checks until one fails; a judge is an attempt of its own."""
    if not job.route.validators:
        return (), True
    answer = Answer.of(response)
    verdicts: list[Verdict] = []
    # Cheap before dear: what needs a model comes last, whatever the order in the policy.
    for spec in sorted(job.route.validators, key=lambda one: one.kind == "judge"):
        if spec.kind == "judge":
            verdict = yield from _ask_judge(job, spec, answer)
        else:
            verdict = check(spec, job.request, answer, job.checks)
        verdicts.append(verdict)
        failed = verdict.passed is False or (
            verdict.passed is None and job.route.on_validator_error == "escalate"
        )
        if failed:
            return tuple(verdicts), False
    return tuple(verdicts), True


def _ask_judge(
    job: Job, spec: ValidatorSpec, answer: Answer
) -> Generator[Send | Sleep, Reply | None, Verdict]:
    target = job.target(spec.options["target"])
    attributes = {s.TIERLIGHT_ATTEMPT_ROLE: "judge", s.TIERLIGHT_ATTEMPT_INDEX: job.attempts}
    call = job.record(target, "chat", attributes, "judge")
    reply = yield Send(
        target,
        judge_request(spec, job.request, answer),
        Limits(job.route.timeout_s, job.route.first_token_timeout_s),
        call,
    )
    assert reply is not None
    if reply.error is not None:
        fail(call, reply.error, True)
        if fault_of(reply.error).kind == "cancelled":
            raise reply.error
        return Verdict("judge", None, type(reply.error).__name__)
    end(call, usage_from(reply.result), (), True)
    return judge_verdict(spec, reply.result)


# ---- what the attempts and the caller are told ------------------------------------------------------------


def _attempt_attributes(job: Job, todo: _Next, state: State) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        s.TIERLIGHT_ATTEMPT_INDEX: job.attempts,
        s.TIERLIGHT_ATTEMPT_REASON: todo.reason,
        s.TIERLIGHT_ATTEMPT_ROLE: todo.role,
        s.TIERLIGHT_ATTEMPT_BREAKER: state,
    }
    if todo.trigger:
        attributes[s.TIERLIGHT_ATTEMPT_TRIGGER] = todo.trigger
    if todo.left:
        attributes[s.TIERLIGHT_ATTEMPT_ESCALATED_FROM] = todo.left
    if todo.target == job.decision.assigned:
        attributes[s.TIERLIGHT_ACT_PROB] = float(job.decision.act_prob)
    return attributes


def _annotate_error(error: BaseException, job: Job) -> None:
    """Name every attempt on the exception that the caller sees; the exception itself stays as it is."""
    if len(job.tried) > 1 and isinstance(error, Exception):
        error.add_note(f"tierlight tried {', '.join(job.tried)} on route {job.route.name!r}")
