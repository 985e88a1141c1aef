"""What can go wrong in the collector, split by what the reader can do about it.

CollectorError
├── BadRequest            the body is not what was declared: mend the sender, do not retry      400
│   ├── UnsupportedMedia  content type or encoding nobody here reads                            415
│   └── TooLarge          over a limit: send less at once                                       413
├── StoreError
│   ├── StoreBusy         full queue, low disk, store away: retry after `retry_after_s`         503
│   ├── StoreLocked       another process owns this data directory
│   ├── SchemaTooNew      the file was made by a newer tierlight: upgrade
│   └── StoreDamaged      the file is damaged: recover a copy of it
├── InsecureBind          an address others can reach, without a token: the server must not start
├── BadTarget             a forwarding target that can't work: mend the configuration
└── InvalidRecord         one record can never be right: rejected, counted, its neighbours stay
"""

from __future__ import annotations


class CollectorError(Exception):
    """Base of everything the collector raises on purpose."""


class BadRequest(CollectorError):
    """The body is not what was declared; sending it again cannot help."""


class UnsupportedMedia(BadRequest):
    """Neither OTLP protobuf nor OTLP JSON, or an encoding other than gzip, deflate and identity."""


class TooLarge(BadRequest):
    """The body is over a limit, before or after decompression."""


class StoreError(CollectorError):
    """The store cannot do what was asked."""


class StoreBusy(StoreError):
    """Nothing was stored; the same request may be sent again after `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreLocked(StoreError):
    """Another process holds the lock of this data directory."""


class SchemaTooNew(StoreError):
    """The database was written by a newer version than this one."""


class StoreDamaged(StoreError):
    """The database file is damaged and is opened read-only."""


class InsecureBind(CollectorError):
    """Listening there would show data to others without a login."""


class BadTarget(CollectorError):
    """A forwarding target is not usable; the message names it and what was expected."""


class InvalidRecord(CollectorError):
    """One record can never be stored, whatever is done; the message says why in a few words."""
