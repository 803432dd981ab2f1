"""The files that a report reads: which of them, and what goes wrong with them."""

import contextlib
import glob
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tbot_otel.errors import TbotOtelError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class ReportError(TbotOtelError):
    """The files cannot be read, or the report cannot be written."""


class File(NamedTuple):
    """A file to read.

    Attributes:
        path: Its path.
        size: Its size in bytes; 0 for a pipe.
        identity: Its device and inode.
        problem: Why it is not read; empty if it is.
    """

    path: str
    size: int
    identity: tuple[int, int]
    problem: str


def find_files(words: Sequence[str]) -> list[File]:
    """Return the files that words name, each once, in the order of the words.

    Args:
        words: Files, folders and patterns. A folder stands for all files in it and in its folders,
            except hidden ones. A pattern stands for the files and folders that it matches. Both are
            sorted by path. Pipes and devices are read only if a word is the path of one.

    Raises:
        ReportError: A word names no file.
    """
    files: dict[tuple[int, int], File] = {}
    for named, path in ((Path(word), path) for word in words for path in _expand(word)):
        with naming(str(path)):
            status = path.stat()
        problem = ""
        if stat.S_ISREG(status.st_mode):
            problem = "" if status.st_size else "the file is empty"
        elif path != named:
            # A pipe among files has no writer, and would be waited for.
            problem = "skipped, because it is not a file"
        elif not stat.S_ISFIFO(status.st_mode):
            raise ReportError(f"{path}: expected a file")
        identity = (status.st_dev, status.st_ino)
        files.setdefault(identity, File(str(path), status.st_size, identity, problem))
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
