"""Parses blocks of exports into starts."""

import re
from array import array
from binascii import unhexlify
from collections import Counter
from collections.abc import Collection
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol

from tbot_otel.policy import Refused, decide
from tbot_otel.registry import ATTRIBUTES, START
from tbot_otel.report import otlp_json
from tbot_otel.report.document import NOT_REPORTED
from tbot_otel.report.otlp_json import Unreadable

COLUMNS: tuple[str, ...] = (
    *(attribute.name.removeprefix("tbot.") for attribute in START.attributes),
    "os_type",
    "host_arch",
)
"""What is known of a start, besides its day."""

Values = tuple[str | int, ...]
"""The values of `COLUMNS`."""

_DAY_NS = 86400 * 10**9
_CACHE_SIZE = 2**14
_MAX_CACHED_BYTES = 2**12
_SESSION_ID_BYTES = 36
_OTHER_SESSION_ID = b"0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20"
_match_session_id = re.compile(ATTRIBUTES["session.id"].pattern.encode()).fullmatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from functools import _lru_cache_wrapper

    _Cached = _lru_cache_wrapper[Values | None]


class _Encoding(Protocol):
    """One of the modules `otlp_json` and `otlp_protobuf`."""

    SESSION_ID_PREFIX: bytes

    def length_of(self, content: bytes, /) -> int: ...
    def read_exports(self, content: bytes, /) -> "Iterator[Any | Unreadable]": ...
    def has_other_signal(self, export: Any, /) -> bool: ...
    def resource_of(self, logs: Any, /) -> bytes: ...
    def attributes_of(self, record: Any, /) -> bytes: ...
    def time_of(self, record: Any, /) -> int: ...
    def decode_resource(self, text: bytes, /) -> dict[str, object] | None: ...
    def decode_attributes(self, text: bytes, /) -> dict[str, object] | None: ...


class Chunk:
    """The starts of a block, and what else was in it. Duplicates are not removed yet.

    Attributes:
        length: How many lines or messages the block has.
        session_ids: The 16 bytes of each start's session id.
        days: The day of each start, in days since 1970-01-01.
        indexes: The index in `values` of each start.
        values: The distinct values of the starts.
        read: How many records were read.
        refused: How many of them are not starts, by the reason, a key of `document.REASONS`.
        unreadable: How many lines, messages, or parts of a line are not OTLP.
        first_unreadable: The first of them.
    """

    def __init__(self, length: int) -> None:
        self.length: int = length
        self.session_ids: bytearray = bytearray()
        self.days: array[int] = array("i")
        self.indexes: array[int] = array("i")
        self.values: list[Values] = []
        self.read: int = 0
        self.refused: Counter[str] = Counter()
        self.unreadable: int = 0
        self.first_unreadable: Unreadable | None = None


class Parser:
    """Parses blocks.

    Args:
        first_day: The first day to count, in days since 1970-01-01.
        last_day: The last one.
        allowed_helpers: See `policy.decide`.
    """

    def __init__(self, first_day: int, last_day: int, allowed_helpers: Collection[str]) -> None:
        self._make_parser = partial(_EncodingParser, first_day, last_day, allowed_helpers)
        self._parse_json = self._make_parser(otlp_json).parse

    def parse(self, content: bytes, *, is_protobuf: bool = False) -> Chunk:
        """Parse a block's content."""
        return self._parse_protobuf(content) if is_protobuf else self._parse_json(content)

    @cached_property
    def _parse_protobuf(self) -> "Callable[[bytes], Chunk]":
        # Few files have it, and it takes a while to import.
        from tbot_otel.report import otlp_protobuf

        return self._make_parser(otlp_protobuf).parse


