"""Writes the output and the messages of a command."""

import sys

from tbot_otel.errors import TbotOtelError
from tbot_otel.streams import discard, printable

EXIT_BROKEN_PIPE = 141


def write(*lines: str, end: str = "\n") -> None:
    """Write lines to standard output.

    Raises:
        TbotOtelError: It cannot be written.
        SystemExit: Its reader has closed its end.
    """
    try:
        print(*lines, sep="\n", end=end, flush=True)
    except OSError as error:
        discard(1)
        if isinstance(error, BrokenPipeError):
            sys.exit(EXIT_BROKEN_PIPE)
        raise TbotOtelError(f"standard output: {error.strerror}") from None


def write_message(line: str) -> None:
    """Write one line, whatever characters it has, to standard error, if that is possible."""
    # Where it is closed, print would write to standard output.
    if sys.stderr is not None:
        try:
            print(printable(line), file=sys.stderr)
        except OSError:
            discard(2)
