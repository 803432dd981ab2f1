"""Text for people: on one line, and on standard streams that may be closed or full."""

import os


def printable(text: str) -> str:
    """Return a text on one line, without characters that a terminal would act on."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def discard(stream: int) -> None:
    """Discard what standard output (1) or error (2) could not write.

    At exit, the interpreter would try again, and change the exit status.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
