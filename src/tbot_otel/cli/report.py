"""Count the starts in a Collector's files, and print what they have in common.

The files are those of the Collector's file exporter, or of --record, plain or
compressed. A start counts once, also if it
was sent twice. This sends nothing and needs no consent
(TELEPORT_ANONYMOUS_TELEMETRY). It needs the extra: pip install
'tbot-otel[report]'.

Examples:
  tbot-otel report /var/lib/otelcol/starts
  tbot-otel report starts.jsonl --since 2026-01-01 --format html -o report.html

Exit status: 0 = the report was written; 1 = it could not be written, or there
is no start in it and something was not understood; 2 = a usage error, or a file
that cannot be read.

All options and the JSON format:
https://github.com/tbot-otel/tbot-otel/blob/main/docs/report.md
"""

import argparse
import contextlib
import json
import re
import signal
import sys
import tempfile
from datetime import date
from functools import partial
from pathlib import Path

from tbot_otel.cli._output import write_message
from tbot_otel.cli._parser import OptionError, number_up_to
from tbot_otel.errors import missing_extra
from tbot_otel.streams import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import NoReturn

    from tbot_otel.cli._parser import Parser
    from tbot_otel.report.document import Document
    from tbot_otel.report.inputs import File
    from tbot_otel.report.unreadable import UnreadableParts

FORMATS = ("terminal", "html", "json", "csv", "parquet")
_REQUIRED_MODULES = ("duckdb", "jinja2", "msgspec", "rich")
_EPOCH = date(1970, 1, 1)


def configure(parser: "Parser") -> None:
    """Add the options."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="a file, a folder or a pattern of the files"
    )
    for option, brief in (
        ("--since", "the first day to count, as YYYY-MM-DD (UTC)"),
        ("--until", "the day after the last one to count"),
        ("--compare-since", "compare from this day on with what is before (the second half)"),
    ):
        parser.add_argument(option, type=_parse_day, metavar="DATE", help=brief)
    parser.add_argument(
        "--min-group",
        type=number_up_to(999_999_999),
        default=5,
        metavar="N",
        help="fold the rows of a table that stand for fewer than N starts into one line (5)",
    )
    parser.add_allow_helper()
    parser.add_argument(
        "--format",
        type=_parse_format,
        default="terminal",
        metavar="FORMAT",
        help="terminal, html, json, or the starts themselves, a row each, which are not folded: "
        "csv, parquet",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="write to OUT instead of standard output, and replace it",
    )


def _parse_day(text: str) -> date:
    if re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII):
        with contextlib.suppress(ValueError):
            return date.fromisoformat(text)
    raise argparse.ArgumentTypeError("expected a day, YYYY-MM-DD")


def _parse_format(text: str) -> str:
    if text not in FORMATS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(FORMATS)}")
    return text


def run(options: argparse.Namespace) -> int:
    """Print the report."""
    from importlib.util import find_spec

    if not all(map(find_spec, _REQUIRED_MODULES)):
        raise OptionError(missing_extra("report"))
    if options.since and options.until and options.since >= options.until:
        raise OptionError("--since, --until: expected an earlier day for --since")
    if options.compare_since and not (
        (options.since or date.min) < options.compare_since < (options.until or date.max)
    ):
        raise OptionError("--compare-since: expected a day between --since and --until")
    if options.output is None and sys.stdout is None:
        raise OptionError("--output: expected a file, because standard output is closed")
    if options.output is None and options.format == "parquet" and sys.stdout.isatty():
        raise OptionError("--format: expected -o OUT, because parquet is not text")
    from tbot_otel.report.inputs import find_files
    from tbot_otel.report.output import Output, OutputError
    from tbot_otel.report.unreadable import UnreadableParts

    files = find_files(options.files)
    for file in files:
        if file.problem:
            write_message(f"tbot-otel report: {printable(file.path)}: {file.problem}")
    files = [file for file in files if not file.problem]
    if not files:
        return 2
    _exit_on_signals()
    unreadable = UnreadableParts()
    with Output(options.output) as output, _temporary_folder() as folder:
        try:
            content, starts = _read(options, files, folder, unreadable)
        finally:
            _check_signals()
        if unreadable.count:
            write_message(f"tbot-otel report: {unreadable}")
        try:
            output.write(content)
        except OutputError as error:
            write_message(f"tbot-otel report: {printable(str(error))}")
            return 1
    return 0 if starts or not unreadable.count else 1


_received_signal = 0


def _exit_on_signals() -> None:
    """Exit on signals, so that the temporary files are removed."""
    for name in ("SIGHUP", "SIGINT", "SIGTERM"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit_on_signal)


def _exit_on_signal(number: int, _: object) -> "NoReturn":
    global _received_signal
    _received_signal = number
    sys.exit(128 + number)


def _check_signals() -> None:
    """Exit if a signal has arrived. Some libraries swallow or replace a handler's exception."""
    if _received_signal:
        sys.exit(128 + _received_signal)


@contextlib.contextmanager
def _temporary_folder() -> "Iterator[Path]":
    """Create a folder that only its owner can read, and remove it."""
    from tbot_otel.report.inputs import naming

    with naming(tempfile.gettempdir()):
        folder = tempfile.TemporaryDirectory(prefix="tbot-otel-", ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)


def _read(
    options: argparse.Namespace,
    files: "Sequence[File]",
    folder: Path,
    unreadable: "UnreadableParts",
) -> tuple[bytes | Path, int]:
    """Return the report, or a file that has it, and its number of starts."""
    from tbot_otel.report.count import StartCounter
    from tbot_otel.report.parse import Parser
    from tbot_otel.report.progress import progress_bar
    from tbot_otel.report.reader import read_blocks
    from tbot_otel.report.workers import parse_blocks

    first = (options.since or _EPOCH) - _EPOCH
    last = (options.until or date.max) - _EPOCH
    make_parser = partial(Parser, first.days, last.days - 1, tuple(options.allowed_helpers))
    blocks = (block for file in files for block in read_blocks(file))
    with contextlib.closing(StartCounter(folder)) as counter:
        with progress_bar(sum(file.size for file in files)) as advance:
            for block, chunk in parse_blocks(blocks, make_parser):
                _check_signals()
                unreadable.add(block, chunk)
                counter.add(chunk, block.skipped)
                advance(block.size)
        counter.finish()
        if options.format in ("csv", "parquet"):
            return counter.write_starts(options.format), counter.starts
        return _render(
            options, counter.document(options.min_group, options.compare_since)
        ), counter.starts


def _render(options: argparse.Namespace, document: "Document") -> bytes:
    if options.format == "json":
        return f"{json.dumps(document, indent=2)}\n".encode()
    if options.format == "html":
        from tbot_otel.report import html

        return html.render(document, options.min_group).encode()
    from tbot_otel.report import terminal

    is_file = options.output is not None
    return terminal.render_text(
        document,
        options.min_group,
        encoding="utf-8" if is_file else sys.stdout.encoding,
        is_terminal=not is_file and sys.stdout.isatty(),
    )
