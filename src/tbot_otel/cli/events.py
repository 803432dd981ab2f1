"""Print every event and attribute that can ever be collected.

This needs no consent (TELEPORT_ANONYMOUS_TELEMETRY) and no extra.

Examples:
  tbot-otel events
  tbot-otel events --json

The same as a page, with the expressions:
https://github.com/tbot-otel/tbot-otel/blob/main/docs/events.md
"""

import argparse
import textwrap

from tbot_otel.cli._output import write
from tbot_otel.registry import EVENTS, MAX_COUNT, OTHER, RESOURCE, Attribute, Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


_INTRODUCTION = f"""\
# What can be collected

This page lists everything that `tbot-otel` can ever send. `tbot-otel events`
prints it.

A value leaves only if it is on a list of known values, or if it has a form that
is too narrow for a name, an address or a telephone number. Any other text is
replaced with `{OTHER}`.

Besides the attributes below, a record has:

- the name of its event, the severity `INFO` (9), and the scope `tbot_otel` with
  the version of this package;
- a time that is true to a minute: the time of the start, less a random part of
  a minute. A start that tbot itself reports has the time at which the report
  was received, treated the same way. An exact time could be matched with other
  logs, and the drift of a clock identifies its machine.

It has no body, and no trace or span id.

**What this cannot hide.** Nothing ties one start to the next. But anyone who
sees the records can recognize an unusual configuration again, such as a rare
join method with unusual counts. And a start that a program records has the time
of its machine's clock, so a clock that is wrong by minutes shows.

**Versions.** The changelog says what each release adds, and why. The folder
`registry/` of the repository has each version of this list in the format of
OpenTelemetry Weaver.
"""
_RESOURCE_INTRODUCTION = """\
Describes the sender of every event. These values are made by tbot-otel itself.
None is taken from the pipeline, from `OTEL_RESOURCE_ATTRIBUTES` or from a
resource detector.
"""
_WIDTH = 80


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--markdown", action="store_true", help="print Markdown")
    formats.add_argument("--json", action="store_true", help="print a JSON Schema of the records")


def run(options: argparse.Namespace) -> int:
    """Print the registry."""
    if options.json:
        import json

        write(json.dumps(schema(), indent=2))
    else:
        write(markdown() if options.markdown else plain(), end="")
    return 0


def plain() -> str:
    """Return the registry as text for a terminal, without the expressions."""
    title, _, introduction = _INTRODUCTION.removeprefix("# ").partition("\n\n")
    lines = [title, "=" * len(title), "", introduction.replace("**", "")]
    for event in EVENTS.values():
        lines += [*_title(f"Event {event.name}"), f"{event.brief} Since {event.since}.", ""]
        for attribute in event.attributes:
            lines += _entry(attribute)
    lines += [*_title("Resource"), _RESOURCE_INTRODUCTION]
    for attribute in RESOURCE:
        lines += _entry(attribute)
    return "\n".join(lines).rstrip() + "\n"


def _title(text: str) -> list[str]:
    return [text, "-" * len(text), ""]


def _entry(attribute: Attribute) -> "Iterable[str]":
    yield attribute.name
    optional = " A record can lack it." if attribute.optional else ""
    kind = f"Type {attribute.type}, since {attribute.since}."
    yield from _wrap(f"{attribute.brief}{optional} {kind}", "  ", "  ")
    examples = "" if attribute.values else ", ".join(map(str, attribute.examples))
    for label, text in (
        ("Question", attribute.question),
        ("Leaves", ", ".join(value or "empty" for value in attribute.values)),
        ("Also" if attribute.values else "Form", attribute.allowed),
        ("Leaves", examples),
        ("Does not", ", ".join(map(str, attribute.counterexamples))),
    ):
        if text:
            yield from _wrap(text, f"  {label:<10}", " " * 12)
    yield ""


def _wrap(text: str, first: str, others: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_on_hyphens=False,
        break_long_words=False,
    )


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
    yield f"The question that it answers: {attribute.question}"
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
