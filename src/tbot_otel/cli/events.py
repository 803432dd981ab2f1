"""Print every event and attribute that can ever be collected, as Markdown."""

import argparse

from tbot_otel.registry import EVENTS, MAX_COUNT, OTHER, RESOURCE, Attribute, Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


_INTRODUCTION = f"""\
# What can be collected

This page lists everything that `tbot-otel` can ever send. `tbot-otel events` prints it.

A value leaves only if it is on a list of known values, or if it has a form that is too narrow for
a name, an address or a telephone number. Any other text is replaced with `{OTHER}`.

Besides the attributes below, a record has:

- the name of its event, the severity `INFO` (9), and the scope `tbot_otel` with the version of this
  package;
- a time that is true to a minute: the time of the start, less a random part of a minute. A start
  that tbot itself reports has the time at which the report was received, treated the same way. An
  exact time could be matched with other logs, and the drift of a clock identifies its machine.

It has no body, and no trace or span id.

**What this cannot hide.** Nothing ties one start to the next. But anyone who sees the records can
recognize an unusual configuration again, such as a rare join method with unusual counts. And a
start that a program records has the time of its machine's clock, so a clock that is wrong by
minutes shows.
"""
_RESOURCE_INTRODUCTION = """\
Describes the sender of every event. These values are made by tbot-otel itself. None is taken from
the pipeline, from `OTEL_RESOURCE_ATTRIBUTES` or from a resource detector.
"""


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
    lines = [_INTRODUCTION]
    for event in EVENTS.values():
        lines += [f"## Event `{event.name}`", "", f"{event.brief} Since {event.since}.", ""]
        for attribute in event.attributes:
            lines += _section(attribute, is_given=True)
    lines += ["## Resource", "", _RESOURCE_INTRODUCTION]
    for attribute in RESOURCE:
        lines += _section(attribute, is_given=False)
    return "\n".join(lines).rstrip() + "\n"


def _section(attribute: Attribute, *, is_given: bool) -> "Iterable[str]":
    yield f"### `{attribute.name}`"
    yield ""
    optional = " A record can lack it." if attribute.optional else ""
    yield f"{attribute.brief}{optional} Type {attribute.type}, since {attribute.since}."
    yield ""
    if attribute.values:
        yield f"Only these values leave: {', '.join(map(_quote, attribute.values))}."
        yield ""
    if attribute.allowed:
        yield attribute.allowed
        yield ""
    yield from ("| value | does it leave? |", "| --- | --- |")
    for value in attribute.examples[:3]:
        yield f"| {_quote(value)} | yes |"
    for value in attribute.counterexamples:
        yield f"| {_quote(value)} | no{_replacement(attribute, value) if is_given else ''} |"
    yield ""
    if attribute.pattern:
        subject = "Names that can be allowed, as" if attribute.values else "As"
        yield f"{subject} an expression: `{attribute.pattern}`"
        yield ""


def _quote(value: str | int) -> str:
    return f"`{value}`" if value != "" else "empty"


def _replacement(attribute: Attribute, value: str | int) -> str:
    admitted = attribute.admit(value)
    if admitted is None:
        return ": it is left out" if attribute.optional else ": the whole record is refused"
    return f": `{admitted}` leaves in its place"


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
        return {**common, "type": "integer", "minimum": 0, "maximum": MAX_COUNT}
    known = [*attribute.values, OTHER]
    if not attribute.pattern:
        return {**common, "enum": known}
    pattern = {"pattern": f"^(?:{attribute.pattern})$"}
    if attribute.values or not attribute.optional:
        return {**common, "type": "string", "anyOf": [{"enum": known}, pattern]}
    return {**common, "type": "string", **pattern}
