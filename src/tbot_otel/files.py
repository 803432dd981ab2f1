"""Shared by the commands: open the files of options, escape text, discard output."""

import os


def open_for_appending(path: str) -> int:
    """Open a file, which only its owner can read, for appending, and return its descriptor.

    A symbolic link is not followed, because it could lead to another's file. A pipe without a
    reader is an error, and does not block.

    Raises:
        OSError: It cannot be opened.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def printable(text: str) -> str:
    """Return a text on one line, without characters that a terminal would act on."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def discard_stdout() -> None:
    """Discard what standard output could not write. At exit, the interpreter would retry it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
