"""Print what emit would send, as OTLP/JSON, and send nothing. This needs no consent.

Standard error lists what policy changed or left out. The session id and the times are new at each
run, as they are in emit.
"""

import argparse

from tbot_otel.cli import _source
from tbot_otel.errors import TbotOtelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tbot_otel.cli._parser import Parser


def configure(parser: "Parser") -> None:
    """Add the options."""
    _source.configure(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="write to FILE")


def run(options: argparse.Namespace) -> int:
    """Print a start."""
    from tbot_otel.otlp.encoding import to_json
    from tbot_otel.record import start_record, to_readable
    from tbot_otel.session import Session

    event, lines = _source.read(options)
    _source.print_lines(lines)
    text = to_json([to_readable(start_record(event, Session()))])
    if options.output is None:
        print(text)
        return 0
    try:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise TbotOtelError(f"{options.output}: {error.strerror}") from None
    return 0
