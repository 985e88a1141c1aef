"""The learned router as one JSON file whose version is the hash of its content, and how it chooses."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ..errors import ConfigurationError
from .decide import Choice
from .embed import Embedder, Vector, hashed
from .learn import Estimator, Point
from .shape import SIZE, Shape, shape_of

Mode = Literal["default", "prior", "full"]
SCHEMA: Final = 1
_SHAPE_AT: Final = 65_000  # beyond the places of any vector
_PLACE: Final = struct.Struct("<Hf")


@dataclass(frozen=True)
class LearnedRouter:
    """Chooses among the candidates of one route by their expected scores.

    Two candidates are told apart by a threshold on the expected gap. More of them, or two under a latency goal, by
    what each is worth: score - cost_weight cost / (mean cost of the dearest) - latency_weight max(0, p50 / goal - 1);
    the largest wins, the cheapest of equals.

    Attributes:
        mode: `default` = too few calls or no threshold, `prior` = by the task alone, `full` = by the prompt too.
        threshold: expected gap from which the second of two candidates is asked.
        reason: what the threshold does, or why the router stays on its default.
        slo_ms: the goal for the median latency; None = latency does not matter.
        latencies: median of the calls learnt from, used for a target of which the last hour says nothing.
        latency_of: the median of a target's last hour in milliseconds, None where unknown.
    """

    route: str
    signal: str
    embedder: str
    dimensions: int
    candidates: tuple[str, ...]
    default: str
    mode: Mode
    threshold: float | None
    arms: Mapping[str, Estimator]
    costs: Mapping[str, float | None]
    comparable: int
    calls: int
    from_ns: int
    to_ns: int
    reason: str = ""
    cost_weight: float = 0.1
    latency_weight: float = 0.1
    slo_ms: float | None = None
    latencies: Mapping[str, float | None] = field(default_factory=dict)
    version: str = ""
    maker: Embedder | None = field(default=None, compare=False)
    latency_of: Callable[[str], float | None] | None = field(default=None, compare=False)

    # ---- choosing ---------------------------------------------------------------------------------------

    def choose(self, text: str, segment: str, candidates: Sequence[str]) -> Choice:
        """The candidate to ask; the default while nothing is learnt."""
        if self.mode == "full":
            return self.choose_by(self._vector(text), shape_of(text), segment, candidates)
        return self.choose_by({}, (), segment, candidates)

    def choose_by(
        self, vector: Vector | Point, shape: Shape, segment: str, candidates: Sequence[str]
    ) -> Choice:
        """`choose`, by what is known of a prompt."""
        known = [name for name in self.candidates if name in candidates]
        if self.mode == "default" or not known:
            return Choice(self.default, "default", version=self.version)
        outlook = {name: self.arms[name].outlook(vector, segment, shape) for name in known}
        scores = {name: score for name, (score, _) in outlook.items()}
        if len(self.candidates) == 2 and len(known) == 2 and self.threshold is not None:
            weak, strong = self.candidates
            chosen = strong if scores[strong] - scores[weak] >= self.threshold else weak
            return Choice(chosen, "learned", scores, self.threshold, self.version)
        dearest = max((cost for name in self.candidates if (cost := self.costs.get(name))), default=0.0)

        def worth(name: str) -> float:
            score, cost = outlook[name]
            # A cost that is unknown is taken for the dearest: nothing is chosen for being unmeasured.
            share = (dearest if cost is None else cost) / dearest if dearest else 0.0
            return score - self.cost_weight * share - self.latency_weight * self._lateness(name)

        return Choice(max(known, key=worth), "learned", scores, version=self.version)

    def _lateness(self, name: str) -> float:
        """How far beyond the goal a candidate's median is, as a share of it; 0 where either is not known."""
        if self.slo_ms is None:
            return 0.0
        live = self.latency_of(name) if self.latency_of is not None else None
        median = live if live is not None else self.latencies.get(name)
        return 0.0 if median is None else max(0.0, median / self.slo_ms - 1)

    def _vector(self, text: str) -> Vector | Point:
        """The prompt as arrays where numpy is there, as a mapping where it is not, empty where it does not count."""
        maker = self.maker
        if maker is None:
            return {}
        if maker.id != "hash1":
            return Point(None, maker.matrix([text])[0])
        sparse = maker.embed(text)
        return (Point.of(sparse) if sparse else None) or sparse

    # ---- as a file --------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The artefact's content."""
        return json.dumps(
            {**self._document(), "version": self.version}, sort_keys=True, separators=(",", ":")
        )

    def computed_version(self) -> str:
        """What the version has to be for this content."""
        canonical = json.dumps(self._document(), sort_keys=True, separators=(",", ":"))
        return f"lr1-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"

    def _document(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA, "route": self.route, "signal": self.signal, "embedder": self.embedder,
            "dimensions": self.dimensions, "candidates": list(self.candidates), "default": self.default, "mode": self.mode,
            "threshold": self.threshold, "costs": dict(self.costs), "comparable": self.comparable, "calls": self.calls,
            "from_ns": self.from_ns, "to_ns": self.to_ns, "reason": self.reason, "cost_weight": self.cost_weight,
            "latency_weight": self.latency_weight, "slo_ms": self.slo_ms, "latencies": dict(self.latencies),
            "arms": {name: _arm_json(arm) for name, arm in self.arms.items()},
        }  # fmt: skip

    @classmethod
    def from_json(cls, text: str | bytes, maker: Embedder | None = None) -> LearnedRouter:
        """Read an artefact and check its hash.

        Args:
            maker: the embedder of the id that the artefact names.

        Raises:
            ConfigurationError: it is no artefact, of a newer schema, or its content was changed.
        """
        try:
            document = json.loads(text)
            if document["schema"] > SCHEMA:
                raise ConfigurationError(
                    f"learned router: this version reads schema {SCHEMA}, got {document['schema']}: upgrade tierlight"
                )
            router = cls(
                route=document["route"], signal=document["signal"], embedder=document["embedder"],
                dimensions=document["dimensions"], candidates=tuple(document["candidates"]), default=document["default"],
                mode=document["mode"], threshold=document["threshold"],
                arms={name: _arm_from(arm, document["dimensions"]) for name, arm in document["arms"].items()},
                costs=document["costs"], comparable=document["comparable"], calls=document["calls"],
                from_ns=document["from_ns"], to_ns=document["to_ns"], reason=document["reason"],
                cost_weight=document["cost_weight"], latency_weight=document["latency_weight"],
                slo_ms=document["slo_ms"], latencies=document["latencies"], version=document["version"], maker=maker,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, struct.error) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(
                f"learned router: the file is no artefact of `tierlight learn` ({error})"
            ) from error
        if router.version != router.computed_version():
            raise ConfigurationError(
                f"learned router {router.route!r}: its content does not have the hash that its version {router.version!r} names; train it again"
            )
        return router


