"""Hides what the libraries behind an export log: a line of theirs can repeat a header or a URL."""

import contextlib
import logging
import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LIBRARIES = ("grpc", "opentelemetry", "requests", "urllib3")


class _ThreadFilter(logging.Filter):
    """Hides lines of threads inside `hidden_logs`."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.local()

    def filter(self, _: logging.LogRecord) -> bool:
        return not getattr(self.thread, "is_hidden", False)


_filter = _ThreadFilter()


@contextlib.contextmanager
def hidden_logs() -> "Iterator[None]":
    """Hide what these libraries log on this thread in this block."""
    # A filter applies to one logger, and importing a library creates more of them.
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] in _LIBRARIES and isinstance(logger, logging.Logger):
            logger.addFilter(_filter)
    _filter.thread.is_hidden = True
    try:
        yield
    finally:
        _filter.thread.is_hidden = False


def silence_grpc() -> None:
    """Keep gRPC's C core from writing to standard error. Call this in a process of ours alone."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
