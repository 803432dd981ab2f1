"""Writes a report to standard output, or to a file that is replaced at the end."""

import shutil
import sys
from pathlib import Path
from typing import BinaryIO, Self

from tbot_otel.files import Replacement
from tbot_otel.report.inputs import ReportError
from tbot_otel.streams import discard


class OutputError(ReportError):
    """The report cannot be written."""


class Output:
    """Where a report goes. As a context manager, it leaves no temporary file behind.

    Args:
        path: The file; None for standard output.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._replacement: Replacement | None = None

    def __enter__(self) -> Self:
        """Create the new file: if that fails, nothing has been read yet."""
        if self._path is not None:
            try:
                self._replacement = Replacement(self._path)
            except (OSError, ValueError) as error:
                problem = getattr(error, "strerror", None) or "expected the name of a file"
                raise ReportError(f"{self._path}: {problem}") from None
        return self

    def __exit__(self, *error: object) -> None:
        if self._replacement is not None:
            self._replacement.__exit__(*error)

    def write(self, content: bytes | Path) -> None:
        """Write the report.

        Args:
            content: The report, or a file that has it.

        Raises:
            OutputError: It cannot be written. The file is as it was.
            BrokenPipeError: The reader of standard output has closed its end.
        """
        try:
            if self._replacement is None:
                _copy(content, sys.stdout.buffer)
            else:
                _copy(content, self._replacement.file)
                self._replacement.commit()
        except OSError as error:
            if self._replacement is None:
                if isinstance(error, BrokenPipeError):
                    raise
                discard(1)
            raise OutputError(f"{self._path or 'standard output'}: {error.strerror}") from None


def _copy(content: bytes | Path, file: BinaryIO) -> None:
    if isinstance(content, bytes):
        file.write(content)
    else:
        with content.open("rb") as source:
            shutil.copyfileobj(source, file)
    file.flush()
