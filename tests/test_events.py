"""The registry, the event over it, and the pages and the schema made from it."""

import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from cases import WHOLE
from collectors import plain
from tbot_otel import InvalidEventError, StartEvent
from tbot_otel.cli import main
from tbot_otel.cli.events import markdown, schema
from tbot_otel.events import EVENTS, OTHER, RESOURCE, START, Attribute

ROOT = Path(__file__).parents[1]
MARK = "web01"
EVERY = [*(item for event in EVENTS.values() for item in event.attributes), *RESOURCE]
each_attribute = pytest.mark.parametrize("attribute", EVERY, ids=lambda attribute: attribute.name)

COUNT = "a whole number from 0 to 2147483647"
SCHEMA: dict[str, Any] = schema()
SENDER = {
    "service.name": "tbot",
    "session.id": "0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20",
    "telemetry.sdk.language": "python",
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.version": "1.45.2",
}
FIELDS: dict[str, Any] = {name.removeprefix("tbot."): value for name, value in WHOLE.items()}


def test_registry() -> None:
    """There is one event, with the attributes, order and types of tbot's own telemetry."""
    assert list(EVENTS) == ["tbot.start"]
    assert [(attribute.name, attribute.type) for attribute in START.attributes] == [
        ("tbot.run_mode", "string"),
        ("tbot.version", "string"),
        ("tbot.join_type", "string"),
        ("tbot.helper", "string"),
        ("tbot.helper_version", "string"),
        ("tbot.destinations_other", "int"),
        ("tbot.destinations_database", "int"),
        ("tbot.destinations_kubernetes", "int"),
        ("tbot.destinations_application", "int"),
    ]
    optional = [attribute.name for attribute in START.attributes if attribute.optional]
    assert optional == ["tbot.helper", "tbot.helper_version"]


def test_registry_of_the_resource() -> None:
    """The Resource says no more than these."""
    assert [(attribute.name, attribute.type) for attribute in RESOURCE] == [
        ("service.name", "string"),
        ("session.id", "string"),
        ("os.type", "string"),
        ("host.arch", "string"),
        ("telemetry.sdk.language", "string"),
        ("telemetry.sdk.name", "string"),
        ("telemetry.sdk.version", "string"),
    ]
    optional = [attribute.name for attribute in RESOURCE if attribute.optional]
    assert optional == ["os.type", "host.arch"]


@each_attribute
def test_every_attribute_is_described(attribute: Attribute) -> None:
    """An attribute says what it means, since when, and what it takes, in one way only."""
    assert attribute.brief.endswith(".")
    assert re.fullmatch(r"\d+\.\d+\.\d+", attribute.since)
    if attribute.type == "int":
        assert (attribute.values, attribute.pattern) == ((), "")
        assert attribute.expected == COUNT
    elif attribute.values:
        assert attribute.pattern == attribute.tail == attribute.example == ""
        assert list(attribute.values) == sorted(set(attribute.values), key=attribute.values.index)
    else:
        assert attribute.admit(attribute.example) == attribute.example
        assert attribute.expected == f"a value such as {attribute.example}"


