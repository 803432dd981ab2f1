"""Reads the start for emit and preview: from a tbot.yaml, options, tbot itself, the environment."""

import argparse
import contextlib
import os
import re

from tbot_otel.cli._output import write_message
from tbot_otel.errors import InvalidEventError
from tbot_otel.events import StartEvent
from tbot_otel.policy import Reason, Refused, decide, is_allowable_helper
from tbot_otel.registry import OTHER, START

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tbot_otel.cli._parser import Parser

HELPER_VARIABLE = "_TBOT_TELEMETRY_HELPER"
HELPER_VERSION_VARIABLE = "_TBOT_TELEMETRY_HELPER_VERSION"

_TBOT_VERSION_TIMEOUT_SECONDS = 5.0
_ATTRIBUTES = {attribute.name: attribute for attribute in START.attributes}


def configure(parser: "Parser") -> None:
    """Add the options. Options win over the file."""
    parser.add_argument("--config", metavar="FILE", help="the tbot.yaml to read (version 1 or 2)")
    modes = parser.add_mutually_exclusive_group()
    for option, mode, brief in (
        ("--oneshot", "one-shot", "tbot runs once"),
        ("--daemon", "daemon", "tbot runs until it is stopped (the default)"),
    ):
        modes.add_argument(
            option, dest="tbot.run_mode", action="store_const", const=mode, help=brief
        )
    for option, name, brief in (
        ("--join-method", "tbot.join_type", "the join method"),
        (
            "--tbot-version",
            "tbot.version",
            "the version of tbot; by default, `tbot version` is run",
        ),
    ):
        parser.add_argument(option, dest=name, type=_checked(name), metavar="TEXT", help=brief)
    for kind in ("other", "database", "kubernetes", "application"):
        name = f"tbot.destinations_{kind}"
        parser.add_argument(
            f"--destinations-{kind}",
            dest=name,
            type=_checked(name),
            metavar="N",
            help=f"the number of configured {kind} destinations",
        )
    parser.add_allow_helper()


def _checked(name: str) -> "Callable[[str], str | int]":
    attribute = _ATTRIBUTES[name]

    def check(text: str) -> str | int:
        number = attribute.type == "int" and re.fullmatch("[0-9]{1,10}", text)
        value = int(text) if number else text
        if attribute.admit(value) in (None, OTHER):
            raise argparse.ArgumentTypeError(f"expected {attribute.expected}")
        return value

    return check


def helper_attributes() -> dict[str, str | None]:
    """Return the helper's name and version from the environment, before policy."""
    return {
        "tbot.helper": os.environ.get(HELPER_VARIABLE),
        "tbot.helper_version": os.environ.get(HELPER_VERSION_VARIABLE),
    }


def read(options: argparse.Namespace) -> tuple[StartEvent, list[str]]:
    """Read a start.

    Returns:
        The start, and a line for each value that policy changed or left out.

    Raises:
        BotConfigError: The file cannot be read or counted.
    """
    attributes: dict[str, object] = {"tbot.run_mode": "daemon"}
    if options.config is not None:
        from tbot_otel.cli import _bot_config

        attributes.update(_bot_config.read(options.config))
    given = {name: getattr(options, name, None) for name in _ATTRIBUTES}
    attributes.update({name: value for name, value in given.items() if value is not None})
    problem = ""
    if "tbot.version" not in attributes:
        attributes["tbot.version"], problem = _find_tbot_version()
    attributes.update(helper_attributes())
    decision = decide(START.name, attributes, options.allowed_helpers)
    if isinstance(decision, Refused):
        raise InvalidEventError(str(decision.attribute), decision.reason.value)
    lines = [
        f"tbot.version: {problem}; --tbot-version gives it"
        if name == "tbot.version" and problem
        else f"{name or 'an attribute'}: {describe_reason(name, reason)}"
        for name, reason in decision.changes
    ]
    return StartEvent.from_attributes(decision.attributes), lines


def _find_tbot_version() -> tuple[str, str]:
    """Return the version that `tbot version` prints; if it prints none, an empty one and why."""
    import shutil
    import subprocess

    tbot = shutil.which("tbot")
    if tbot is None:
        return "", "tbot was not found on PATH"
    output = ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        output = subprocess.run(
            [tbot, "version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TBOT_VERSION_TIMEOUT_SECONDS,
            check=False,
        ).stdout
    match = re.search(r"^Teleport (?:[A-Za-z]+ )?v(\S+)", output, re.MULTILINE)
    return (match[1], "") if match else ("", "`tbot version` printed no version")


def describe_reason(name: str | None, reason: Reason) -> str:
    """Return why a value was changed or left out, and for a helper's name how to allow it."""
    can_be_allowed = name == "tbot.helper" and is_allowable_helper(os.environ.get(HELPER_VARIABLE))
    return f"{reason.value}; --allow-helper lets it leave" if can_be_allowed else reason.value


def print_lines(lines: "Sequence[str]") -> None:
    """Print lines about a start to standard error."""
    for line in lines:
        write_message(f"tbot-otel: {line}")
