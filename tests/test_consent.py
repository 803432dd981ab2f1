"""Consent: what the environment says, as tbot reads it, and what can only refuse."""

import pytest

from tbot_otel import Consent, OptInSampler

OPT_IN = "TELEPORT_ANONYMOUS_TELEMETRY"
YES = f"{OPT_IN} opts in"
NO = f"{OPT_IN} opts out"
UNSET = f"{OPT_IN} is not set"
UNREADABLE = f"{OPT_IN} is set to neither yes (1, t, true) nor no (0, f, false)"
DISABLED = "OTEL_SDK_DISABLED turns all telemetry off"
NOT_TRACKED = "DO_NOT_TRACK asks not to be tracked"

CASES: list[tuple[dict[str, str], str]] = [
    ({}, UNSET),
    ({OPT_IN: ""}, UNSET),
    # All that Go's strconv.ParseBool takes.
    *(({OPT_IN: value}, YES) for value in ("1", "t", "T", "TRUE", "true", "True")),
    *(({OPT_IN: value}, NO) for value in ("0", "f", "F", "FALSE", "false", "False")),
    # What it does not, but people and other programs do.
    *(
        ({OPT_IN: value}, UNREADABLE)
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
    # OpenTelemetry takes true in any case, and nothing else.
    *(
        ({OPT_IN: "1", "OTEL_SDK_DISABLED": value}, DISABLED)
        for value in ("true", "True", "TRUE", "tRuE", " true ")
    ),
    *(
        ({OPT_IN: "1", "OTEL_SDK_DISABLED": value}, YES)
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
    *(({OPT_IN: "1", "DO_NOT_TRACK": value}, YES) for value in ("", "0", "false")),
    # A refusal stands, and none of the others is an opt-in.
    ({OPT_IN: "1", "OTEL_SDK_DISABLED": "true", "DO_NOT_TRACK": "1"}, DISABLED),
    ({OPT_IN: "0", "OTEL_SDK_DISABLED": "true", "DO_NOT_TRACK": "1"}, NO),
    ({OPT_IN: "0", "OTEL_SDK_DISABLED": "false", "DO_NOT_TRACK": "0"}, NO),
    ({"OTEL_SDK_DISABLED": "false", "DO_NOT_TRACK": "0"}, UNSET),
    ({OPT_IN.lower(): "1", f"{OPT_IN}_": "1"}, UNSET),
]
each_case = pytest.mark.parametrize(
    ("environ", "reason"),
    CASES,
    ids=[
        " ".join(f"{name}={value!a}" for name, value in environ.items()) or "unset"
        for environ, _ in CASES
    ],
)


def check(consent: Consent, reason: str) -> None:
    """Compare the answer: its decision and its variable follow from its sentence."""
    granted = reason == YES
    assert consent.reason == reason
    assert consent.variable == reason.partition(" ")[0]
    assert consent.granted is granted
    assert repr(consent) == f"Consent({granted}, {consent.variable!r}, {reason!r})"


@each_case
def test_mapping(environ: dict[str, str], reason: str) -> None:
    """The variables that are passed decide."""
    check(OptInSampler(environ).should_sample(), reason)


@each_case
def test_environment(environ: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's environment decides where no variables are passed."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    check(OptInSampler().should_sample(), reason)


@pytest.mark.usefixtures("opted_in")
def test_mapping_alone() -> None:
    """Where variables are passed, the environment is not asked, be they ever so empty."""
    check(OptInSampler({}).should_sample(), UNSET)


def test_changes_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is read each time that the sampler is asked."""
    sampler = OptInSampler()
    check(sampler.should_sample(), UNSET)
    monkeypatch.setenv(OPT_IN, "1")
    check(sampler.should_sample(), YES)
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    check(sampler.should_sample(), NOT_TRACKED)
    monkeypatch.delenv("DO_NOT_TRACK")
    monkeypatch.setenv(OPT_IN, "0")
    check(sampler.should_sample(), NO)


def test_changes_of_a_mapping_are_seen() -> None:
    """So are the variables that are passed."""
    environ = {OPT_IN: "1"}
    sampler = OptInSampler(environ)
    check(sampler.should_sample(), YES)
    environ["OTEL_SDK_DISABLED"] = "true"
    check(sampler.should_sample(), DISABLED)
