"""Writes a report to standard output, or to a file that is replaced at the end."""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO, Self

from tbot_otel.report.reader import ReportError
from tbot_otel.streams import discard_stdout


class OutputError(ReportError):
    """The report cannot be written."""


class Output:
    """Where a report goes. As a context manager, it leaves no temporary file behind.

    Args:
        path: The file; None for standard output.
    """

    def __init__(self, path: str | None) -> None:
        self._name = "standard output" if path is None else path
        # If it is a link, its target is replaced.
        self._path = None if path is None else Path(os.path.realpath(path))
        self._temporary: Path | None = None

    def __enter__(self) -> Self:
        """Create the temporary file: if that fails, nothing has been read yet."""
        try:
            if self._path is None:
                return self
            if self._path.is_dir():
                raise IsADirectoryError(None, "expected a file")
            if self._path.is_file() or not self._path.exists():
                descriptor, name = tempfile.mkstemp(prefix=".", dir=self._path.parent)
                os.close(descriptor)
                self._temporary = Path(name)
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or "expected the name of a file"
            raise ReportError(f"{self._name}: {problem}") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def write(self, content: bytes | Path) -> None:
        """Write the report.

        Args:
            content: The report, or a file that has it.

        Raises:
            OutputError: It cannot be written. The file is as it was.
            BrokenPipeError: The reader of standard output has closed its end.
        """
        try:
            if self._path is None:
                _copy(content, sys.stdout.buffer)
                return
            # A device or a pipe cannot be replaced.
            with (self._temporary or self._path).open("wb") as file:
                _copy(content, file)
            if self._temporary is not None:
                if self._path.exists():
                    shutil.copymode(self._path, self._temporary)
                self._temporary.replace(self._path)
                self._temporary = None
        except OSError as error:
            if self._path is None:
                if isinstance(error, BrokenPipeError):
                    raise
                discard_stdout()
            raise OutputError(f"{self._name}: {error.strerror}") from None


def _copy(content: bytes | Path, file: BinaryIO) -> None:
    if isinstance(content, bytes):
        file.write(content)
    else:
        with content.open("rb") as source:
            shutil.copyfileobj(source, file)
    file.flush()
