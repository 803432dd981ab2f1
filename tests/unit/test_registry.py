"""The registry, everything that must agree with it, and the page and the schema made from it."""

import copy
import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import generate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from support.cases import EMPTY_ATTRIBUTES, FULL_ATTRIBUTES, OTHER
from support.fuzzing import examples
from support.otlp import attribute_values
from support.paths import ROOT
from tbot_otel import StartEvent
from tbot_otel.cli import main
from tbot_otel.cli.events import markdown, schema
from tbot_otel.connect.tbot_pb import TbotStartEvent
from tbot_otel.registry import EVENTS, RESOURCE, SCHEMA_URL, START, VERSIONS, Attribute

INVALID = "web01"

# tbot's own attributes: name, type, and whether it is optional.
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


@pytest.mark.parametrize("path", generate.files())
def test_generated_files(path: str) -> None:
    """Each file that follows from the registry is up to date."""
    committed = (ROOT / path).read_text(encoding="utf-8")
    assert committed == generate.files()[path], "run nox --session generate"


@pytest.mark.parametrize("attribute", START.attributes, ids=lambda attribute: attribute.name)
def test_attribute_is_everywhere(attribute: Attribute) -> None:
    """The places that are written by hand have each attribute of `tbot.start`."""
    name = attribute.name.removeprefix("tbot.")
    field = StartEvent.__init__.__annotations__[name], StartEvent.__annotations__[name]
    assert [("int" in kind, "None" in kind) for kind in map(str, field)] == [
        (attribute.type == "int", attribute.optional)
    ] * 2
    assert f"\n    {name}: " in str(inspect.getdoc(StartEvent))
    assert name in {item.name for item in TbotStartEvent.desc().fields}
    assert f"`{attribute.name}`" in changelog_sections()[attribute.since]


def changelog_sections() -> dict[str, str]:
    """The changelog's text for each release."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = re.split(r"^## \[?(\d+\.\d+\.\d+)\]?.*$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_events() -> None:
    """There is one event, with the order and types of tbot's own telemetry."""
    assert list(EVENTS) == ["tbot.start"]
    listed = [
        (attribute.name, attribute.type, attribute.optional) for attribute in START.attributes
    ]
    assert [item for item in listed if item in START_ATTRIBUTES] == START_ATTRIBUTES


def test_resource() -> None:
    """The Resource has these attributes."""
    assert [
        (attribute.name, attribute.type, attribute.optional) for attribute in RESOURCE
    ] == RESOURCE_ATTRIBUTES


@each_attribute
def test_description(attribute: Attribute) -> None:
    """An attribute has a meaning, a question, a version, and one way to name its values."""
    assert attribute.brief.endswith(".")
    assert attribute.question.endswith("?")
    assert re.fullmatch(r"\d+\.\d+\.\d+", attribute.since)
    if attribute.type == "int":
        assert (attribute.values, attribute.pattern) == ((), "")
        assert attribute.expected == "a whole number that is not negative"
    elif attribute.values:
        assert attribute.dropped_before == attribute.cut_off_after == ""
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


def test_markdown_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`tbot-otel events --markdown` prints the page, byte for byte."""
    assert main(["events", "--markdown"]) == 0
    assert capsys.readouterr() == (markdown(), "")


def test_events_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`tbot-otel events` fits a terminal, and leaves out nothing but the expressions."""
    assert main(["events"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert max(map(len, printed.out.splitlines())) <= 80
    text = " ".join(printed.out.split())
    page = markdown().partition("\n## ")[0].replace("**", "").removeprefix("# ")
    for paragraph in filter(None, page.split("\n\n")):
        assert " ".join(paragraph.split()) in text
    for event in EVENTS.values():
        assert f"Event {event.name} " in text
        assert event.brief in text
    for attribute in ALL_ATTRIBUTES:
        (entry,) = re.findall(
            rf"^{re.escape(attribute.name)}\n((?:  .*\n)+)", printed.out, re.MULTILINE
        )
        entry = " ".join(entry.split())
        for part in (attribute.brief, attribute.question, attribute.allowed):
            assert part in entry
        for value in (*attribute.examples, *attribute.counterexamples):
            assert str(value) in entry
        assert ("A record can lack it." in entry) is attribute.optional
        assert f"Type {attribute.type}, since {attribute.since}." in entry


@each_attribute
def test_page(attribute: Attribute) -> None:
    """The page has a section for each attribute: words and examples first, an expression last."""
    (section,) = [
        part for part in markdown().split("\n### ") if part.startswith(f"`{attribute.name}`\n")
    ]
    assert attribute.brief in section
    assert attribute.question in section
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
    assert f"`{name}`" in changelog_sections()[since]


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
    assert main(["preview", "--json", *words]) == 0
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
@examples(40)
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
                LOOKAHEAD.sub(
                    "",
                    f"^{attribute.dropped_before}(?:{attribute.pattern}){attribute.cut_off_after}",
                )
            ),
        ]
    value = data.draw(st.one_of(values))
    # A helper's name that can be allowed is valid.
    allowed = [value] if isinstance(value, str) else []
    admitted = attribute.admit(value, allowed)
    unchanged = admitted is not None and admitted == value
    assert Draft202012Validator(value_schema).is_valid(value) is unchanged


