"""What a fork has to wait for.

A child that is forked while a thread imports keeps half-made modules: its own imports of them fail,
or never end. So whatever is imported on a thread is imported under this lock, and a fork takes it.
"""

# Before the lock's handlers: a fork runs the handlers before it last in, first out, and must not
# hold logging's locks while it waits for a thread that may log.
import logging  # noqa: F401
import os
import threading

importing = threading.RLock()
"""Held while modules are imported on a thread."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=importing.acquire,
        after_in_parent=importing.release,
        after_in_child=importing.release,
    )