def _arm_json(arm: Estimator) -> dict[str, Any]:
    return {
        "segments": list(arm.segments), "scores": list(arm.scores), "weights": [float(f"{one:.9g}") for one in arm.weights],
        "vectors": [packed(vector) for vector in arm.vectors], "slopes": packed(dict(enumerate(arm.slopes))), "intercept": arm.intercept,
        "shape_slopes": list(arm.shape_slopes), "shape_mean": list(arm.shape_mean),
        "costs": [None if one != one else float(f"{one:.9g}") for one in arm.costs],
    }  # fmt: skip


def _arm_from(document: Mapping[str, Any], dimensions: int) -> Estimator:
    return Estimator(
        vectors=tuple(unpacked(one) for one in document["vectors"]),
        segments=tuple(document["segments"]),
        scores=tuple(document["scores"]),
        weights=tuple(document["weights"]),
        dimensions=dimensions,
        slopes=tuple(unpacked(document["slopes"]).values()),
        intercept=document["intercept"],
        shape_slopes=tuple(document["shape_slopes"]),
        shape_mean=tuple(document["shape_mean"]),
        costs=tuple(math.nan if one is None else one for one in document["costs"]),
    )


def packed(vector: Vector) -> str:
    """A sparse vector as text; `unpacked` reads it."""
    return base64.b64encode(
        b"".join(_PLACE.pack(index, value) for index, value in sorted(vector.items()))
    ).decode()


def unpacked(text: str) -> Vector:
    """A vector that `packed` wrote."""
    return dict(_PLACE.iter_unpack(base64.b64decode(text, validate=True)))


def features_of(text: str) -> str:
    """A prompt's hashed words and its shape, for a span without its text; `read_features` reads it."""
    return packed({**hashed(text), **{_SHAPE_AT + n: one for n, one in enumerate(shape_of(text))}})


def read_features(text: str) -> tuple[Vector, Shape]:
    """Vector and shape that `features_of` wrote; the shape is empty where it was not sent."""
    places = dict(unpacked(text))
    shape = tuple(places.pop(_SHAPE_AT + n) for n in range(SIZE) if _SHAPE_AT + n in places)
    return places, shape if len(shape) == SIZE else ()
