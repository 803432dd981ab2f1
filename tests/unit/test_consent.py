"""Consent: the variable that opts in, read as tbot reads it, and the variables that refuse."""

import pytest

from support.cases import ascii_id
from tbot_otel import Consent, OptInSampler

OPT_IN = "TELEPORT_ANONYMOUS_TELEMETRY"
OPTS_IN = f"{OPT_IN} opts in"
OPTS_OUT = f"{OPT_IN} opts out"
UNSET = f"{OPT_IN} is not set"
INVALID = f"{OPT_IN} is neither true (1, t, true) nor false (0, f, false)"
DISABLED = "OTEL_SDK_DISABLED turns all telemetry off"
NOT_TRACKED = "DO_NOT_TRACK asks not to be tracked"

CASES: list[tuple[dict[str, str], str]] = [
    ({}, UNSET),
    ({OPT_IN: ""}, UNSET),
    # All values that Go's strconv.ParseBool accepts.
    *(({OPT_IN: value}, OPTS_IN) for value in ("1", "t", "T", "TRUE", "true", "True")),
    *(({OPT_IN: value}, OPTS_OUT) for value in ("0", "f", "F", "FALSE", "false", "False")),
    # Values that it does not accept, but people and other programs use.
    *(
        ({OPT_IN: value}, INVALID)
        for value in (
            *(
                "yes",
                "Yes",
                "y",
                "Y",
                "no",
                "n",
                "on",
                "ON",
                "off",
                "enabled",
                "tRUE",
                "TRue",
                "tr",
            ),
            *(" 1", "1 ", "1\n", " ", "\t", "true ", "'1'", '"true"', "01", "1.0", "+1", "2", "-1"),
            *("10", "\N{FULLWIDTH DIGIT ONE}", "\N{SUPERSCRIPT ONE}", "None", "null"),
        )
    ),
    # OpenTelemetry accepts true in any case, and nothing else.
    *(
        ({OPT_IN: "1", "OTEL_SDK_DISABLED": value}, DISABLED)
        for value in ("true", "True", "TRUE", "tRuE", " true ")
    ),
    *(
        ({OPT_IN: "1", "OTEL_SDK_DISABLED": value}, OPTS_IN)
        for value in ("", "false", "False", "0", "1", "yes", "on")
    ),
    *(
        ({OPT_IN: "1", "DO_NOT_TRACK": value}, NOT_TRACKED)
        for value in (
            "1",
            "true",
            "TRUE",
            "yes",
            "no",
            "off",
            "False",
            "FALSE",
            " ",
            "00",
            "anything",
        )
    ),
    *(({OPT_IN: "1", "DO_NOT_TRACK": value}, OPTS_IN) for value in ("", "0", "false")),
    # One refusal is enough, and only one variable opts in.
    ({OPT_IN: "1", "OTEL_SDK_DISABLED": "true", "DO_NOT_TRACK": "1"}, DISABLED),
    ({OPT_IN: "0", "OTEL_SDK_DISABLED": "true", "DO_NOT_TRACK": "1"}, OPTS_OUT),
    ({OPT_IN: "0", "OTEL_SDK_DISABLED": "false", "DO_NOT_TRACK": "0"}, OPTS_OUT),
    ({"OTEL_SDK_DISABLED": "false", "DO_NOT_TRACK": "0"}, UNSET),
    ({OPT_IN.lower(): "1", f"{OPT_IN}_": "1"}, UNSET),
]


def assert_consent(consent: Consent, reason: str) -> None:
    """Compare a consent with the expected reason, which implies the variable and the decision."""
    granted = reason == OPTS_IN
    assert consent.reason == reason
    assert consent.variable == reason.partition(" ")[0]
    assert consent.granted is bool(consent) is granted
    assert repr(consent) == f"Consent({granted}, {consent.variable!r}, {reason!r})"


@pytest.mark.parametrize(
    ("environ", "reason"),
    CASES,
    ids=[
        " ".join(f"{name}={ascii_id(value)}" for name, value in environ.items()) or "unset"
        for environ, _ in CASES
    ],
)
def test_mapping(environ: dict[str, str], reason: str) -> None:
    """The mapping that is passed decides."""
    assert_consent(OptInSampler(environ).should_sample(), reason)


@pytest.mark.usefixtures("opted_in")
def test_empty_mapping() -> None:
    """An empty mapping replaces the environment too."""
    assert_consent(OptInSampler({}).should_sample(), UNSET)


def test_environment_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping, the sampler reads the environment at each call."""
    sampler = OptInSampler()
    assert_consent(sampler.should_sample(), UNSET)
    monkeypatch.setenv(OPT_IN, "1")
    assert_consent(sampler.should_sample(), OPTS_IN)
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    assert_consent(sampler.should_sample(), NOT_TRACKED)
    monkeypatch.delenv("DO_NOT_TRACK")
    monkeypatch.setenv(OPT_IN, "0")
    assert_consent(sampler.should_sample(), OPTS_OUT)


def test_mapping_changes() -> None:
    """The sampler reads the mapping at each call."""
    environ = {OPT_IN: "1"}
    sampler = OptInSampler(environ)
    assert_consent(sampler.should_sample(), OPTS_IN)
    environ["OTEL_SDK_DISABLED"] = "true"
    assert_consent(sampler.should_sample(), DISABLED)
