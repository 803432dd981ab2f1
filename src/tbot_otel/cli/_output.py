"""Writes the output of a command."""

from tbot_otel.errors import TbotOtelError
from tbot_otel.files import discard_stdout


def write(*lines: str, end: str = "\n") -> None:
    """Write lines to standard output.

    Raises:
        TbotOtelError: It cannot be written.
        BrokenPipeError: Its reader has closed its end.
    """
    try:
        print(*lines, sep="\n", end=end, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise TbotOtelError(f"standard output: {error.strerror}") from None
