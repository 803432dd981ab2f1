"""Send a start of tbot, and say on standard error what came of it.

Exit status: 0 = delivered, or nothing to send without consent; 1 = not delivered; 2 = bad input.
"""

import argparse
import sys

from tbot_otel.cli import _source
from tbot_otel.consent import OptInSampler

LONGEST_WAIT = 10.0
"""The longest wait for the Collector, in seconds: the specification's time-out of an export."""

configure = _source.configure


def run(options: argparse.Namespace) -> int:
    """Send a start."""
    consent = OptInSampler().should_sample()
    if not consent.granted:
        return _end(0, f"nothing is sent: {consent.reason}")

    import logging

    from tbot_otel import destination
    from tbot_otel.session import Outcome, Status
    from tbot_otel.start import record_start

    event, left_out = _source.read(options)
    _source.report(left_out)
    # Other loggers repeat what stands in variables: headers, and an endpoint's query.
    handler = logging.StreamHandler()
    handler.addFilter(logging.Filter("tbot_otel"))
    logging.basicConfig(format="tbot-otel: %(message)s", handlers=[handler])
    timeout = destination.timeout()
    wait = LONGEST_WAIT if timeout is None else min(timeout, LONGEST_WAIT)
    session = record_start(event)
    outcome = session.flush(wait)
    target = f"{destination.endpoint()} ({destination.protocol()})"
    if outcome.status is Status.DELIVERED:
        return _end(0, f"delivered to {target}, session {session.id}")
    if outcome.status is Status.REFUSED:
        return _end(0, f"nothing is sent: {outcome.reason}")
    reason = outcome.reason
    if outcome.status is Status.PENDING:
        reason = f"no answer within {wait:g} s"
        # Else the exit would wait for it once more.
        session.settle(Outcome(Status.FAILED, reason))
    return _end(1, f"not delivered to {target}: {reason}")


def _end(status: int, line: str) -> int:
    print(f"tbot-otel: {line}", file=sys.stderr)
    return status