class _EncodingParser:
    def __init__(
        self,
        first_day: int,
        last_day: int,
        allowed_helpers: Collection[str],
        encoding: _Encoding,
    ) -> None:
        self._encoding = encoding
        self._first_day = first_day
        self._last_day = last_day
        self._allowed_helpers = allowed_helpers
        self._permit = lru_cache(_CACHE_SIZE)(self._permit_attributes)
        self._find_host = lru_cache(_CACHE_SIZE)(self._find_host_around)

    def parse(self, content: bytes) -> Chunk:
        chunk = Chunk(self._encoding.length_of(content))
        # The index of a start's values, by its host and attributes; -1 if policy refuses it.
        known: dict[tuple[Values, bytes], int] = {}
        for export in self._encoding.read_exports(content):
            if isinstance(export, Unreadable):
                chunk.unreadable += 1
                chunk.first_unreadable = chunk.first_unreadable or export
                continue
            if self._encoding.has_other_signal(export):
                chunk.read += 1
                chunk.refused["other_signal"] += 1
            for logs in export.resource_logs or ():
                session_id, host = self._parse_resource(self._encoding.resource_of(logs))
                for scope in logs.scope_logs or ():
                    for record in scope.log_records or ():
                        chunk.read += 1
                        if reason := self._add(chunk, known, session_id, host, record):
                            chunk.refused[reason] += 1
        return chunk

    def _add(
        self,
        chunk: Chunk,
        known: dict[tuple[Values, bytes], int],
        session_id: bytes,
        host: Values,
        record: Any,
    ) -> str:
        """Add a record to a chunk, or return the reason for which it is no start that counts."""
        if record.event_name != START.name:
            return "other_event"
        if not session_id:
            return "invalid_session_id"
        # The encoding may change the record after it.
        time = self._encoding.time_of(record)
        key = host, self._encoding.attributes_of(record)
        index = known.get(key)
        if index is None:
            permitted = _call(self._permit, key[1])
            index = known[key] = -1 if permitted is None else len(chunk.values)
            if permitted is not None:
                chunk.values.append((*permitted, *host))
        if index < 0:
            return "invalid_attributes"
        if not time:
            return "invalid_time"
        day = time // _DAY_NS
        if not self._first_day <= day <= self._last_day:
            return "outside_period"
        chunk.session_ids += session_id
        chunk.days.append(day)
        chunk.indexes.append(index)
        return ""

    def _permit_attributes(self, text: bytes) -> Values | None:
        """Return the values that policy permits; None if it refuses the record."""
        given = self._encoding.decode_attributes(text)
        if given is None:
            return None
        decision = decide(START.name, given, self._allowed_helpers)
        if isinstance(decision, Refused):
            return None
        return tuple(
            decision.attributes.get(attribute.name, 0 if attribute.type == "int" else "")
            for attribute in START.attributes
        )

    def _parse_resource(self, text: bytes) -> tuple[bytes, Values]:
        """Return the session id, which is empty if it is not valid, and the host."""
        before, prefix, after = text.partition(self._encoding.SESSION_ID_PREFIX)
        session_id = after[:_SESSION_ID_BYTES]
        if prefix and _match_session_id(session_id):
            host = _call(self._find_host, before, after[_SESSION_ID_BYTES:])
            if host is not None:
                return _to_bytes(session_id), host
        # It is written in another way.
        attributes = self._encoding.decode_resource(text)
        if attributes is None:
            return b"", ()
        value = attributes.get("session.id")
        session_id = value.encode() if isinstance(value, str) else b""
        return (_to_bytes(session_id) if _match_session_id(session_id) else b""), _host(attributes)

    def _find_host_around(self, before: bytes, after: bytes) -> Values | None:
        """Return the host of a resource, if its session id is the text between these two."""
        prefix = self._encoding.SESSION_ID_PREFIX
        attributes = self._encoding.decode_resource(
            b"".join((before, prefix, _OTHER_SESSION_ID, after))
        )
        if not attributes or attributes.get("session.id") != _OTHER_SESSION_ID.decode():
            return None
        return _host(attributes)


def _host(attributes: dict[str, object]) -> Values:
    return tuple(
        str(ATTRIBUTES[name].admit(attributes[name])) if attributes.get(name) else NOT_REPORTED
        for name in ("os.type", "host.arch")
    )


def _call(cached: "_Cached", *texts: bytes) -> Values | None:
    """Call a function with a cache, which stays small."""
    function = cached if sum(map(len, texts)) <= _MAX_CACHED_BYTES else cached.__wrapped__
    return function(*texts)


def _to_bytes(session_id: bytes) -> bytes:
    return unhexlify(session_id.replace(b"-", b""))
