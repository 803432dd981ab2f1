"""The limits of the relay: late, slow, silent and too many clients delay no other call."""

from support import agent
from tbot_otel.connect import RESPONSE_TIMEOUT_SECONDS
from tbot_otel.relay import app, bodies, server


def test_response_timeout_is_in_time() -> None:
    """A response is sent before tbot gives up, and before a stopping relay must exit."""
    latest = RESPONSE_TIMEOUT_SECONDS + app._SWEEP_INTERVAL_SECONDS
    assert latest < agent.REPORT_TIMEOUT_SECONDS - 1
    assert latest < server.SHUTDOWN_TIMEOUT_SECONDS - 1
    assert bodies.BODY_TIMEOUT_SECONDS + latest < server.SHUTDOWN_TIMEOUT_SECONDS


def test_strangers_are_gone_in_time() -> None:
    """A connection that sends no whole request is closed within 10 seconds."""
    assert server._HEADER_TIMEOUT_MILLIS / 1000 <= 5
    assert server._HEADER_TIMEOUT_MILLIS / 1000 + bodies.BODY_TIMEOUT_SECONDS <= 10
    # The rest of the connections is for health checks and new calls.
    assert app.MAX_CONCURRENT_CALLS <= server.MAX_CONNECTIONS * 7 / 8
