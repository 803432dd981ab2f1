"""Print every event and attribute that can ever be collected, as Markdown."""

import argparse

from tbot_otel.registry import EVENTS, INT32_MAX, OTHER, RESOURCE, Attribute, Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--json", action="store_true", help="print a JSON Schema of the records")


def run(options: argparse.Namespace) -> int:
    """Print the registry."""
    if options.json:
        import json

        print(json.dumps(schema(), indent=2))
    else:
        print(markdown(), end="")
    return 0


def markdown() -> str:
    """Return the registry as Markdown, the text of ``docs/events.md``."""
    lines = [
        "# What can be collected",
        "",
        "This page lists everything that `tbot-otel` can ever send. `tbot-otel events` prints it.",
        "A value is one of those listed, or matches the whole pattern. Any other value is replaced",
        f"with `{OTHER}`; if the attribute is optional and has a pattern, it is left out.",
        "",
        "Besides its attributes, a record has the name of its event, the time of the event, the",
        "time when the record was created (both in nanoseconds), the severity `INFO` (9), and the",
        "scope `tbot_otel` with the version of this package. It has no body and no trace or span",
        "id.",
    ]
    for event in EVENTS.values():
        lines += ["", f"## Event `{event.name}`", "", f"{event.brief} Since {event.since}.", ""]
        lines += _table(event.attributes)
    lines += ["", "## Resource", "", "Describes the sender of every event.", ""]
    lines += _table(RESOURCE)
    return "\n".join(lines) + "\n"


def _table(attributes: "Iterable[Attribute]") -> list[str]:
    lines = ["| attribute | type | meaning | values | since |", "| --- | --- | --- | --- | --- |"]
    for item in attributes:
        brief = item.brief + (" Optional." if item.optional else "")
        values = _values(item).replace("|", "\\|")
        lines.append(f"| `{item.name}` | {item.type} | {brief} | {values} | {item.since} |")
    return lines


def _values(attribute: Attribute) -> str:
    if attribute.type == "int":
        return f"0 to {INT32_MAX}"
    if attribute.values:
        return ", ".join(f"`{value}`" if value else "empty" for value in attribute.values)
    return f"`{attribute.pattern}`, such as `{attribute.example}`"


def schema() -> dict[str, object]:
    """Return a JSON Schema (2020-12) of the records, with one alternative per event."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The attributes that tbot-otel can send",
        "oneOf": [_event_schema(event) for event in EVENTS.values()],
    }


def _event_schema(event: Event) -> dict[str, object]:
    return {
        "title": event.name,
        "description": event.brief,
        "type": "object",
        "properties": {
            "event_name": {"const": event.name},
            "attributes": _object_schema(event.attributes),
            "resource": _object_schema(RESOURCE),
        },
        "required": ["event_name", "attributes", "resource"],
        "additionalProperties": False,
    }


def _object_schema(attributes: "Iterable[Attribute]") -> dict[str, object]:
    attributes = tuple(attributes)
    return {
        "type": "object",
        "properties": {item.name: _attribute_schema(item) for item in attributes},
        "required": [item.name for item in attributes if not item.optional],
        "additionalProperties": False,
    }


def _attribute_schema(attribute: Attribute) -> dict[str, object]:
    common: dict[str, object] = {
        "description": attribute.brief,
        "x-since": attribute.since,
    }
    if attribute.type == "int":
        return {**common, "type": "integer", "minimum": 0, "maximum": INT32_MAX}
    if attribute.values:
        return {**common, "enum": [*attribute.values, OTHER]}
    other = "" if attribute.optional else f"|{OTHER}"
    return {**common, "type": "string", "pattern": f"^(?:{attribute.pattern}{other})$"}