@pytest.mark.parametrize(
    ("given", "attributes"),
    [
        pytest.param(FIELDS, WHOLE, id="whole"),
        pytest.param(
            {"run_mode": "one-shot", "version": "18.0.0-dev.someone.1+x"},
            {
                "tbot.run_mode": "one-shot",
                "tbot.version": "18.0.0-dev",
                "tbot.join_type": "",
                "tbot.destinations_other": 0,
                "tbot.destinations_database": 0,
                "tbot.destinations_kubernetes": 0,
                "tbot.destinations_application": 0,
            },
            id="the least, and a version that is cut",
        ),
        pytest.param(
            FIELDS | {"run_mode": "_OTHER", "version": "_OTHER", "join_type": "_OTHER"},
            WHOLE
            | {"tbot.run_mode": "_OTHER", "tbot.version": "_OTHER", "tbot.join_type": "_OTHER"},
            id="_OTHER",
        ),
        pytest.param(
            FIELDS | {"helper_version": None},
            {name: value for name, value in WHOLE.items() if name != "tbot.helper_version"},
            id="a helper of no version",
        ),
    ],
)
def test_start_event(given: dict[str, Any], attributes: dict[str, object]) -> None:
    """An event has what it was given, under the names of the record and in its order."""
    event = StartEvent(**given)
    assert list(event.attributes.items()) == list(attributes.items())
    fields = {name.removeprefix("tbot."): value for name, value in attributes.items()}
    assert {name: getattr(event, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(
            ("tbot.run_mode", value, "one of one-shot, daemon")
            for value in (MARK, "", "Daemon", None, 1)
        ),
        *(
            ("tbot.version", value, "a value such as 18.3.0")
            for value in (MARK, "", "v18.3.0", "18.3", "18.3.0\n", "192.0.2.1", None, 18.3)
        ),
        *(
            ("tbot.helper", value, "a value such as gha:teleport-actions/auth")
            for value in (f"{MARK}.example.com", "", "x y", "_OTHER", 1, b"x")
        ),
        *(
            ("tbot.helper_version", value, "a value such as v1.2.0")
            for value in (MARK, "", "1.2.3.4", "_OTHER", 1.2)
        ),
        *(
            (f"tbot.destinations_{kind}", value, COUNT)
            for kind in ("other", "database", "kubernetes", "application")
            for value in (-1, 2**31, 1.0, True, "1", MARK, "_OTHER", None)
        ),
        ("tbot.join_type", MARK, START.attributes[2].expected),
        ("tbot.join_type", None, START.attributes[2].expected),
    ],
)
def test_start_event_refuses(name: str, value: object, expected: str) -> None:
    """A wrong value is an error that names the attribute and what it takes, never the value."""
    with pytest.raises(InvalidEventError) as caught:
        StartEvent(**FIELDS | {name.removeprefix("tbot."): value})
    assert str(caught.value) == f"{name}: expected {expected}"
    assert (caught.value.attribute, caught.value.expected) == (name, expected)
    assert isinstance(caught.value, ValueError)


def test_join_types_in_an_error() -> None:
    """What is expected of a join method lists them, and says that there may be none."""
    expected = START.attributes[2].expected
    assert expected.startswith("one of '' (none), azure, azure_devops, ")
    assert expected.endswith(", token, tpm")


def test_helper_version_without_helper() -> None:
    """A helper's version comes with the helper."""
    with pytest.raises(InvalidEventError) as caught:
        StartEvent(run_mode="daemon", version="18.3.0", helper_version="v1.2.0")
    assert str(caught.value) == "tbot.helper_version: expected a tbot.helper beside it"


@pytest.mark.parametrize("missing", ["run_mode", "version"])
def test_start_event_needs(missing: str) -> None:
    """Nobody else knows the run mode and the version."""
    with pytest.raises(TypeError, match=missing):
        StartEvent(**{name: value for name, value in FIELDS.items() if name != missing})


def test_start_event_takes_names_only() -> None:
    """Nine arguments by position could not be told apart."""
    with pytest.raises(TypeError, match="positional"):
        StartEvent("daemon", "18.3.0")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", [*FIELDS, "attributes", "anything"])
def test_start_event_is_frozen(name: str) -> None:
    """Nothing of an event is set or deleted, and nothing is added to it."""
    event = StartEvent(**FIELDS)
    with pytest.raises(AttributeError):
        setattr(event, name, "daemon")
    with pytest.raises(AttributeError):
        delattr(event, name)
    event.attributes.clear()
    assert event == StartEvent(**FIELDS)


def test_start_events_compare() -> None:
    """Events of the same values are equal, hash alike, and differ from all else."""
    event = StartEvent(**FIELDS)
    assert event == StartEvent(**FIELDS)
    assert hash(event) == hash(StartEvent(**FIELDS))
    for name, value in (
        ("run_mode", "one-shot"),
        ("helper_version", None),
        ("destinations_other", 0),
    ):
        assert event != StartEvent(**FIELDS | {name: value})
    assert event != event.attributes
    assert event != None  # noqa: E711 - asks its own comparison


def test_start_event_repr() -> None:
    """An event is printed as the code that makes it."""
    event = StartEvent(**FIELDS)
    assert eval(repr(event), {"StartEvent": StartEvent}) == event  # noqa: S307 - our own text
    assert repr(event).startswith("StartEvent(run_mode='daemon', version='18.3.0', join_type=")


