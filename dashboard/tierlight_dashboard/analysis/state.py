"""Streams as bytes and back, floats exact, in parts: what a tick did not change is not written again.

One stream is a head (counts, evidence, the end of the sample), one part per reference and one per full chunk
of the sample. Keys: `head <stream>`, `reference <stream> <test>`, `chunk <stream> <number>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import numpy as np

from .drift import BETS
from .learning import signals_of
from .reference import FIRST_FIELD, from_json
from .signals import (
    CALL_SIGNALS,
    ERROR_CLASSES,
    FIELDS,
    ROUTE_SIGNALS,
    Signal,
    error_signal,
    quality_signal,
)
from .streams import CHUNK, Detector, Stream, StreamKey

VERSION = 1
_LANE_BYTES = 3 * BETS * 8


def stream_name(key: StreamKey) -> str:
    return json.dumps(key, ensure_ascii=False, separators=(",", ":"))


def encode(stream: Stream) -> tuple[dict[str, bytes], list[str]]:
    """The parts that differ from what is stored, by key, and the keys to forget. Marks the stream as stored."""
    name = stream_name(stream.key)
    parts: dict[str, bytes] = {}
    for detector in stream.detectors.values():
        if detector.reference is not None and not detector.is_stored:
            parts[f"reference {name} {detector.key}"] = json.dumps(detector.reference.as_json()).encode()
            detector.is_stored = True
    for number in range(stream.clean_chunks, len(stream.chunks)):
        parts[f"chunk {name} {number}"] = stream.chunks[number].tobytes()
    forget = [f"chunk {name} {number}" for number in range(len(stream.chunks), stream.stored_chunks)]
    stream.stored_chunks = stream.clean_chunks = len(stream.chunks)
    parts[f"head {name}"] = _head(stream)
    return parts, forget


def keys_of(stream: Stream) -> list[str]:
    """Every key under which the stream is stored."""
    name = stream_name(stream.key)
    return [
        f"head {name}",
        *(f"reference {name} {key}" for key, d in stream.detectors.items() if d.reference is not None),
        *(f"chunk {name} {number}" for number in range(stream.stored_chunks)),
    ]


def decode(states: Mapping[str, bytes]) -> dict[StreamKey, Stream]:
    """All streams of a store. States that are not of streams are left alone."""
    streams: dict[StreamKey, Stream] = {}
    for key, blob in states.items():
        if key.startswith("head "):
            stream = _stream(blob, states)
            streams[stream.key] = stream
    return streams


def _head(stream: Stream) -> bytes:
    header = {
        "version": VERSION,
        "key": stream.key,
        "pool": stream.pool,
        "first_ns": stream.first_ns,
        "last_ns": stream.last_ns,
        "ordinal": stream.ordinal,
        "seen": stream.seen,
        "days": list(stream.days.items()),
        "names": stream.names,
        "chunks": len(stream.chunks),
        "tail": len(stream.tail),
        "stride": stream.stride,
        "keep_min": stream.keep_min,
        "routes": stream.routes,
        "tests": [
            [
                d.signal.key,
                d.scope,
                d.units,
                d.lanes.shape[2],
                d.rows,
                d.threshold,
                d.grown_at,
                d.opened_ms,
                d.resolved_ms,
                d.recovery is not None,
                d.recovery_lane,
                d.drop,
            ]
            for d in stream.detectors.values()
        ],
    }
    binary = [np.array(stream.tail, dtype=float).tobytes()]
    for detector in stream.detectors.values():
        binary.append(detector.lanes.tobytes())
        binary.append(bytes(detector.recent))
        if detector.recovery is not None:
            binary.append(detector.recovery.tobytes())
    return json.dumps(header, ensure_ascii=False).encode() + b"\n" + b"".join(binary)


def _stream(blob: bytes, states: Mapping[str, bytes]) -> Stream:
    end = blob.index(b"\n")
    header = json.loads(blob[:end])
    at = end + 1
    stream = Stream(
        tuple(header["key"]),
        header["pool"],
        header["first_ns"],
        header["last_ns"],
        header["ordinal"],
        header["seen"],
        {int(day): n for day, n in header["days"]},
        header["names"],
        stride=header["stride"],
        keep_min=header["keep_min"],
        routes=header["routes"],
        stored_chunks=header["chunks"],
        clean_chunks=header["chunks"],
    )
    name = stream_name(stream.key)
    width = FIRST_FIELD + len(FIELDS[stream.kind]) if stream.kind != "pool" else 1
    size = header["tail"] * width * 8
    stream.tail = [
        tuple(row) for row in np.frombuffer(blob[at : at + size], dtype=float).reshape(-1, width).tolist()
    ]
    at += size
    stream.chunks = [
        np.frombuffer(states[f"chunk {name} {number}"], dtype=float).reshape(CHUNK, width)
        for number in range(header["chunks"])
    ]
    signals = {signal.key: signal for signal in _signals(stream)}
    for row in header["tests"]:
        signal, scope, units, lanes, rows, threshold, grown_at, opened, resolved, recovering, lane, drop = row
        detector = Detector(
            signals[signal], scope, units, None, _lanes(blob, at, lanes), bytearray(), rows, threshold
        )
        at += lanes * _LANE_BYTES
        detector.recent = bytearray(blob[at : at + 50 * lanes])
        at += 50 * lanes
        if recovering:
            detector.recovery = _lanes(blob, at, 1)
            at += _LANE_BYTES
        detector.grown_at, detector.recovery_lane, detector.drop = grown_at, lane, drop
        detector.opened_ms, detector.resolved_ms = opened, resolved
        reference = states.get(f"reference {name} {detector.key}")
        if reference is not None:
            detector.reference = from_json(json.loads(reference), detector.signal)
            detector.is_stored = True
        stream.detectors[detector.key] = detector
    return stream


def _lanes(blob: bytes, at: int, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.frombuffer(blob[at : at + count * _LANE_BYTES], dtype=float).reshape(3, BETS, count)


def _signals(stream: Stream) -> Iterable[Signal]:
    if stream.kind == "pool":
        name = stream.key[2]
        return (error_signal() if name == "errors" else quality_signal(name.removeprefix("quality:")),)
    if stream.kind == "calls":
        return (*CALL_SIGNALS, *(error_signal(code) for code in range(1, len(ERROR_CLASSES))))
    if stream.kind == "route":
        return ROUTE_SIGNALS
    return signals_of(stream)
