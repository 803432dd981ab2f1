"""Text for people: on one line, and on a standard output that may be closed."""

import os


def printable(text: str) -> str:
    """Return a text on one line, without characters that a terminal would act on."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def discard_stdout() -> None:
    """Discard what standard output could not write. At exit, the interpreter would retry it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
