"""StartEvent: the start that a program can record."""

import copy
import pickle
from typing import Any

import pytest

from support.cases import EMPTY_ATTRIBUTES, FULL_FIELDS
from tbot_otel import InvalidEventError, StartEvent
from tbot_otel.registry import START

INVALID = "web01"
COUNT = "a whole number from 0 to 2147483647"
JOIN_TYPES = next(item for item in START.attributes if item.name == "tbot.join_type").expected
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
        pytest.param(
            FULL_FIELDS | {"version": "18.0.0-dev.someone.1+x"},
            {"tbot.version": "18.0.0-dev"},
            id="a version that is cut off",
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
    ("name", "value", "expected"),
    [
        *(
            ("tbot.run_mode", value, "one of one-shot, daemon")
            for value in (INVALID, "", "Daemon", None, 1)
        ),
        *(
            ("tbot.version", value, "a value such as 18.3.0")
            for value in (INVALID, "", "v18.3.0", "18.3", "18.3.0\n", "192.0.2.1", None, 18.3)
        ),
        *(
            ("tbot.helper", value, "a value such as gha:teleport-actions/auth")
            for value in (f"{INVALID}.example.com", "", "x y", "_OTHER", 1, b"x")
        ),
        *(
            ("tbot.helper_version", value, "a value such as v1.2.0")
            for value in (INVALID, "", "1.2.3.4", "_OTHER", 1.2)
        ),
        *(
            (f"tbot.destinations_{kind}", value, COUNT)
            for kind in ("other", "database", "kubernetes", "application")
            for value in (-1, 2**31, 1.0, True, "1", INVALID, "_OTHER", None)
        ),
        ("tbot.join_type", INVALID, JOIN_TYPES),
        ("tbot.join_type", None, JOIN_TYPES),
    ],
)
def test_invalid_value(name: str, value: object, expected: str) -> None:
    """The error names the attribute and its allowed values, and does not repeat the value."""
    with pytest.raises(InvalidEventError) as caught:
        StartEvent(**FULL_FIELDS | {name.removeprefix("tbot."): value})
    assert str(caught.value) == f"{name}: expected {expected}"
    assert (caught.value.attribute, caught.value.expected) == (name, expected)
    assert isinstance(caught.value, ValueError)


def test_join_types_in_error() -> None:
    """The error about a join type lists all of them."""
    assert JOIN_TYPES.startswith("one of '' (none), azure, azure_devops, ")
    assert JOIN_TYPES.endswith(", token, tpm")


def test_helper_version_without_helper() -> None:
    """A helper's version needs a helper."""
    with pytest.raises(InvalidEventError) as caught:
        StartEvent(run_mode="daemon", version="18.3.0", helper_version="v1.2.0")
    assert str(caught.value) == "tbot.helper_version: expected a tbot.helper beside it"


@pytest.mark.parametrize("missing", ["run_mode", "version"])
def test_required(missing: str) -> None:
    """The run mode and the version are required."""
    with pytest.raises(TypeError, match=missing):
        StartEvent(**{name: value for name, value in FULL_FIELDS.items() if name != missing})


def test_keywords_only() -> None:
    """An event does not take positional arguments."""
    with pytest.raises(TypeError, match="positional"):
        StartEvent("daemon", "18.3.0")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", [*FULL_FIELDS, "attributes", "anything"])
def test_immutable(name: str) -> None:
    """No attribute can be set, deleted or added."""
    event = StartEvent(**FULL_FIELDS)
    with pytest.raises(AttributeError):
        setattr(event, name, "daemon")
    with pytest.raises(AttributeError):
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
        assert event != StartEvent(**FULL_FIELDS | {name: value})
    assert event != event.attributes
    assert event != None  # noqa: E711 - tests __eq__ with None


def test_repr() -> None:
    """An event is printed as the call that creates it."""
    event = StartEvent(**FULL_FIELDS)
    assert eval(repr(event), {"StartEvent": StartEvent}) == event  # noqa: S307 - this test's text
    assert repr(event).startswith("StartEvent(run_mode='daemon', version='18.3.0', join_type=")


def test_copies() -> None:
    """An event can be copied and pickled."""
    event = StartEvent(run_mode="daemon", version="18.3.0", helper="gha:x/y", destinations_other=2)
    for same in (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event))):
        assert same == event
