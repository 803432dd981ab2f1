"""The resource detector offers the session id with consent alone."""

import pytest
from opentelemetry.sdk.resources import Resource

from tbot_otel import session
from tbot_otel.pipeline.resource import EntryPointResourceDetector, TbotResourceDetector

DETECTORS = [TbotResourceDetector, EntryPointResourceDetector]


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"TELEPORT_ANONYMOUS_TELEMETRY": "0"},
        {"TELEPORT_ANONYMOUS_TELEMETRY": "1", "DO_NOT_TRACK": "1"},
    ],
    ids=str,
)
def test_without_consent(
    detector: type[TbotResourceDetector], environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without consent it offers nothing, and no id waits for a start."""
    monkeypatch.setattr(session, "_offered", None)
    monkeypatch.setattr(session, "_untaken", [])
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "tbot")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert detector().detect() == Resource.get_empty()
    assert session._offered is None


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize("detector", DETECTORS)
def test_with_consent(
    detector: type[TbotResourceDetector], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With consent it offers the id of the process, and nothing else."""
    monkeypatch.setattr(session, "_offered", None)
    monkeypatch.setattr(session, "_untaken", [])
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "tbot")
    assert detector().detect().attributes == {"session.id": session.offer_id()}
