"""Decodes OTLP/JSON, one export a line."""

import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from tbot_otel.report.reader import MAX_LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINE_OBJECTS = 2_000_000
"""The most JSON objects of a line: more take too much memory. A start has about 40 of them."""
SESSION_ID_PREFIX = b'{"key":"session.id","value":{"stringValue":"'
"""What is before the session id in most resources."""

_MAX_UNCHECKED_BYTES = 4 * 2**20
_MAX_TIME_DIGITS = len(str(2**63))
_match_int = re.compile("-?[0-9]{1,20}", re.ASCII).fullmatch
_ABSENT = msgspec.Raw()
# White space, a byte order mark, and what truncation and power failures leave.
_BLANK = b"\0\xef\xbb\xbf \t\r"
_EXPORT_START = b'{"resourceLogs"'
_split_exports = re.compile(rb'(?={"resource(?:Logs|Metrics|Profiles|Spans)")').split
_match_cri = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T\S+ std(?:out|err) [FP] ").match
_MAX_ADVICE_BYTES = 4096


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


class _Export(msgspec.Struct, gc=False, rename="camel"):
    resource_logs: list[_ResourceLogs] | None = None
    resource_metrics: msgspec.Raw = _ABSENT
    resource_profiles: msgspec.Raw = _ABSENT
    resource_spans: msgspec.Raw = _ABSENT


class _KeyValue(msgspec.Struct, gc=False):
    key: str = ""
    value: dict[str, object] | None = None


class _Resource(msgspec.Struct, gc=False):
    attributes: list[_KeyValue] | None = None


_decode_export = msgspec.json.Decoder(_Export).decode
_decode_resource = msgspec.json.Decoder(_Resource | None).decode
_decode_attributes = msgspec.json.Decoder(list[_KeyValue] | None).decode
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Unreadable(NamedTuple):
    """A part of a block that is not OTLP.

    Attributes:
        position: The index of its line or message in the block.
        advice: What it seems to be, and what to do; empty if that is not known.
    """

    position: int
    advice: str = ""


def length_of(lines: bytes) -> int:
    """Return the number of lines."""
    return lines.count(b"\n")


def read_exports(lines: bytes) -> "Iterator[_Export | Unreadable]":
    """Decode lines."""
    for position, line in enumerate(lines.split(b"\n")):
        if export := _decode(line):
            yield export
        elif line.strip(_BLANK):
            yield from _read_damaged(position, line)


def _read_damaged(position: int, line: bytes) -> "Iterator[_Export | Unreadable]":
    """Decode the whole exports of a line with several, or with a part of one."""
    advice = _advise(line[:_MAX_ADVICE_BYTES].strip(_BLANK))
    parts = [] if advice else _split_exports(line)
    # The beginning of an export that has not got further, after the line's last whole one.
    end = parts[-1].rfind(b"}") + 1 if parts else 0
    if end and _EXPORT_START.startswith(parts[-1][end:].strip(_BLANK)):
        parts[-1:] = [parts[-1][:end], parts[-1][end:]]
    exports = [(_decode(part), part) for part in parts if part.strip(_BLANK)]
    if not any(export for export, _ in exports):
        yield Unreadable(position, advice)
        return
    for export, _ in exports:
        yield export or Unreadable(position)


def _decode(text: bytes) -> "_Export | None":
    """Return an export; None if it is not OTLP/JSON, or takes too much memory."""
    if len(text) > _MAX_UNCHECKED_BYTES and (
        len(text) > MAX_LINE_BYTES or text.count(b"{") > MAX_LINE_OBJECTS
    ):
        return None
    try:
        export = _decode_export(text)
    except _DECODE_ERRORS:
        return None
    return export if export.resource_logs is not None or has_other_signal(export) else None


def _advise(text: bytes) -> str:
    if text == b"{":
        return "it looks like pretty-printed JSON: convert it with jq -c ."
    if text.startswith(b"["):
        return "it looks like a JSON array: convert it with jq -c '.[]'"
    if text.startswith(b'{"log":') or _match_cri(text):
        return "it looks like the log of a container runtime: extract what the container wrote"
    if b'"resource_logs"' in text:
        return "it looks like JSON with names in snake_case: OTLP/JSON has resourceLogs"
    return ""


def has_other_signal(export: _Export) -> bool:
    """Return whether an export has traces, metrics or profiles."""
    others = (export.resource_metrics, export.resource_profiles, export.resource_spans)
    return any(other is not _ABSENT for other in others)


def resource_of(logs: _ResourceLogs) -> bytes:
    """Return a resource as it is encoded."""
    return bytes(logs.resource)


def attributes_of(record: _LogRecord) -> bytes:
    """Return a record's attributes as they are encoded."""
    return bytes(record.attributes)


def time_of(record: _LogRecord) -> int:
    """Return a record's time in nanoseconds since 1970; 0 if it is not known."""
    for raw in (record.time_unix_nano, record.observed_time_unix_nano):
        digits = bytes(raw).strip(b'"')
        # One over 2**63 is from before 1970.
        if len(digits) <= _MAX_TIME_DIGITS and digits.isdigit() and 0 < int(digits) < 2**63:
            return int(digits)
    return 0


def decode_resource(text: bytes) -> dict[str, object] | None:
    """Return the attributes of a resource; None if they are not OTLP."""
    try:
        return _to_dict(getattr(_decode_resource(text), "attributes", None))
    except _DECODE_ERRORS:
        return None


def decode_attributes(text: bytes) -> dict[str, object] | None:
    """Return attributes; None if they are not OTLP."""
    try:
        return _to_dict(_decode_attributes(text) if text else None)
    except _DECODE_ERRORS:
        return None


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
