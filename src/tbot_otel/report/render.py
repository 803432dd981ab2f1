"""Renders a report in the format that was asked for."""

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator

from tbot_otel.report.document import Report

# Files of this size take about a second.
_MIN_PROGRESS_BYTES = 128 * 2**20


def to_json(report: Report) -> bytes:
    """Return the report as JSON."""
    return f"{json.dumps(report, indent=2)}\n".encode()


def to_html(report: Report, min_group: int) -> bytes:
    """Return the report as an HTML page."""
    from tbot_otel.report import html

    return html.render(report, min_group).encode()


def to_text(report: Report, min_group: int, *, encoding: str, is_terminal: bool) -> bytes:
    """Return the report as text.

    Args:
        report: The report.
        min_group: The number of starts below which its rows are folded.
        encoding: The text's encoding.
        is_terminal: Whether it is for this terminal: in its width, and in color, unless the
            variable NO_COLOR is set.
    """
    from rich.console import Console

    from tbot_otel.report import terminal

    # If rich wrote to standard output, it would exit when the reader closes its end.
    text = io.BytesIO()
    # It has the encoding, so that bars that cannot be written in it are left out.
    file = io.TextIOWrapper(text, encoding, errors="replace", newline="")
    width = None if is_terminal else 80
    terminal.render(report, Console(file=file, force_terminal=is_terminal, width=width), min_group)
    file.flush()
    return text.getvalue()


@contextlib.contextmanager
def progress_bar(size: int) -> Iterator[Callable[[int], None]]:
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
