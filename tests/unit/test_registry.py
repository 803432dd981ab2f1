"""The registry, everything that must agree with it, and the page and the schema made from it."""

import copy
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from support.cases import CASES, EMPTY_ATTRIBUTES, FULL_ATTRIBUTES, FULL_FIELDS, OTHER, Refusal
from support.fuzzing import examples
from support.messages import FIELD_NUMBERS, NOW, RUN_MODES, encode_request, field
from support.otlp import attribute_values
from support.paths import ROOT
from tbot_otel import StartEvent, __version__
from tbot_otel.cli import _start_options, _weaver, main
from tbot_otel.cli._parser import Parser
from tbot_otel.cli.events import markdown, schema
from tbot_otel.connect import Request, parse_report
from tbot_otel.connect.tbot_pb import TbotStartEvent
from tbot_otel.registry import EVENTS, RESOURCE, SCHEMA_URL, START, VERSIONS, Attribute

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
        missing.append(
            "docs/events.md is out of date: run `tbot-otel events --markdown > docs/events.md`"
        )
    if missing:
        pytest.fail("\n".join(missing), pytrace=False)


def test_missing_places() -> None:
    """Each place that lacks an attribute is named."""
    assert [
        *missing_places(Attribute("tbot.missing", "An example.", question="Why?", since="0.0.1"))
    ] == [
        "StartEvent in src/tbot_otel/events.py has no parameter `missing`",
        (
            "TbotStartEvent in src/tbot_otel/connect/tbot.proto has no field `missing`: add it, "
            "then run `nox --session generate`"
        ),
        (
            "emit and preview cannot set it: src/tbot_otel/cli/_start_options.py has neither an "
            "option with dest='tbot.missing' nor a variable for it"
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
    if report.permitted.attributes.get(attribute.name) != FULL_ATTRIBUTES[attribute.name]:
        yield f"parse_report in src/tbot_otel/connect/__init__.py does not read `start.{name}`"


def missing_in_commands(attribute: Attribute) -> Iterator[str]:
    """Yield what emit and preview lack."""
    parser = Parser()
    _start_options.configure(parser)
    options = {action.dest for action in parser._actions}
    if attribute.name not in {*options, *_start_options.helper_attributes()}:
        yield (
            "emit and preview cannot set it: src/tbot_otel/cli/_start_options.py has neither an "
            f"option with dest={attribute.name!r} nor a variable for it"
        )


def missing_in_example(attribute: Attribute) -> Iterator[str]:
    """Yield what the Collector's example lacks."""
    path = "examples/relay/only-starts.yaml"
    if f'"{attribute.name}"' not in (ROOT / path).read_text(encoding="utf-8"):
        yield f"{path} does not keep it"


def missing_in_changelog(name: str, since: str) -> Iterator[str]:
    """Yield what the changelog lacks."""
    sections = changelog_sections()
    if since not in sections:
        yield f"CHANGELOG.md has no section for its version, {since}"
    elif f"`{name}`" not in sections[since]:
        yield f"CHANGELOG.md does not name it under its version, {since}"


def changelog_sections() -> dict[str, str]:
    """The changelog's text for each release."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = re.split(r"^## \[?(\d+\.\d+\.\d+)\]?.*$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


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
        else name in [changes for changes, _ in case.changes]
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


# The snapshot of each version: a hash of its files. One that was released never changes.
SNAPSHOTS = {
    "0.1.0": "740f55fc47f100dbeae67e860da869eab92f409f5154bb2da42f999b33c84e71",
}
NEW_VERSION = (
    "The registry has changed. Add a version with the reason to VERSIONS in "
    "src/tbot_otel/registry.py, name the changes in CHANGELOG.md, write the snapshot with "
    "`tbot-otel events --weaver registry/VERSION`, and add it to SNAPSHOTS in "
    "tests/test_registry.py. Only a version that was not released can be written again."
)
WEAVER_SCHEMA = json.loads(
    # Weaver 0.25.1, schemas/semconv.schema.v2.json
    (ROOT / "tests" / "support" / "semconv.schema.v2.json").read_text(encoding="utf-8")
)


def snapshot(version: str) -> dict[str, Any]:
    """The committed registry of a version."""
    text = (ROOT / "registry" / version / "registry.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def folder_content(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_snapshot_is_current() -> None:
    """The newest snapshot is what the registry generates."""
    folder = ROOT / "registry" / _weaver.VERSION
    committed = {name: content.decode() for name, content in folder_content(folder).items()}
    if committed != _weaver.files():
        pytest.fail(NEW_VERSION, pytrace=False)


def test_snapshots_are_fixed() -> None:
    """Each version has a snapshot, which is not written again."""
    hashes = {}
    for folder in (ROOT / "registry").iterdir():
        content = folder_content(folder)
        hashes[folder.name] = hashlib.sha256(b"".join(content.values())).hexdigest()
    if hashes != SNAPSHOTS:
        pytest.fail(f"{NEW_VERSION}\nSNAPSHOTS = {hashes}", pytrace=False)
    assert list(VERSIONS) == list(SNAPSHOTS)


def test_versions() -> None:
    """A version is that of a release, with a reason; it is newer than the one before it."""
    numbers = [_weaver._numbers(version) for version in VERSIONS]
    assert numbers == sorted({*numbers})
    assert numbers[-1] <= _weaver._numbers(__version__)
    for reason in VERSIONS.values():
        assert len(reason.split()) >= 3
        assert reason.endswith(".")


def test_changelog_names_changes() -> None:
    """The changelog names each event and attribute that a version changed."""
    empty: dict[str, Any] = {"attributes": [], "events": [], "entities": []}
    previous = empty
    for version in VERSIONS:
        current = snapshot(version)
        lines = _weaver.changes(previous, current)
        assert lines, f"{version} changes nothing"
        names = {str(name) for line in lines for name in re.findall("`(.*?)`", line)[:1]}
        assert [*names - {*re.findall("`(.*?)`", changelog_sections()[version])}] == []
        previous = current


@each_attribute
def test_snapshot_has_every_field(attribute: Attribute) -> None:
    """No field of an attribute can change without a change of the snapshot."""
    convert = _weaver._reference if attribute in RESOURCE else _weaver._definition
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
    assert _weaver._requirement_level(changed) != _weaver._requirement_level(attribute)


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
    content = _weaver.registry()
    assert Draft202012Validator(WEAVER_SCHEMA).is_valid(content)
    change(content)
    assert not Draft202012Validator(WEAVER_SCHEMA).is_valid(content)


def test_dependency_of_the_registry() -> None:
    """The snapshot takes the names of the Resource from the conventions of the record's URL."""
    manifest = yaml.safe_load(_weaver.files()["manifest.yaml"])
    ((dependency,),) = [manifest["dependencies"]]
    assert dependency["schema_url"] == SCHEMA_URL
    assert f"/v{SCHEMA_URL.rpartition('/')[2]}.zip" in dependency["registry_path"]


def test_package_has_the_snapshots() -> None:
    """The installed package has every snapshot, for --diff."""
    assert folder_content(_weaver._SNAPSHOTS) == folder_content(ROOT / "registry")


def test_weaver_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`tbot-otel events --weaver FOLDER` writes the snapshot, also over an older one."""
    folder = tmp_path / "new" / "folder"
    for _ in range(2):
        assert main(["events", "--weaver", str(folder)]) == 0
        assert capsys.readouterr() == ("", "")
        assert folder_content(folder) == folder_content(ROOT / "registry" / _weaver.VERSION)


def test_weaver_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that cannot be written is a usage error."""
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(SystemExit, match="2"):
        main(["events", "--weaver", str(file)])
    assert capsys.readouterr() == ("", f"tbot-otel events: {file}: File exists\n")


def attribute_of(content: dict[str, Any], name: str) -> dict[str, Any]:
    """An attribute that a registry defines, or refers to in its entity."""
    entity = content["entities"][0]
    named = {item["key"]: item for item in content["attributes"]}
    named |= {item["ref"]: item for item in (*entity["identity"], *entity["description"])}
    found: dict[str, Any] = named[name]
    return found


def annotations(content: dict[str, Any], name: str) -> dict[str, Any]:
    """What an attribute has beyond Weaver's own format."""
    found: dict[str, Any] = attribute_of(content, name)["annotations"]["tbot_otel"]
    return found


def remove_event_attribute(content: dict[str, Any]) -> None:
    """Remove the last attribute of the event."""
    del content["events"][0]["attributes"][-1]
    del content["attributes"][-1]


@pytest.mark.parametrize(
    ("change", "name", "brief"),
    [
        (
            remove_event_attribute,
            "the attribute `tbot.destinations_application` of `tbot.start`",
            "How many application destinations are configured.",
        ),
        (
            lambda content: content["events"].clear(),
            "the event `tbot.start`",
            "tbot was started.",
        ),
        (
            lambda content: content["entities"][0]["description"].pop(),
            "the attribute `host.arch` of the Resource",
            "The processor architecture; only for an event of this machine.",
        ),
    ],
)
def test_added_and_removed(
    change: Callable[[dict[str, Any]], object], name: str, brief: str
) -> None:
    """What an older registry lacks was added; what only that one has was removed."""
    current, old = _weaver.registry(), _weaver.registry()
    change(old)
    assert f"adds {name}: {brief}" in _weaver.changes(old, current)
    assert f"removes {name}" in _weaver.changes(current, old)


@pytest.mark.parametrize(
    ("name", "change", "added", "removed"),
    [
        (
            "tbot.run_mode",
            lambda content: attribute_of(content, "tbot.run_mode")["type"]["members"].pop(1),
            "these values can leave too: `daemon`",
            "these values no longer leave: `daemon`",
        ),
        (
            "os.type",
            lambda content: annotations(content, "os.type")["values"].__delitem__(slice(2)),
            "these values can leave too: `aix`, `darwin`",
            "these values no longer leave: `aix`, `darwin`",
        ),
        *(
            (
                "tbot.destinations_other",
                lambda content, name=name: annotations(content, "tbot.destinations_other").update(
                    {name: 99, "allowed": "A number to 99."}
                ),
                ("other values leave: A whole number from 0 to 999, which stands for 999 or more."),
                "other values leave: A number to 99.",
            )
            for name in ("pattern", "dropped_before", "cut_off_after", "maximum")
        ),
        (
            "tbot.version",
            lambda content: attribute_of(content, "tbot.version").update(type="int"),
            "it has the type string, not int",
            "it has the type int, not string",
        ),
        (
            "tbot.helper",
            lambda content: content["events"][0]["attributes"][3].update(
                requirement_level="required"
            ),
            "a record can lack it",
            "every record has it",
        ),
        (
            "session.id",
            lambda content: annotations(content, "session.id").update(question="Another?"),
            "it answers another question: Do two records come from one start?",
            "it answers another question: Another?",
        ),
        (
            "service.name",
            lambda content: attribute_of(content, "service.name").update(brief="Another."),
            "its description is now: The service, which is always tbot.",
            "its description is now: Another.",
        ),
        (
            "tbot.version",
            lambda content: attribute_of(content, "tbot.version").update(examples=["17.0.0"]),
            "its explanation or its examples",
            "its explanation or its examples",
        ),
    ],
)
def test_changes(
    name: str, change: Callable[[dict[str, Any]], object], added: str, removed: str
) -> None:
    """Each difference of an attribute is said in words, in both directions."""
    current, old = _weaver.registry(), _weaver.registry()
    assert _weaver.changes(old, current) == []
    change(old)
    place = "`tbot.start`" if name.startswith("tbot.") else "the Resource"
    start = f"changes the attribute `{name}` of {place}: "
    assert _weaver.changes(old, current) == [start + added]
    assert _weaver.changes(current, old) == [start + removed]


def install_old_snapshot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make 0.0.9 the release before, without the last attribute."""
    old = _weaver.registry()
    remove_event_attribute(old)
    (folder / "0.0.9").mkdir()
    (folder / "0.0.9" / "registry.yaml").write_text(yaml.safe_dump(old))
    reasons = {"0.0.9": "The release before it.", "0.1.0": "A reason that is long. " * 5}
    monkeypatch.setattr(_weaver, "_SNAPSHOTS", folder)
    monkeypatch.setattr(_weaver, "VERSIONS", reasons)
    monkeypatch.setattr("tbot_otel.cli._weaver.__version__", "0.1.5")


@pytest.mark.parametrize("version", ["0.0.9", "0.0.10"])
def test_diff_command(
    version: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`tbot-otel events --diff` prints the reasons and the changes since a release."""
    install_old_snapshot(tmp_path, monkeypatch)
    assert main(["events", "--diff", version]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert max(map(len, printed.out.splitlines())) <= 80
    assert printed.out.startswith(f"Changes from tbot-otel {version} to {__version__}:\n- 0.1.0: A")
    assert " ".join(printed.out.split()).endswith(
        " - adds the attribute `tbot.destinations_application` of `tbot.start`: How many "
        "application destinations are configured."
    )


@pytest.mark.parametrize("version", ["0.1.0", "0.1.4", "0.1.5"])
def test_diff_without_changes(
    version: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A release that did not change the registry collects the same as the one before it."""
    install_old_snapshot(tmp_path, monkeypatch)
    (tmp_path / "0.1.0").mkdir()
    (tmp_path / "0.1.0" / "registry.yaml").write_text(yaml.safe_dump(_weaver.registry()))
    assert main(["events", "--diff", version]) == 0
    line = f"tbot-otel {__version__} can collect the same as {version}.\n"
    assert capsys.readouterr() == (line, "")


def test_diff_with_the_snapshots(capsys: pytest.CaptureFixture[str]) -> None:
    """Each snapshot of the package can be compared; the newest has no difference."""
    for version in VERSIONS:
        assert main(["events", "--diff", version]) == 0
        same = capsys.readouterr().out.endswith(f"can collect the same as {version}.\n")
        assert same is (version == _weaver.VERSION)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        *((version, "a release from 0.1.0 to") for version in ("0.0.9", "0.0.99999", "99.0.0")),
        *(
            (version, "a release such as 0.1.0")
            for version in ("", "1", "v0.1.0", "0.1", "0.1.0rc1")
        ),
    ],
)
def test_diff_with_an_unknown_release(
    version: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A release that does not exist is a usage error."""
    with pytest.raises(SystemExit, match="2"):
        main(["events", "--diff", version])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert f"--diff: expected {expected}" in printed.err


def test_diff_without_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the snapshots, as in a checkout that is not installed, it is one line."""
    monkeypatch.setattr(_weaver, "_SNAPSHOTS", tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["events", "--diff", "0.1.0"])
    path = tmp_path / "0.1.0" / "registry.yaml"
    assert capsys.readouterr() == ("", f"tbot-otel events: {path}: No such file or directory\n")
