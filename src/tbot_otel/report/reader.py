"""Reads the Collector's files, plain or compressed, in blocks of whole lines."""

import contextlib
import glob
import gzip
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from tbot_otel.errors import TbotOtelError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES = 8 * 2**20
"""How much is read at a time."""
MAX_LINE_BYTES = 32 * 2**20
"""The longest line that is read: about 25,000 starts."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_LENGTH_BYTES = 4
_HEAD_BYTES = _LENGTH_BYTES + len(_ZSTD_MAGIC)


class ReportError(TbotOtelError):
    """The files cannot be read, or the report cannot be written."""


class File(NamedTuple):
    """A file to read.

    Attributes:
        path: Its path.
        size: Its size in bytes; 0 for a pipe.
        identity: Its device and inode.
        is_empty: Whether it has no content, and is not a pipe.
    """

    path: str
    size: int
    identity: tuple[int, int]
    is_empty: bool


class Block(NamedTuple):
    """A part of a file.

    Attributes:
        lines: Whole lines. The last line of a file can lack its end.
        unreadable: How many lines before these were skipped, because they are too long.
        size: The part of the file, in bytes. They are compressed if the file is.
    """

    lines: bytes
    unreadable: int
    size: int


def find_files(words: Sequence[str]) -> list[File]:
    """Return the files that words name, each once, in the order of the words.

    Args:
        words: Files, folders and patterns. A folder stands for all files in it and in its folders,
            except hidden ones. A pattern stands for the files and folders that it matches. Both are
            sorted by path.

    Raises:
        ReportError: A word names no file.
    """
    files: dict[tuple[int, int], File] = {}
    for path in (path for word in words for path in _expand(word)):
        with naming(str(path)):
            status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
            raise ReportError(f"{path}: expected a file")
        is_empty = stat.S_ISREG(status.st_mode) and not status.st_size
        identity = (status.st_dev, status.st_ino)
        files.setdefault(identity, File(str(path), status.st_size, identity, is_empty))
    return list(files.values())


def _expand(word: str) -> Iterable[Path]:
    path = Path(word)
    with naming(word):
        if path.is_dir():
            found, problem = _list_folder(path), "the folder has no files"
        elif path.is_symlink() or path.exists():
            return [path]
        elif re.match("[A-Za-z][A-Za-z0-9+.-]*://", word):
            # It is not repeated, because a URL can have a password.
            raise ReportError("FILE: expected a file, a folder or a pattern, not a URL")
        elif not glob.has_magic(word):
            return [path]
        else:
            found, problem = _match(word), "no file matches"
    if not found:
        raise ReportError(f"{word}: {problem}")
    return sorted(found)


def _list_folder(root: Path) -> list[Path]:
    paths: list[Path] = []
    for folder, folders, names in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(folder, name) for name in names if not name.startswith(".")]
    return paths


def _raise(error: OSError) -> None:
    raise error


def _match(pattern: str) -> list[Path]:
    paths: list[Path] = []
    # Path.glob accepts no absolute pattern.
    for path in map(Path, glob.glob(pattern, recursive=True)):  # noqa: PTH207
        paths += _list_folder(path) if path.is_dir() else [path]
    return paths


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Raise what goes wrong with a file as a `ReportError` that names the file."""
    try:
        yield
    except OSError as error:
        # That of a damaged archive has no number.
        problem = error.strerror or "the archive is damaged"
        raise ReportError(f"{path}: {problem}") from None
    except EOFError:
        raise ReportError(f"{path}: the archive is incomplete") from None
    except (zlib.error, zstd.ZstdError):
        raise ReportError(f"{path}: the archive is damaged") from None
    except ValueError:
        raise ReportError(f"{path}: expected the name of a file") from None


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
        stream = _open_stream(raw)
        rest = b""
        skipped = position = 0
        is_skipping = False
        while chunk := _read_chunk(stream):
            if is_skipping:
                _, newline, chunk = chunk.partition(b"\n")
                is_skipping = not newline
            end = chunk.rfind(b"\n") + 1
            if end:
                before, position = position, raw.tell() if raw.seekable() else 0
                yield Block(rest + chunk[:end], skipped, position - before)
                rest, skipped = chunk[end:], 0
            else:
                rest += chunk
            if len(rest) > MAX_LINE_BYTES:
                rest, is_skipping = b"", True
                skipped += 1
        if rest or skipped:
            yield Block(rest, skipped, max(0, file.size - position))


class _Stream(Protocol):
    def read1(self, size: int, /) -> bytes:
        """Return at least a byte, or nothing at the end."""


def _read_chunk(stream: _Stream) -> bytes:
    # Not with one call: while that waits for the rest of a pipe, a signal that has arrived just
    # before would not be handled.
    parts: list[bytes] = []
    size = 0
    while size < BLOCK_BYTES and (part := stream.read1(BLOCK_BYTES - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


class _Rejoined(RawIOBase):
    """A pipe, and bytes that have been read from it, which come first."""

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


def _open_stream(raw: BufferedReader) -> _Stream:
    stream = raw
    if raw.seekable():
        head = raw.peek(_HEAD_BYTES)
    else:
        # A pipe may not have them all yet. Signals are handled between the calls.
        head = b""
        while len(head) < _HEAD_BYTES and (part := raw.read1(_HEAD_BYTES - len(head))):
            head += part
        stream = BufferedReader(_Rejoined(head, raw))
    if head.startswith(_GZIP_MAGIC):
        return gzip.open(stream)
    if head.startswith(_ZSTD_MAGIC):
        return zstd.open(stream)
    if head.startswith(_ZSTD_MAGIC, _LENGTH_BYTES):
        return _FrameStream(stream)
    if head.startswith(b"\0"):
        # The length before a message.
        raise ReportError(f"{raw.name}: expected the file exporter's `format: json`")
    return stream


class _FrameStream:
    """Reads what the file exporter writes with ``compression: zstd``, a message as a line.

    Each message is a Zstandard frame after its length, which is 4 bytes, the highest first
    (``exportMessageAsBuffer`` in ``fileexporter/file_writer.go``).
    """

    # It is not JSON, so it counts as an unreadable line.
    _INCOMPLETE = b"\0\n"

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw

    def read1(self, _size: int, /) -> bytes:
        head = self._raw.read(_LENGTH_BYTES)
        length = int.from_bytes(head)
        if not head:
            return b""
        if length > MAX_LINE_BYTES:
            raise zstd.ZstdError
        frame = self._raw.read(length)
        if len(head) < _LENGTH_BYTES or len(frame) < length:
            return self._INCOMPLETE
        # A byte more than a line may have, so that a longer line is skipped.
        line = zstd.ZstdDecompressor().decompress(frame, MAX_LINE_BYTES + 1)
        return line + b"\n"
