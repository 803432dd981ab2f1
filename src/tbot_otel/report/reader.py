"""Reads the Collector's files, plain or compressed, in blocks of whole lines or messages."""

import gzip
import os
import re
import sys
from collections.abc import Iterator
from io import BufferedReader, RawIOBase
from typing import TYPE_CHECKING, NamedTuple

from tbot_otel.report.inputs import File, ReportError, naming

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES = 8 * 2**20
"""How much is read at a time."""
MAX_LINE_BYTES = 32 * 2**20
"""The longest line or message that is read: about 25,000 starts."""
LENGTH_BYTES = 4
"""The size of the length before a message."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# The tag of the only field of a LogsData.
_PROTOBUF_MARK = b"\n"
_HEADER_BYTES = LENGTH_BYTES + len(_PROTOBUF_MARK)
_ARCHIVES = (b"PK\x03\x04", b"\xfd7zXZ", b"BZh", b"\x04\x22\x4d\x18", b"7z\xbc\xaf")
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257
_UTF16 = (b"\xff\xfe", b"\xfe\xff", b"{\0", b"[\0")
_HEAD_BYTES = _TAR_MAGIC_AT + len(_TAR_MAGIC)
_EXPORT_START = b'{"resourceLogs"'
_LINE_OR_EXPORT = rb'\n|(?={"resourceLogs")'


class Block(NamedTuple):
    """A part of a file.

    Attributes:
        path: The file.
        content: Lines of OTLP/JSON, or messages of OTLP/protobuf, each after its length.
        is_protobuf: Whether it has messages.
        is_framed: Whether the file has messages, in JSON or protobuf, instead of lines.
        skipped: How many lines or messages before these are too long or damaged.
        size: The part of the file, in bytes. They are compressed if the file is.
    """

    path: str
    content: bytes
    is_protobuf: bool
    is_framed: bool
    skipped: int
    size: int


def read_blocks(file: File) -> Iterator[Block]:
    """Read a file.

    Raises:
        ReportError: It cannot be read, or it is not the file that was found under this path.
    """
    with naming(file.path), open(file.path, "rb") as raw:
        status = os.fstat(raw.fileno())
        if (status.st_dev, status.st_ino) != file.identity:
            # The Collector renames the file that it has written to, and starts a new one.
            raise ReportError(f"{file.path}: the file was replaced; try again")
        stream, mark = _open_stream(raw)
        position = 0
        for part in _read_messages(stream, mark) if mark else _read_lines(stream):
            before, position = position, raw.tell() if raw.seekable() else 0
            yield Block(
                file.path,
                part.content,
                part.is_protobuf,
                bool(mark),
                part.skipped,
                position - before,
            )


class _Part(NamedTuple):
    """What a block has of its content."""

    content: bytes
    is_protobuf: bool
    skipped: int


def _read_lines(stream: BufferedReader) -> Iterator[_Part]:
    rest = b""
    skipped = 0
    is_skipping = False
    while chunk := _read_chunk(stream):
        if is_skipping:
            next_line = re.search(_LINE_OR_EXPORT, chunk)
            is_skipping = not next_line
            chunk = chunk[next_line.end() :] if next_line else b""
        end = chunk.rfind(b"\n") + 1
        if end:
            yield _Part(rest + chunk[:end], is_protobuf=False, skipped=skipped)
            rest, skipped = chunk[end:], 0
        else:
            rest += chunk
        if len(rest) > MAX_LINE_BYTES:
            # Exports without a newline between them are on one line.
            if (end := rest.rfind(_EXPORT_START)) > 0:
                yield _Part(rest[:end], is_protobuf=False, skipped=skipped)
                rest, skipped = rest[end:], 0
            else:
                rest, is_skipping = b"", True
                skipped += 1
    if rest or skipped:
        yield _Part(rest, is_protobuf=False, skipped=skipped)


def _read_chunk(stream: BufferedReader) -> bytes:
    # Not with one call: while that waits for the rest of a pipe, a signal that has arrived just
    # before would not be handled.
    parts: list[bytes] = []
    size = 0
    while size < BLOCK_BYTES and (part := stream.read1(BLOCK_BYTES - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _read_messages(stream: BufferedReader, mark: bytes) -> Iterator[_Part]:
    """Read what the file exporter writes with ``format: proto`` or ``compression: zstd``."""
    messages: list[bytes] = []
    size = skipped = 0
    is_protobuf = False
    for message in _find_messages(stream, mark):
        is_other = message is not None and is_protobuf == message.startswith(b"{")
        if messages and (message is None or is_other or size >= BLOCK_BYTES):
            yield _Part(b"".join(messages), is_protobuf, skipped)
            messages, size, skipped = [], 0, 0
        if message is None:
            skipped += 1
            continue
        is_protobuf = not message.startswith(b"{")
        if is_protobuf:
            messages += (len(message).to_bytes(LENGTH_BYTES), message)
        else:
            # White space alone can have a line break.
            messages += (message.replace(b"\n", b" "), b"\n")
        size += len(message)
    if messages or skipped:
        yield _Part(b"".join(messages), is_protobuf, skipped)


def _find_messages(stream: BufferedReader, mark: bytes) -> Iterator[bytes | None]:
    """Find the messages, each after its length, which is 4 bytes, the highest first.

    (``exportMessageAsBuffer`` in ``fileexporter/file_writer.go``.) After damage, such as half a
    message of a Collector that was killed, the next message is searched for.

    Args:
        stream: The file.
        mark: How each message begins.

    Returns:
        Each message, decompressed; None in place of one or several that are damaged.
    """
    buffer = b""
    position = 0
    is_damaged = is_at_end = False
    unpack, lookahead = (_decompress, 0) if mark == _ZSTD_MAGIC else (_check_message, _HEADER_BYTES)
    while True:
        start = position + LENGTH_BYTES
        end = start + int.from_bytes(buffer[position:start])
        if not start < end <= start + MAX_LINE_BYTES or not buffer.startswith(mark, start):
            # Not a message, unless its first bytes are still to be read.
            end = start + len(mark)
        elif (
            end <= len(buffer) - (0 if is_at_end else lookahead)
            and (message := unpack(buffer, start, end)) is not None
        ):
            yield message
            position, is_damaged = end, False
            continue
        if end + lookahead > len(buffer) and not is_at_end:
            chunk = _read_chunk(stream)
            buffer, position, is_at_end = buffer[position:] + chunk, 0, not chunk
            continue
        if position == len(buffer):
            return
        if not is_damaged:
            yield None
            is_damaged = True
        position = buffer.find(mark, start + 1) - LENGTH_BYTES
        if position < 0:
            if is_at_end:
                return
            chunk = _read_chunk(stream)
            kept = buffer[max(0, len(buffer) - LENGTH_BYTES - len(mark) + 1) :]
            buffer, position, is_at_end = kept + chunk, 0, not chunk


def _decompress(buffer: bytes, start: int, end: int) -> bytes | None:
    decompressor = zstd.ZstdDecompressor()
    try:
        # A byte more than allowed, so that what is longer has no end.
        message = decompressor.decompress(buffer[start:end], MAX_LINE_BYTES + 1)
    except zstd.ZstdError:
        return None
    return message if decompressor.eof and len(message) <= MAX_LINE_BYTES else None


def _check_message(buffer: bytes, start: int, end: int) -> bytes | None:
    """Return a ``LogsData``, if there is one: its fields end where it does, and another follows.

    Half a message and the beginning of the next one can together have fields of the right size.
    """
    following = buffer[end : end + _HEADER_BYTES]
    if len(following) == _HEADER_BYTES and any(following):
        length = int.from_bytes(following[:LENGTH_BYTES])
        if length > MAX_LINE_BYTES or not following.endswith(_PROTOBUF_MARK):
            return None
    position = start
    while position < end:
        if buffer[position : position + 1] != _PROTOBUF_MARK:
            return None
        size = shift = 0
        while True:
            position += 1
            byte = buffer[position] if position < end else 0
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 or shift > 28:
                break
        position += 1 + size
    return buffer[start:end] if position == end else None


class _Rejoined(RawIOBase):
    """A stream, and bytes that have been read from it, which come first."""

    def __init__(self, head: bytes, rest: BufferedReader) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        part, self._head = self._head[: len(view)], self._head[len(view) :]
        view[: len(part)] = part
        return len(part) or self._rest.readinto1(buffer)


def _open_stream(raw: BufferedReader) -> tuple[BufferedReader, bytes]:
    """Return the content, decompressed, and how each message begins; empty if it has lines."""
    stream = raw
    for _ in range(2):
        head, zeros = _read_head(stream)
        stream = BufferedReader(_Rejoined(head, stream))
        if head.startswith(_GZIP_MAGIC):
            stream = BufferedReader(gzip.GzipFile(fileobj=stream))
        elif head.startswith(_ZSTD_MAGIC):
            stream = BufferedReader(zstd.ZstdFile(stream))
        else:
            break
    else:
        head = _ARCHIVES[0]
    if head.startswith(_ARCHIVES) or head.startswith(_TAR_MAGIC, _TAR_MAGIC_AT):
        raise ReportError(f"{raw.name}: only gzip and Zstandard are read; extract the files first")
    if head.startswith(_UTF16):
        raise ReportError(f"{raw.name}: expected UTF-8; convert it with: iconv -f UTF-16 -t UTF-8")
    # Zeros can be those of a length.
    for count in reversed(range(min(zeros, LENGTH_BYTES - 1) + 1)):
        start = b"\0" * count + head[: LENGTH_BYTES + len(_ZSTD_MAGIC)]
        for mark in (_ZSTD_MAGIC, _PROTOBUF_MARK):
            length = int.from_bytes(start[:LENGTH_BYTES])
            if 0 < length <= MAX_LINE_BYTES and start.startswith(mark, LENGTH_BYTES):
                return BufferedReader(_Rejoined(b"\0" * count, stream)), mark
    return stream, b""


def _read_head(stream: BufferedReader) -> tuple[bytes, int]:
    """Return the first bytes without zeros before them, and how many zeros there are.

    If a file was truncated by another process while the Collector has it open, it begins with them.
    """
    zeros = 0
    head = b""
    # A pipe may not have them all yet. Signals are handled between the calls.
    while len(head) < _HEAD_BYTES and (part := stream.read1(2**16)):
        kept = part if head else part.lstrip(b"\0")
        zeros += len(part) - len(kept)
        head += kept
    return head, zeros
