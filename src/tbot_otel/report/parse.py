"""Parses blocks of OTLP/JSON lines into starts."""

import re
from array import array
from binascii import unhexlify
from collections import Counter
from collections.abc import Collection
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from tbot_otel.policy import Refused, decide
from tbot_otel.registry import RESOURCE, START
from tbot_otel.report.document import NOT_REPORTED
from tbot_otel.report.reader import MAX_LINE_BYTES

COLUMNS: tuple[str, ...] = (
    *(attribute.name.removeprefix("tbot.") for attribute in START.attributes),
    "os_type",
    "host_arch",
)
"""What is known of a start, besides its day."""

Values = tuple[str | int, ...]
"""The values of `COLUMNS`."""

MAX_LINE_OBJECTS = 2_000_000
"""The most JSON objects of a line: more take too much memory. A start has about 40 of them."""

_DAY_NS = 86400 * 10**9
_MAX_TIME_DIGITS = len(str(2**63))
_MAX_UNCHECKED_BYTES = 4 * 2**20
_CACHE_SIZE = 2**14
_MAX_CACHED_BYTES = 2**12
_SESSION_ID_PREFIX = b'{"key":"session.id","value":{"stringValue":"'
_SESSION_ID_BYTES = 36
_OTHER_SESSION_ID = b"0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20"
_RESOURCE = {attribute.name: attribute for attribute in RESOURCE}
_match_session_id = re.compile(_RESOURCE["session.id"].pattern.encode()).fullmatch
_match_int = re.compile("-?[0-9]{1,20}", re.ASCII).fullmatch
_ABSENT = msgspec.Raw()

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

    _Cached = _lru_cache_wrapper[Values | None]


class _LogRecord(msgspec.Struct, gc=False, rename="camel"):
    event_name: str | None = None
    time_unix_nano: msgspec.Raw = _ABSENT
    observed_time_unix_nano: msgspec.Raw = _ABSENT
    attributes: msgspec.Raw = _ABSENT


class _ScopeLogs(msgspec.Struct, gc=False, rename="camel"):
    log_records: list[_LogRecord] | None = None


class _ResourceLogs(msgspec.Struct, gc=False, rename="camel"):
    resource: msgspec.Raw = _ABSENT
    scope_logs: list[_ScopeLogs] | None = None


class _Line(msgspec.Struct, gc=False, rename="camel"):
    resource_logs: list[_ResourceLogs] | None = None
    resource_metrics: msgspec.Raw = _ABSENT
    resource_profiles: msgspec.Raw = _ABSENT
    resource_spans: msgspec.Raw = _ABSENT


class _KeyValue(msgspec.Struct, gc=False):
    key: str = ""
    value: dict[str, object] | None = None


class _Resource(msgspec.Struct, gc=False):
    attributes: list[_KeyValue] | None = None


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_resource = msgspec.json.Decoder(_Resource | None).decode
_decode_attributes = msgspec.json.Decoder(list[_KeyValue] | None).decode
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Chunk(NamedTuple):
    """The starts of a block, and what else was in it. Two of the same session are still there.

    Attributes:
        session_ids: The 16 bytes of each start's session id.
        days: The day of each start, in days since 1970-01-01.
        indexes: The index in `values` of each start.
        values: The distinct values of the starts.
        read: How many records were read.
        refused: How many of them are not starts, by the reason, a key of `tables.REASONS`.
        unreadable: How many lines are not OTLP/JSON.
    """

    session_ids: bytes
    days: "array[int]"
    indexes: "array[int]"
    values: list[Values]
    read: int
    refused: Counter[str]
    unreadable: int