def test_events_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    """``docs/events.md`` is what the command prints, byte for byte."""
    assert main(["events"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert (ROOT / "docs" / "events.md").read_bytes().decode() == printed.out


@each_attribute
def test_the_page_has(attribute: Attribute) -> None:
    """Every attribute has its line on the page, with what it takes."""
    (line,) = [
        line for line in markdown().splitlines() if line.startswith(f"| `{attribute.name}` |")
    ]
    assert attribute.brief in line
    assert ("Optional." in line) is attribute.optional
    for value in filter(None, attribute.values):
        assert f"`{value}`" in line
    # A bar would end the cell.
    assert len(re.findall(r"(?<!\\)\|", line)) == 6
    assert attribute.pattern in line.replace("\\|", "|")


@pytest.mark.parametrize(
    ("name", "since"),
    [
        *((event.name, event.since) for event in EVENTS.values()),
        *((attribute.name, attribute.since) for attribute in EVERY),
    ],
)
def test_changelog(name: str, since: str) -> None:
    """What can be collected is named in the changelog, under the version that added it."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = re.split(r"^## \[?(\d+\.\d+\.\d+)\]?.*$", text, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert f"`{name}`" in sections[since]


def test_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """``events --json`` prints a valid JSON Schema."""
    assert main(["events", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    Draft202012Validator.check_schema(json.loads(printed.out))
    assert json.loads(printed.out) == SCHEMA


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"_TBOT_TELEMETRY_HELPER": "gha:teleport-actions/auth"},
        {"_TBOT_TELEMETRY_HELPER": "x", "_TBOT_TELEMETRY_HELPER_VERSION": "v1.2.0"},
    ],
)
@pytest.mark.parametrize("words", [[], ["--tbot-version", "18.3.0-dev", "--join-method", "iam"]])
def test_schema_takes_what_is_sent(
    variables: dict[str, str],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What preview prints is valid."""
    monkeypatch.setenv("PATH", "")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["preview", *words]) == 0
    (logs,) = json.loads(capsys.readouterr().out)["resourceLogs"]
    (record,) = logs["scopeLogs"][0]["logRecords"]
    Draft202012Validator(SCHEMA).validate(
        {
            "event_name": record["eventName"],
            "attributes": plain(record["attributes"]),
            "resource": plain(logs["resource"]["attributes"]),
        }
    )


@pytest.mark.parametrize(
    "change",
    [
        {"body": ""},
        {"event_name": "tbot.stop"},
        {"attributes": WHOLE | {"host.name": MARK}},
        {"attributes": WHOLE | {"tbot.destinations_other": True}},
        {"attributes": WHOLE | {"tbot.destinations_other": 2**31}},
        {"attributes": {}},
        {"resource": SENDER | {"host.name": MARK}},
        {"resource": SENDER | {"session.id": MARK}},
        {"resource": {}},
    ],
)
def test_schema_refuses(change: dict[str, object]) -> None:
    """Nothing that is not in the registry is valid, at any level."""
    record = {"event_name": "tbot.start", "attributes": WHOLE, "resource": SENDER}
    assert Draft202012Validator(SCHEMA).is_valid(record)
    assert not Draft202012Validator(SCHEMA).is_valid(record | change)
    assert not Draft202012Validator(SCHEMA).is_valid(dict(list(record.items())[1:]))


@each_attribute
@given(data=st.data())
def test_schema_agrees(attribute: Attribute, data: st.DataObject) -> None:
    """A value is valid exactly if it leaves as it is."""
    (event,) = SCHEMA["oneOf"]
    part = "resource" if attribute in RESOURCE else "attributes"
    schema = dict(event["properties"][part]["properties"][attribute.name])
    values: list[st.SearchStrategy[object]] = [
        *(
            st.none(),
            st.booleans(),
            st.integers(),
            st.text(),
            st.sampled_from([*attribute.values, OTHER]),
        ),
        # To JSON, 1.0 is a whole number.
        st.floats().filter(lambda number: number % 1),
    ]
    if attribute.pattern:
        # JSON Schema's expressions are ECMAScript's, where nothing may follow what $ stands at.
        schema["pattern"] = schema["pattern"].replace("$", r"\Z")
        values += [
            st.from_regex(str(schema["pattern"])),
            st.from_regex(f"^(?:{attribute.pattern}){attribute.tail}"),
        ]
    value = data.draw(st.one_of(values))
    admitted = attribute.admit(value)
    leaves = admitted is not None and admitted == value
    assert Draft202012Validator(schema).is_valid(value) is leaves


def test_copies() -> None:
    """A start can be copied and sent to another process."""
    event = StartEvent(run_mode="daemon", version="18.3.0", helper="gha:x/y", destinations_other=2)
    for same in (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event))):
        assert same == event
