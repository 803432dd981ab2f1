"""Print exactly what emit would send, as OTLP/JSON, and send nothing; no consent is needed.

What policy left out is listed on standard error. The session's id and the times are new at every
run, as they are in emit.
"""

import argparse

from tbot_otel.cli import _source
from tbot_otel.errors import TbotOtelError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    _source.configure(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="write to a file instead")


def run(options: argparse.Namespace) -> int:
    """Print a start."""
    from tbot_otel import otlp
    from tbot_otel.exporter import anonymise
    from tbot_otel.record import of_start, readable
    from tbot_otel.session import Session

    event, left_out = _source.read(options)
    _source.report(left_out)
    record, _ = anonymise(readable(of_start(event, Session())))
    text = otlp.to_json([record] if record else [])
    if options.output is None:
        print(text)
        return 0
    try:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise TbotOtelError(f"{options.output}: {error.strerror}") from None
    return 0
