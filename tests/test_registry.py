"""The registry, everything that must agree with it, and the page and the schema made from it."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from support.cases import CASES, EMPTY_ATTRIBUTES, FULL_ATTRIBUTES, FULL_FIELDS, OTHER, Refusal
from support.fuzzing import examples
from support.messages import FIELD_NUMBERS, NOW, RUN_MODES, encode_request, field
from support.otlp import attribute_values
from tbot_otel import StartEvent
from tbot_otel.cli import _source, main
from tbot_otel.cli._parser import Parser
from tbot_otel.cli.events import markdown, schema
from tbot_otel.connect import Request, parse_report
from tbot_otel.connect.tbot_pb import TbotStartEvent
from tbot_otel.registry import EVENTS, RESOURCE, START, Attribute

ROOT = Path(__file__).parents[1]
INVALID = "web01"

# The attributes by hand: name, type, and whether it is optional.
START_ATTRIBUTES = [
    ("tbot.run_mode", "string", False),
    ("tbot.version", "string", False),
    ("tbot.join_type", "string", False),
    ("tbot.helper", "string", True),
    ("tbot.helper_version", "string", True),
    ("tbot.destinations_other", "int", False),
    ("tbot.destinations_database", "int", False),
    ("tbot.destinations_kubernetes", "int", False),
    ("tbot.destinations_application", "int", False),
]
RESOURCE_ATTRIBUTES = [
    ("service.name", "string", False),
    ("session.id", "string", False),
    ("os.type", "string", True),
    ("host.arch", "string", True),
    ("telemetry.sdk.language", "string", False),
    ("telemetry.sdk.name", "string", False),
    ("telemetry.sdk.version", "string", False),
]

ALL_ATTRIBUTES = [*(item for event in EVENTS.values() for item in event.attributes), *RESOURCE]
each_attribute = pytest.mark.parametrize(
    "attribute", ALL_ATTRIBUTES, ids=lambda attribute: attribute.name
)

SCHEMA: dict[str, Any] = schema()
# Hypothesis is slow with lookaheads. Without them, it generates more values that are refused.
LOOKAHEAD = re.compile(r"\(\?[=!](?:[^()]|\([^()]*\))*\)")
RESOURCE_VALUES = {
    "service.name": "tbot",
    "session.id": "0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20",
    "telemetry.sdk.language": "python",
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.version": "1.45.2",
}


def test_attributes_are_everywhere() -> None:
    """Each attribute of `tbot.start` is in every place that needs it.

    If this fails, it lists the places. The other tests follow from the registry.
    """
    missing = [
        f"{attribute.name} is in src/tbot_otel/registry.py, but {problem}"
        for attribute in START.attributes
        for problem in missing_places(attribute)
    ]
    if (ROOT / "docs" / "events.md").read_bytes().decode() != markdown():
        missing.append("docs/events.md is out of date: run `tbot-otel events > docs/events.md`")
    if missing:
        pytest.fail("\n".join(missing), pytrace=False)


def test_missing_places() -> None:
    """Each place that lacks an attribute is named."""
    assert [*missing_places(Attribute("tbot.missing", "An example.", since="0.0.1"))] == [
        "StartEvent in src/tbot_otel/events.py has no parameter `missing`",
        (
            "TbotStartEvent in src/tbot_otel/connect/tbot.proto has no field `missing`: add it, "
            "then run `nox --session generate`"
        ),
        (
            "emit and preview cannot set it: src/tbot_otel/cli/_source.py has neither an option "
            "with dest='tbot.missing' nor a variable for it"
        ),
        "examples/relay/only-starts.yaml does not keep it",
        "CHANGELOG.md has no section for its version, 0.0.1",
        "START_ATTRIBUTES in tests/test_registry.py does not list it",
        "CASES in tests/support/cases.py has no case for a value that may not leave",
    ]


def missing_places(attribute: Attribute) -> Iterator[str]:
    """Yield a sentence for each place that lacks an attribute."""
    yield from missing_in_start_event(attribute)
    yield from missing_in_report(attribute)
    yield from missing_in_commands(attribute)
    yield from missing_in_example(attribute)
    yield from missing_in_changelog(attribute.name, attribute.since)
    yield from missing_in_tests(attribute)


def missing_in_start_event(attribute: Attribute) -> Iterator[str]:
    """Yield what StartEvent lacks."""
    place = "StartEvent in src/tbot_otel/events.py"
    name = attribute.name.removeprefix("tbot.")
    if name not in inspect.signature(StartEvent).parameters:
        yield f"{place} has no parameter `{name}`"
        return
    if f"\n    {name}: " not in str(inspect.getdoc(StartEvent)):
        yield f"the docstring of {place} does not describe `{name}`"
    if name not in StartEvent.__slots__:
        yield f"the __slots__ of {place} have no `{name}`"
    if name not in StartEvent.__annotations__:
        yield f"{place} does not declare the type of `{name}`"
    event = StartEvent(**FULL_FIELDS)
    if event.attributes.get(attribute.name) != FULL_ATTRIBUTES[attribute.name]:
        yield f"{place} does not set `{name}`: add it to `values`"


def missing_in_report(attribute: Attribute) -> Iterator[str]:
    """Yield what tbot's own report lacks."""
    numbers = {f"tbot.{item.name}": item.number for item in TbotStartEvent.desc().fields}
    name = attribute.name.removeprefix("tbot.")
    if attribute.name not in numbers:
        yield (
            f"TbotStartEvent in src/tbot_otel/connect/tbot.proto has no field `{name}`: add it, "
            "then run `nox --session generate`"
        )
        return
    if FIELD_NUMBERS.get(attribute.name) != numbers[attribute.name]:
        yield f"FIELD_NUMBERS in tests/support/messages.py does not have the number of `{name}`"
    start = b"".join(
        field(numbers[name], RUN_MODES.get(str(value), value))
        for name, value in FULL_ATTRIBUTES.items()
        if name in numbers
    )
    report = parse_report(Request.from_binary(encode_request(start)), NOW)
    if report.attributes.get(attribute.name) != FULL_ATTRIBUTES[attribute.name]:
        yield f"parse_report in src/tbot_otel/connect/__init__.py does not read `start.{name}`"


