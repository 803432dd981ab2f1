"""A pytest plugin for programs that record tbot's starts.

It is not loaded by itself: write ``pytest_plugins = ["tbot_otel.testing"]`` into your conftest.py.
docs/testing.md explains its fixtures. It asserts nothing with ``assert``: PYTEST_DONT_REWRITE.
"""

import sys
from collections.abc import Iterator

import pytest

from tbot_otel.consent import OPT_IN
from tbot_otel.testing._environment import telemetry_variables
from tbot_otel.testing._silence import REFUSALS, Auditor, AuditReport, Finding
from tbot_otel.testing._starts import RecordedStart, StartReceiver

__all__ = [
    "REFUSALS",
    "AuditReport",
    "Auditor",
    "Finding",
    "RecordedStart",
    "StartReceiver",
    "tbot_silence",
    "tbot_starts",
]


@pytest.fixture
def tbot_silence() -> Auditor:
    """Run a program under audit, and prove that it is silent. Elsewhere, the test is skipped."""
    if sys.platform != "linux" or sys.implementation.name != "cpython":
        pytest.skip("tbot_silence needs CPython on Linux: it reads /proc and counts threads")
    return Auditor()


@pytest.fixture
def tbot_starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartReceiver]:
    """Opt in, and receive on loopback the starts that the test and its child processes record.

    The machine's own settings of telemetry are removed until the test ends.
    """
    for name in telemetry_variables():
        monkeypatch.delenv(name)
    with StartReceiver() as receiver:
        monkeypatch.setenv(OPT_IN, "1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        # A tbot that the test starts reports to Teleport by default.
        monkeypatch.setenv("TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS", receiver.endpoint)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1", prepend=",")
        yield receiver
