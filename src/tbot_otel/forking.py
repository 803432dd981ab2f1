"""What a fork waits for.

A child that is forked while a thread imports keeps half-made modules: its own imports of them fail,
or never end. So whatever is imported on a thread is imported under a lock, which a fork takes.
"""

import contextlib

# Before the handlers below: those before a fork run last in, first out, and a fork must not hold
# logging's locks while it waits for a thread that may log.
import logging  # noqa: F401 - for its handlers
import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_WAIT = 1.0
"""The longest wait of a fork, in seconds."""

_lock = threading.RLock()
_forking = threading.local()


@contextlib.contextmanager
def importing() -> "Iterator[None]":
    """Let forks wait while modules are imported in this block."""
    with _lock:
        yield


def _before() -> None:
    _forking.waited = _lock.acquire(timeout=LONGEST_WAIT)


def _after_in_parent() -> None:
    if _forking.waited:
        _lock.release()


def _after_in_child() -> None:
    # Whoever held the old one is not here.
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
