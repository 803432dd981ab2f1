"""Shows how much of long input has been read."""

import contextlib
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Files of this size take about a second.
_MIN_PROGRESS_BYTES = 128 * 2**20


@contextlib.contextmanager
def progress_bar(size: int) -> "Iterator[Callable[[int], None]]":
    """Show a progress bar for long input, if standard error is a terminal.

    Args:
        size: The size of the input in bytes.

    Returns:
        A function to call with the bytes that have been read since it was called before.
    """
    if size < _MIN_PROGRESS_BYTES or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Reading", total=size)
        yield lambda read: progress.advance(task, read)
