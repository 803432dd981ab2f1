"""Opens the files that options name."""

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
