"""One TOML table that is read key by key; what nobody read is an error that names the key."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar, overload

from ..errors import PolicyError

T = TypeVar("T")
_NO_DEFAULT: Final = object()


class Table:
    """The keys of a table and where it stands in the document, such as `route.support.reply`."""

    def __init__(self, values: Mapping[str, Any], where: str = "") -> None:
        self._values = values
        self._where = where
        self._left = set(values)

    def _path(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def take(self, key: str, kinds: tuple[type, ...], default: Any = _NO_DEFAULT) -> Any:
        """The value of a key of one of these types."""
        self._left.discard(key)
        if key not in self._values:
            if default is _NO_DEFAULT:
                raise PolicyError(f"{self._path(key)}: it is missing")
            return default
        value = self._values[key]
        if not isinstance(value, kinds) or (
            isinstance(value, bool) and bool not in kinds and object not in kinds
        ):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise PolicyError(f"{self._path(key)}: expected {expected}, got {type(value).__name__}")
        return value

    def word(self, key: str, default: Any = _NO_DEFAULT, among: tuple[str, ...] = ()) -> str:
        """A text, one of a few words where they are given."""
        value: str = self.take(key, (str,), default)
        if among and key in self._values and value not in among:
            raise PolicyError(f"{self._path(key)}: one of {', '.join(among)}, got {value!r}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        return bool(self.take(key, (bool,), default))

    @overload
    def number(
        self, key: str, default: float, *, low: float = 0, high: float = math.inf, required: bool = False
    ) -> float: ...
    @overload
    def number(
        self, key: str, default: None, *, low: float = 0, high: float = math.inf, required: bool = False
    ) -> float | None: ...
    def number(
        self,
        key: str,
        default: float | None,
        *,
        low: float = 0,
        high: float = math.inf,
        required: bool = False,
    ) -> float | None:
        """A finite number within bounds."""
        value = self.take(key, (int, float), _NO_DEFAULT if required else default)
        if value is None:
            return None
        if not math.isfinite(value) or not low <= value <= high:
            upper = "" if high == math.inf else f" to {high:g}"
            raise PolicyError(f"{self._path(key)}: a number from {low:g}{upper}, got {value!r}")
        return float(value)

    @overload
    def integer(self, key: str, default: int, *, low: int = 0, high: int = 10**9) -> int: ...
    @overload
    def integer(self, key: str, default: None, *, low: int = 0, high: int = 10**9) -> int | None: ...
    def integer(self, key: str, default: int | None, *, low: int = 0, high: int = 10**9) -> int | None:
        """A whole number within bounds."""
        value = self.take(key, (int,), default)
        if value is not None and not low <= value <= high:
            raise PolicyError(f"{self._path(key)}: a whole number from {low} to {high}, got {value}")
        return None if value is None else int(value)

    def table(self, key: str) -> Table:
        """A table inside, empty where it is absent."""
        return Table(self.take(key, (dict,), {}), self._path(key))

    def tables(self, key: str) -> Iterator[tuple[str, Table]]:
        """The named tables inside, as `[route.NAME]` writes them."""
        for name, value in self.take(key, (dict,), {}).items():
            where = f"{self._path(key)}.{name}"
            if not isinstance(value, dict):
                raise PolicyError(f"{where}: expected a table [{where}], got {type(value).__name__}")
            yield name, Table(value, where)

    def forbid(self, *keys: str, reason: str) -> None:
        """Refuse keys that this document may not set."""
        for key in keys:
            if key in self._values:
                raise PolicyError(f"{self._path(key)}: {reason}")

    @overload
    def finish(self) -> None: ...
    @overload
    def finish(self, made: T) -> T: ...
    def finish(self, made: T | None = None) -> T | None:
        """Refuse keys that nobody read."""
        if self._left:
            key = min(self._left)
            raise PolicyError(f"{self._path(key)}: unknown key; remove it or correct its spelling")
        return made