def missing_in_commands(attribute: Attribute) -> Iterator[str]:
    """Yield what emit and preview lack."""
    parser = Parser()
    _source.configure(parser)
    options = {action.dest for action in parser._actions}
    if attribute.name not in {*options, *_source.helper_attributes()}:
        yield (
            "emit and preview cannot set it: src/tbot_otel/cli/_source.py has neither an option "
            f"with dest={attribute.name!r} nor a variable for it"
        )


def missing_in_example(attribute: Attribute) -> Iterator[str]:
    """Yield what the Collector's example lacks."""
    path = "examples/relay/only-starts.yaml"
    if f'"{attribute.name}"' not in (ROOT / path).read_text(encoding="utf-8"):
        yield f"{path} does not keep it"


def missing_in_changelog(name: str, since: str) -> Iterator[str]:
    """Yield what the changelog lacks."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = re.split(r"^## \[?(\d+\.\d+\.\d+)\]?.*$", text, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    if since not in sections:
        yield f"CHANGELOG.md has no section for its version, {since}"
    elif f"`{name}`" not in sections[since]:
        yield f"CHANGELOG.md does not name it under its version, {since}"


def missing_in_tests(attribute: Attribute) -> Iterator[str]:
    """Yield what the lists of the tests lack."""
    if attribute.name not in [name for name, *_ in START_ATTRIBUTES]:
        yield "START_ATTRIBUTES in tests/test_registry.py does not list it"
    place = "CASES in tests/support/cases.py"
    name = attribute.name
    kept = {case.expected.get(name) for case in CASES if isinstance(case.expected, dict)}
    values = [value for value in attribute.values if value not in kept]
    if values:
        yield f"{place} has no case for {', '.join(map(repr, values))}"
    if not any(
        case.expected.attribute == name
        if isinstance(case.expected, Refusal)
        else name in [left_out for left_out, _ in case.left_out]
        for case in CASES
        if case.attributes and name in case.attributes
    ):
        yield f"{place} has no case for a value that may not leave"


def test_events() -> None:
    """There is one event, with the order and types of tbot's own telemetry."""
    assert list(EVENTS) == ["tbot.start"]
    listed = [
        (attribute.name, attribute.type, attribute.optional) for attribute in START.attributes
    ]
    # test_attributes_are_everywhere reports an attribute that is not in the list.
    names = [name for name, *_ in START_ATTRIBUTES]
    assert [item for item in listed if item[0] in names] == START_ATTRIBUTES


def test_resource() -> None:
    """The Resource has these attributes."""
    assert [
        (attribute.name, attribute.type, attribute.optional) for attribute in RESOURCE
    ] == RESOURCE_ATTRIBUTES


@each_attribute
def test_description(attribute: Attribute) -> None:
    """An attribute has a meaning, a version, and one way to say which values are allowed."""
    assert attribute.brief.endswith(".")
    assert re.fullmatch(r"\d+\.\d+\.\d+", attribute.since)
    if attribute.type == "int":
        assert (attribute.values, attribute.pattern) == ((), "")
        assert attribute.expected == "a whole number that is not negative"
    elif attribute.values:
        assert attribute.head == attribute.tail == ""
        assert len({*attribute.values}) == len(attribute.values)
    else:
        assert attribute.expected == f"a value such as {attribute.examples[0]}"


@each_attribute
def test_examples(attribute: Attribute) -> None:
    """The page has three values that leave unchanged, if there are so many, and three that do not.

    It says in words which values leave.
    """
    assert len(attribute.examples) >= (len(attribute.values) or 3)
    assert len({*attribute.counterexamples}) == 3
    assert [attribute.admit(value) for value in attribute.examples] == [*attribute.examples]
    for value in attribute.counterexamples:
        assert attribute.admit(value) != value
    assert bool(attribute.allowed) is bool(attribute.pattern or attribute.type == "int")


