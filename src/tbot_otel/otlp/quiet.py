"""Hides what the libraries behind an export log: a line of theirs can repeat a header or a URL."""

import contextlib
import logging
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

    def filter(self, record: logging.LogRecord) -> bool:
        levels = getattr(self.thread, "levels", None)
        if levels is None:
            return True
        levels.append(record.levelno)
        return False


_filter = _ThreadFilter()


@contextlib.contextmanager
def hidden_logs() -> "Iterator[list[int]]":
    """Hide what these libraries log on this thread in this block, and return the levels of it."""
    # A filter applies to one logger, and importing a library creates more of them.
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] in _LIBRARIES and isinstance(logger, logging.Logger):
            logger.addFilter(_filter)
    levels: list[int] = []
    _filter.thread.levels = levels
    try:
        yield levels
    finally:
        _filter.thread.levels = None
