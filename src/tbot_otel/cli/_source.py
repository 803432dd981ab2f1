"""Reads the start for emit and preview: from a tbot.yaml, options, tbot itself, the environment."""

import argparse
import os
import re
import sys

from tbot_otel.errors import InvalidEventError
from tbot_otel.events import StartEvent
from tbot_otel.policy import Reason, Refused, decide
from tbot_otel.registry import OTHER, START

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HELPER_VARIABLE = "_TBOT_TELEMETRY_HELPER"
HELPER_VERSION_VARIABLE = "_TBOT_TELEMETRY_HELPER_VERSION"

_TBOT_VERSION_TIMEOUT_SECONDS = 5.0
_ATTRIBUTES = {attribute.name: attribute for attribute in START.attributes}


def configure(parser: argparse.ArgumentParser) -> None:
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


def _checked(name: str) -> "Callable[[str], str | int]":
    attribute = _ATTRIBUTES[name]

    def check(text: str) -> str | int:
        number = attribute.type == "int" and re.fullmatch("[0-9]{1,10}", text)
        admitted = attribute.admit(int(text) if number else text)
        if admitted is None or admitted == OTHER:
            raise argparse.ArgumentTypeError(f"expected {attribute.expected}")
        return admitted

    return check


def helper_attributes() -> dict[str, str | None]:
    """Return the helper's name and version from the environment, before policy."""
    return {
        "tbot.helper": os.environ.get(HELPER_VARIABLE),
        "tbot.helper_version": os.environ.get(HELPER_VERSION_VARIABLE),
    }


def read(
    options: argparse.Namespace,
) -> tuple[StartEvent, list[tuple[str | None, Reason]]]:
    """Read a start.

    Returns:
        The start, and what policy changed or left out: attribute and reason.

    Raises:
        BotConfigError: The file cannot be read or counted.
        InvalidEventError: A count is too large.
    """
    attributes: dict[str, object] = {"tbot.run_mode": "daemon"}
    if options.config is not None:
        from tbot_otel import bot_config

        attributes.update(bot_config.read(options.config))
    given = {name: getattr(options, name, None) for name in _ATTRIBUTES}
    attributes.update({name: value for name, value in given.items() if value is not None})
    if "tbot.version" not in attributes:
        attributes["tbot.version"] = _tbot_version()
    decision = decide(START.name, {**attributes, **helper_attributes()})
    if isinstance(decision, Refused):
        raise InvalidEventError(str(decision.attribute), decision.reason.value)
    return StartEvent.from_attributes(decision.attributes), decision.left_out


def _tbot_version() -> str:
    """Return the version that `tbot version` prints; empty if it prints none."""
    import shutil
    import subprocess

    tbot = shutil.which("tbot")
    if tbot is None:
        return ""
    try:
        result = subprocess.run(
            [tbot, "version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TBOT_VERSION_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.search(r"^Teleport (?:[A-Za-z]+ )?v(\S+)", result.stdout, re.MULTILINE)
    return match[1] if match else ""


def print_left_out(left_out: "Sequence[tuple[str | None, Reason]]") -> None:
    """Print what policy changed or left out to standard error, without the value."""
    for name, reason in left_out:
        print(f"tbot-otel: {name or 'an attribute'}: {reason.value}", file=sys.stderr)