def test_derived_records() -> None:
    """The records that the tests derive from the registry are allowed and complete."""
    assert list(FULL_ATTRIBUTES) == [attribute.name for attribute in START.attributes]
    for attribute in START.attributes:
        value = FULL_ATTRIBUTES[attribute.name]
        assert attribute.admit(value) == value
        assert value not in (0, "", OTHER)
        assert (attribute.name in EMPTY_ATTRIBUTES) is not attribute.optional
    counts = [value for value in FULL_ATTRIBUTES.values() if isinstance(value, int)]
    assert len({*counts}) == len(counts)


def test_events_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`tbot-otel events` prints the page, byte for byte."""
    assert main(["events"]) == 0
    assert capsys.readouterr() == (markdown(), "")


@each_attribute
def test_page(attribute: Attribute) -> None:
    """The page has a section for each attribute: words and examples first, an expression last."""
    (section,) = [
        part for part in markdown().split("\n### ") if part.startswith(f"`{attribute.name}`\n")
    ]
    assert attribute.brief in section
    assert ("A record can lack it." in section) is attribute.optional
    for value in filter(None, attribute.values):
        assert f"`{value}`" in section
    assert section.count("| yes |") == min(3, len(attribute.examples))
    assert section.count("| no") == 3
    assert f"`{attribute.pattern}`" in section.rpartition("| no")[2] or not attribute.pattern


@pytest.mark.parametrize(
    ("name", "since"),
    [
        *((event.name, event.since) for event in EVENTS.values()),
        *((attribute.name, attribute.since) for attribute in RESOURCE),
    ],
)
def test_changelog(name: str, since: str) -> None:
    """The changelog names each event, and each attribute of the Resource, under its version."""
    assert list(missing_in_changelog(name, since)) == []


def test_schema_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`tbot-otel events --json` prints a valid JSON Schema."""
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
def test_preview_matches_schema(
    variables: dict[str, str],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A previewed record is valid."""
    monkeypatch.setenv("PATH", "")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["preview", *words]) == 0
    (logs,) = json.loads(capsys.readouterr().out)["resourceLogs"]
    (record,) = logs["scopeLogs"][0]["logRecords"]
    Draft202012Validator(SCHEMA).validate(
        {
            "event_name": record["eventName"],
            "attributes": attribute_values(record["attributes"]),
            "resource": attribute_values(logs["resource"]["attributes"]),
        }
    )


@pytest.mark.parametrize(
    "change",
    [
        {"body": ""},
        {"event_name": "tbot.stop"},
        {"attributes": FULL_ATTRIBUTES | {"host.name": INVALID}},
        {"attributes": FULL_ATTRIBUTES | {"tbot.destinations_other": True}},
        {"attributes": FULL_ATTRIBUTES | {"tbot.destinations_other": 1000}},
        {"attributes": {}},
        {"resource": RESOURCE_VALUES | {"host.name": INVALID}},
        {"resource": RESOURCE_VALUES | {"session.id": INVALID}},
        {"resource": {}},
    ],
)
def test_schema_refuses(change: dict[str, object]) -> None:
    """A record that the registry does not allow is invalid."""
    record = {
        "event_name": "tbot.start",
        "attributes": FULL_ATTRIBUTES,
        "resource": RESOURCE_VALUES,
    }
    assert Draft202012Validator(SCHEMA).is_valid(record)
    assert not Draft202012Validator(SCHEMA).is_valid(record | change)
    assert not Draft202012Validator(SCHEMA).is_valid(dict(list(record.items())[1:]))


@each_attribute
@examples(100)
@given(data=st.data())
def test_schema_agrees(attribute: Attribute, data: st.DataObject) -> None:
    """The schema allows a value exactly if policy does not change it."""
    (event,) = SCHEMA["oneOf"]
    part = "resource" if attribute in RESOURCE else "attributes"
    value_schema = dict(event["properties"][part]["properties"][attribute.name])
    values: list[st.SearchStrategy[object]] = [
        *(
            st.none(),
            st.booleans(),
            st.integers(),
            st.text(),
            st.sampled_from([*attribute.values, OTHER]),
        ),
        # In JSON Schema, 1.0 is an integer.
        st.floats().filter(lambda number: number % 1),
    ]
    if attribute.pattern:
        # JSON Schema's expressions are ECMAScript's, where $ does not match before a line break.
        value_schema = json.loads(json.dumps(value_schema).replace(")$", r")\\Z"))
        values += [
            st.from_regex(LOOKAHEAD.sub("", rf"^(?:{attribute.pattern})\Z")),
            st.from_regex(
                LOOKAHEAD.sub("", f"^{attribute.head}(?:{attribute.pattern}){attribute.tail}")
            ),
        ]
    value = data.draw(st.one_of(values))
    # A helper's name that can be allowed is valid.
    allowed = [value] if isinstance(value, str) else []
    admitted = attribute.admit(value, allowed)
    unchanged = admitted is not None and admitted == value
    assert Draft202012Validator(value_schema).is_valid(value) is unchanged