WEAVER_SCHEMA = json.loads(
    # Weaver 0.25.1, schemas/semconv.schema.v2.json
    (ROOT / "tests" / "support" / "semconv.schema.v2.json").read_text(encoding="utf-8")
)


def snapshot(version: str) -> dict[str, Any]:
    """The committed registry of a version."""
    text = (ROOT / "registry" / version / "registry.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def test_versions() -> None:
    """A version is that of a release, with a reason; it is newer than the one before it."""
    numbers = [tuple(map(int, version.split("."))) for version in VERSIONS]
    assert numbers == sorted({*numbers})
    for reason in VERSIONS.values():
        assert len(reason.split()) >= 3
        assert reason.endswith(".")


@each_attribute
def test_snapshot_has_every_field(attribute: Attribute) -> None:
    """No field of an attribute can change without a change of the snapshot."""
    convert = generate._reference if attribute in RESOURCE else generate._definition
    changes: dict[str, object] = {
        "name": "another.name",
        "brief": "Another brief.",
        "question": "Another question?",
        "since": "9.9.9",
        "type": "string" if attribute.type == "int" else "int",
        "values": (*attribute.values, "another"),
        "pattern": f"{attribute.pattern}.",
        "dropped_before": f"{attribute.dropped_before}.",
        "cut_off_after": f"{attribute.cut_off_after}.",
        "allowed": f"{attribute.allowed} Another.",
    }
    if not attribute.values:
        changes["examples"] = (*attribute.examples, "another")
    if attribute in RESOURCE:
        # The conventions define the type. All are strings.
        assert attribute.type == "string"
        del changes["type"]
    if attribute.values:
        # Only strings have a list of values.
        changes.pop("type", None)
    for name, value in changes.items():
        changed = copy.copy(attribute)
        setattr(changed, name, value)
        assert convert(changed) != convert(attribute), name
    changed = copy.copy(attribute)
    changed.optional = not attribute.optional
    assert generate._requirement_level(changed) != generate._requirement_level(attribute)


@pytest.mark.parametrize("version", VERSIONS)
def test_weaver_format(version: str) -> None:
    """A snapshot has Weaver's format, defines what it refers to, and names its version."""
    content = snapshot(version)
    assert content["file_format"] == "definition/2"
    assert [*Draft202012Validator(WEAVER_SCHEMA).iter_errors(content)] == []
    defined = [attribute["key"] for attribute in content["attributes"]]
    referred = [item["ref"] for event in content["events"] for item in event["attributes"]]
    assert len({*defined}) == len(defined)
    assert {*defined} == {*referred}
    entities = {entity["type"] for entity in content["entities"]}
    assert all({*event["entity_associations"]} <= entities for event in content["events"])
    for attribute in content["attributes"]:
        if isinstance(attribute["type"], dict):
            ids = [member["id"] for member in attribute["type"]["members"]]
            assert len({*ids}) == len(ids)
    manifest = yaml.safe_load((ROOT / "registry" / version / "manifest.yaml").read_text())
    assert manifest["schema_url"].endswith(f"/registry/{version}")
    assert VERSIONS[version] in manifest["description"]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["attributes"][0].pop("brief"),
        lambda content: content["events"][0].update(unknown=1),
        lambda content: content["attributes"][1].update(type="text"),
    ],
)
def test_weaver_schema_can_fail(change: Callable[[dict[str, Any]], object]) -> None:
    """The schema refuses a file that is not in Weaver's format."""
    content = generate.registry()
    assert Draft202012Validator(WEAVER_SCHEMA).is_valid(content)
    change(content)
    assert not Draft202012Validator(WEAVER_SCHEMA).is_valid(content)


def test_dependency_of_the_registry() -> None:
    """The snapshot takes the names of the Resource from the conventions of the record's URL."""
    manifest = yaml.safe_load(generate.files()[f"{generate.SNAPSHOT}/manifest.yaml"])
    ((dependency,),) = [manifest["dependencies"]]
    assert dependency["schema_url"] == SCHEMA_URL
    assert f"/v{SCHEMA_URL.rpartition('/')[2]}.zip" in dependency["registry_path"]
