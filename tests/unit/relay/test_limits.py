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