class Parser:
    """Parses blocks.

    Args:
        first_day: The first day to count, in days since 1970-01-01.
        last_day: The last one.
        allowed_helpers: See `policy.decide`.
    """

    def __init__(self, first_day: int, last_day: int, allowed_helpers: Collection[str]) -> None:
        self._first_day = first_day
        self._last_day = last_day
        self._decide = lru_cache(_CACHE_SIZE)(partial(_decide, allowed_helpers=allowed_helpers))
        self._find_host = lru_cache(_CACHE_SIZE)(_find_host)

    def parse(self, lines: bytes) -> Chunk:
        """Parse a block's lines."""
        session_ids = bytearray()
        days, indexes = array("i"), array("i")
        values: list[Values] = []
        # The index of a start's values, by its host and attributes; -1 if policy refuses it.
        known: dict[tuple[Values, bytes], int] = {}
        read = 0
        unreadable = 0
        refused: Counter[str] = Counter()
        for text in lines.split(b"\n"):
            if not text or text.isspace():
                continue
            line = _parse_line(text)
            if line is None:
                unreadable += 1
                continue
            if _has_other_signal(line):
                read += 1
                refused["other_signal"] += 1
            for logs in line.resource_logs or ():
                session_id, host = self._parse_resource(bytes(logs.resource))
                for scope in logs.scope_logs or ():
                    for record in scope.log_records or ():
                        read += 1
                        if record.event_name != START.name:
                            refused["other_event"] += 1
                            continue
                        if not session_id:
                            refused["invalid_session_id"] += 1
                            continue
                        key = host, bytes(record.attributes)
                        index = known.get(key)
                        if index is None:
                            decided = _call(self._decide, key[1])
                            index = known[key] = -1 if decided is None else len(values)
                            if decided is not None:
                                values.append((*decided, *host))
                        day = _day_of(record)
                        if index < 0:
                            refused["invalid_attributes"] += 1
                        elif day is None:
                            refused["invalid_time"] += 1
                        elif not self._first_day <= day <= self._last_day:
                            refused["outside_period"] += 1
                        else:
                            session_ids += session_id
                            days.append(day)
                            indexes.append(index)
        return Chunk(bytes(session_ids), days, indexes, values, read, refused, unreadable)

    def _parse_resource(self, text: bytes) -> tuple[bytes, Values]:
        """Return the session id, which is empty if it is not valid, and the host."""
        before, prefix, after = text.partition(_SESSION_ID_PREFIX)
        session_id = after[:_SESSION_ID_BYTES]
        if prefix and _match_session_id(session_id):
            host = _call(self._find_host, before, after[_SESSION_ID_BYTES:])
            if host is not None:
                return _to_bytes(session_id), host
        # It is written in another way.
        try:
            attributes = _to_dict(getattr(_decode_resource(text), "attributes", None))
        except _DECODE_ERRORS:
            return b"", ()
        value = attributes.get("session.id")
        session_id = value.encode() if isinstance(value, str) else b""
        return (_to_bytes(session_id) if _match_session_id(session_id) else b""), _host(attributes)


def _find_host(before: bytes, after: bytes) -> Values | None:
    """Return the host of a resource, if its session id is the text between these two."""
    text = b"".join((before, _SESSION_ID_PREFIX, _OTHER_SESSION_ID, after))
    try:
        attributes = _to_dict(getattr(_decode_resource(text), "attributes", None))
    except _DECODE_ERRORS:
        return None
    if attributes.get("session.id") != _OTHER_SESSION_ID.decode():
        return None
    return _host(attributes)


def _host(attributes: dict[str, object]) -> Values:
    return tuple(
        str(_RESOURCE[name].admit(attributes[name])) if attributes.get(name) else NOT_REPORTED
        for name in ("os.type", "host.arch")
    )


def _decide(attributes: bytes, allowed_helpers: Collection[str]) -> Values | None:
    """Return the values that policy lets out; None if it refuses the record."""
    try:
        given = _to_dict(_decode_attributes(attributes) if attributes else None)
    except _DECODE_ERRORS:
        return None
    decision = decide(START.name, given, allowed_helpers)
    if isinstance(decision, Refused):
        return None
    return tuple(
        decision.attributes.get(attribute.name, 0 if attribute.type == "int" else "")
        for attribute in START.attributes
    )


def _call(cached: "_Cached", *texts: bytes) -> Values | None:
    """Call a function with a cache, which stays small."""
    function = cached if sum(map(len, texts)) <= _MAX_CACHED_BYTES else cached.__wrapped__
    return function(*texts)


def _to_dict(attributes: list[_KeyValue] | None) -> dict[str, object]:
    return {item.key: _to_value(item.value or {}) for item in attributes or ()}


def _to_value(value: dict[str, object]) -> object:
    """Return a string, an int, None for an empty value, or an object that no attribute can have."""
    text = value.get("stringValue")
    if isinstance(text, str):
        return text
    number = value.get("intValue")
    if isinstance(number, str) and _match_int(number):
        return int(number)
    if type(number) is int:
        return number
    return value or None


def _to_bytes(session_id: bytes) -> bytes:
    return unhexlify(session_id.replace(b"-", b""))


def _parse_line(text: bytes) -> _Line | None:
    """Return a line; None if it is not OTLP/JSON, or takes too much memory."""
    if len(text) > _MAX_UNCHECKED_BYTES and (
        len(text) > MAX_LINE_BYTES or text.count(b"{") > MAX_LINE_OBJECTS
    ):
        return None
    try:
        line = _decode_line(text)
    except _DECODE_ERRORS:
        return None
    return line if line.resource_logs is not None or _has_other_signal(line) else None


def _has_other_signal(line: _Line) -> bool:
    others = (line.resource_metrics, line.resource_profiles, line.resource_spans)
    return any(other is not _ABSENT for other in others)


def _day_of(record: _LogRecord) -> int | None:
    for raw in (record.time_unix_nano, record.observed_time_unix_nano):
        digits = bytes(raw).strip(b'"')
        # A time that is not known is 0. One over 2**63 is from before 1970.
        if len(digits) <= _MAX_TIME_DIGITS and digits.isdigit() and 0 < int(digits) < 2**63:
            return int(digits) // _DAY_NS
    return None
