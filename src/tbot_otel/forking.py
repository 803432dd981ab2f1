"""A lock that makes forks wait for imports.

A child that is forked while another thread imports inherits half-initialized modules, and its own
imports of them fail or hang. Background imports therefore hold this lock, and a fork takes it.
"""

# Imported first for its fork handlers and those of logging: handlers that run before a fork run
# last in, first out, and a fork must not hold their locks while it waits for imports.
import concurrent.futures.thread  # noqa: F401 - for its fork handlers
import contextlib
import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FORK_WAIT_TIMEOUT_SECONDS = 2.0
"""The longest time that a fork waits for imports."""

_lock = threading.RLock()
_fork_state = threading.local()


@contextlib.contextmanager
def importing() -> "Iterator[None]":
    """Make forks wait until the imports in this block are done."""
    with _lock:
        yield


def _before_fork() -> None:
    _fork_state.acquired = _lock.acquire(timeout=FORK_WAIT_TIMEOUT_SECONDS)


def _after_fork_in_parent() -> None:
    if _fork_state.acquired:
        _lock.release()


def _after_fork_in_child() -> None:
    # The thread that held the old lock does not exist in the child.
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
