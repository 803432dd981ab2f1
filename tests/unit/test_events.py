"""StartEvent: the start that a program can record."""

import copy
import pickle
from typing import Any

import pytest

from support.cases import EMPTY_ATTRIBUTES, FULL_FIELDS, OTHER
from tbot_otel import InvalidEventError, Reason, StartEvent
from tbot_otel.policy import Permitted, decide

ATTRIBUTES = {f"tbot.{name}": value for name, value in FULL_FIELDS.items()}


@pytest.mark.parametrize(
    ("given", "changes"),
    [
        pytest.param(FULL_FIELDS, {}, id="full"),
        pytest.param(
            FULL_FIELDS | {"run_mode": "_OTHER", "version": "_OTHER", "join_type": "_OTHER"},
            {"tbot.run_mode": "_OTHER", "tbot.version": "_OTHER", "tbot.join_type": "_OTHER"},
            id="_OTHER",
        ),
    ],
)
def test_attributes(given: dict[str, Any], changes: dict[str, object]) -> None:
    """An event has the record's attributes in their order, and the same values as fields."""
    event = StartEvent(**given)
    expected = ATTRIBUTES | changes
    assert list(event.attributes.items()) == list(expected.items())
    fields = {name.removeprefix("tbot."): value for name, value in expected.items()}
    assert {name: getattr(event, name) for name in fields} == fields
    assert event.changes == ()


def test_defaults() -> None:
    """Only the run mode and the version have no default."""
    event = StartEvent(run_mode="one-shot", version="18.3.0")
    expected = {name: value for name, value in EMPTY_ATTRIBUTES.items() if name in ATTRIBUTES}
    expected |= {"tbot.run_mode": "one-shot", "tbot.version": "18.3.0"}
    assert list(event.attributes.items()) == list(expected.items())
    assert (event.join_type, event.destinations_other, event.helper) == ("", 0, None)


def test_helper_without_version() -> None:
    """A helper does not need a version."""
    event = StartEvent(**FULL_FIELDS | {"helper_version": None})
    expected = {name: value for name, value in ATTRIBUTES.items() if name != "tbot.helper_version"}
    assert list(event.attributes.items()) == list(expected.items())
    assert event.helper_version is None


@pytest.mark.parametrize(
    ("name", "value", "kept", "reason"),
    [
        *(("run_mode", value, OTHER, Reason.UNKNOWN_VALUE) for value in ("web01", "", "Daemon")),
        *(
            ("version", value, OTHER, Reason.UNKNOWN_VALUE)
            for value in ("web01", "", "18.3", "18.3.0\n", "192.0.2.1", "11.0.0")
        ),
        ("version", "v18.3.0", "18.3.0", Reason.CUT_OFF),
        ("version", "18.0.0-dev.someone.1+x", "18.0.0-dev", Reason.CUT_OFF),
        ("join_type", "a_newer_method", OTHER, Reason.UNKNOWN_VALUE),
        ("helper_version", "v2.1.2", "2.1.2", Reason.CUT_OFF),
        *(
            ("helper_version", value, None, Reason.DOES_NOT_FIT)
            for value in ("web01", "1.2.3.4", OTHER)
        ),
        *(
            (f"destinations_{kind}", 2125551234, 999, Reason.CAPPED)
            for kind in ("other", "database", "kubernetes", "application")
        ),
    ],
)
def test_changed_value(name: str, value: object, kept: object, reason: Reason) -> None:
    """A value that may not leave is changed as policy changes it, and the event says so."""
    event = StartEvent(**FULL_FIELDS | {name: value})
    assert getattr(event, name) == kept
    assert event.changes == ((f"tbot.{name}", reason),)
    decision = decide("tbot.start", event.attributes)
    assert isinstance(decision, Permitted)
    assert decision.changes == []


@pytest.mark.parametrize("helper", ["acme-deploy", "terraform", "gha:teleport-actions/auth"])
def test_helper_that_can_be_allowed(helper: str) -> None:
    """The name of a helper is kept if the owner of a pipeline could allow it."""
    event = StartEvent(**FULL_FIELDS | {"helper": helper})
    assert (event.helper, event.helper_version) == (helper, FULL_FIELDS["helper_version"])
    assert event.changes == ()


