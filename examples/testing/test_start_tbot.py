"""The tests of the helper, with `cat` in place of tbot: it runs until its input ends."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import start_tbot

from tbot_otel.testing import REFUSALS, Auditor, StartReceiver

pytest_plugins = ["tbot_otel.testing"]

HELPER = [sys.executable, str(Path(__file__).with_name("start_tbot.py"))]


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
def test_silent_without_consent(tbot_silence: Auditor, refusal: Mapping[str, str]) -> None:
    """Without consent, the helper starts tbot and does nothing else."""
    report = tbot_silence.assert_silent([*HELPER, "cat"], env=refusal)
    assert report.names("process") == ["subprocess.Popen cat"]


def test_exit_status(tbot_silence: Auditor) -> None:
    """The helper exits as tbot did."""
    tbot_silence.assert_silent([*HELPER, "sh", "-c", "exit 7"], returncode=7)


def test_start(tbot_starts: StartReceiver) -> None:
    """With consent, one start arrives while tbot runs, and it has these attributes."""
    with subprocess.Popen([*HELPER, "cat"], stdin=subprocess.PIPE) as helper:
        (start,) = tbot_starts.wait()
        helper.communicate()
    assert helper.returncode == 0
    assert start.event_name == "tbot.start"
    assert start.attributes["tbot.run_mode"] == "one-shot"
    assert start.attributes["tbot.join_type"] == "github"
    assert start.resource_attributes["service.name"] == "tbot"


def test_start_in_this_process(tbot_starts: StartReceiver) -> None:
    """The same, for a helper that the test calls."""
    assert start_tbot.main(["true"]) == 0
    assert len(tbot_starts.wait()) == 1