@pytest.mark.parametrize("helper", ["web01.example.com", "x y", "someone@example.com", OTHER])
def test_helper_that_cannot_be_allowed(helper: str) -> None:
    """Any other name of a helper becomes _OTHER, and its version is left out."""
    event = StartEvent(**FULL_FIELDS | {"helper": helper})
    assert (event.helper, event.helper_version) == (OTHER, None)
    assert ("tbot.helper_version", Reason.UNKNOWN_HELPER) in event.changes


@pytest.mark.parametrize("helper", ["", None])
def test_helper_version_without_helper(helper: str | None) -> None:
    """A helper's version is left out if there is no helper."""
    event = StartEvent(**FULL_FIELDS | {"helper": helper})
    assert (event.helper, event.helper_version) == (None, None)
    assert event.changes == (("tbot.helper_version", Reason.NO_HELPER),)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *((name, value, "str") for name in ("run_mode", "version") for value in (None, 1, b"x")),
        *(("join_type", value, "str") for value in (None, 1.5, ["github"])),
        *((name, value, "str") for name in ("helper", "helper_version") for value in (1, b"x")),
        *(
            (f"destinations_{kind}", value, "int")
            for kind in ("other", "database", "kubernetes", "application")
            for value in (1.0, True, "1", OTHER, None)
        ),
    ],
)
def test_wrong_type(name: str, value: object, expected: str) -> None:
    """A value of another type is a TypeError that does not repeat the value."""
    with pytest.raises(TypeError) as caught:
        StartEvent(**FULL_FIELDS | {name: value})
    assert str(caught.value) == f"tbot.{name}: expected {expected}"


@pytest.mark.parametrize("kind", ["other", "database", "kubernetes", "application"])
def test_negative_count(kind: str) -> None:
    """A negative count is an error, because only a mistake in the program can make it."""
    name = f"tbot.destinations_{kind}"
    expected = "a whole number that is not negative"
    with pytest.raises(InvalidEventError) as caught:
        StartEvent(**FULL_FIELDS | {f"destinations_{kind}": -1})
    assert str(caught.value) == f"{name}: expected {expected}"
    assert (caught.value.attribute, caught.value.expected) == (name, expected)
    assert isinstance(caught.value, ValueError)


def test_keywords_only() -> None:
    """An event does not take positional arguments."""
    with pytest.raises(TypeError, match="positional"):
        StartEvent("daemon", "18.3.0")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", [*FULL_FIELDS, "attributes", "anything"])
def test_immutable(name: str) -> None:
    """No attribute can be set, deleted or added."""
    event = StartEvent(**FULL_FIELDS)
    problem = f"^a StartEvent is immutable: {name}$"
    with pytest.raises(AttributeError, match=problem):
        setattr(event, name, "daemon")
    with pytest.raises(AttributeError, match=problem):
        delattr(event, name)
    event.attributes.clear()
    assert event == StartEvent(**FULL_FIELDS)


def test_equality() -> None:
    """Events with the same values are equal and have the same hash."""
    event = StartEvent(**FULL_FIELDS)
    assert event == StartEvent(**FULL_FIELDS)
    assert hash(event) == hash(StartEvent(**FULL_FIELDS))
    for name, value in (
        ("run_mode", "one-shot"),
        ("helper_version", None),
        ("destinations_other", 0),
    ):
        other = StartEvent(**FULL_FIELDS | {name: value})
        assert event != other
        # Equal hashes would be valid, and slow.
        assert hash(event) != hash(other)
    assert event != event.attributes
    assert event != None  # noqa: E711 - tests __eq__ with None


def test_repr() -> None:
    """An event is printed as the call that creates it."""
    event = StartEvent(**FULL_FIELDS)
    assert eval(repr(event), {"StartEvent": StartEvent}) == event  # noqa: S307 - this test's text
    assert repr(event).startswith("StartEvent(run_mode='daemon', version='18.3.0', join_type=")


def test_copies() -> None:
    """An event can be copied and pickled."""
    # tbot's flag has this name; a type checker refuses it here.
    mode: Any = "oneshot"
    event = StartEvent(run_mode=mode, version="18.3.0", helper="gha:x/y", destinations_other=2)
    for same in (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event))):
        assert same == event
        assert same.changes == event.changes == (("tbot.run_mode", Reason.UNKNOWN_VALUE),)
