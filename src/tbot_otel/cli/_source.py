"""Where emit and preview take a start from: the file, flags, tbot itself, the environment."""

import argparse
import os
import re
import sys

from tbot_otel.errors import InvalidEventError
from tbot_otel.events import OTHER, START, StartEvent
from tbot_otel.policy import Reason, Refused, decide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HELPER = "_TBOT_TELEMETRY_HELPER"
HELPER_VERSION = "_TBOT_TELEMETRY_HELPER_VERSION"

_ASK_TIMEOUT = 5.0
_ATTRIBUTES = {attribute.name: attribute for attribute in START.attributes}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options. What is given wins over the file."""
    parser.add_argument("--config", metavar="FILE", help="the tbot.yaml to count (version 1 or 2)")
    modes = parser.add_mutually_exclusive_group()
    for option, mode in (("--oneshot", "one-shot"), ("--daemon", "daemon")):
        modes.add_argument(
            option, dest="tbot.run_mode", action="store_const", const=mode, help=f"tbot runs {mode}"
        )
    for option, name, brief in (
        ("--join-method", "tbot.join_type", "the join method"),
        (
            "--tbot-version",
            "tbot.version",
            "the version of tbot; asked of tbot itself unless given",
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
            help=f"how many {kind} destinations are configured",
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


def helper() -> dict[str, str | None]:
    """The helper's name and version as the environment has them, for policy to look at."""
    return {
        "tbot.helper": os.environ.get(HELPER),
        "tbot.helper_version": os.environ.get(HELPER_VERSION),
    }


def read(
    options: argparse.Namespace,
) -> tuple[StartEvent, list[tuple[str | None, Reason]]]:
    """Read a start.

    Returns:
        The start, and what policy left out of it: attribute and reason.

    Raises:
        BotConfigError: The file cannot be counted.
        InvalidEventError: The counts are beyond what a record can carry.
    """
    attributes: dict[str, object] = {"tbot.run_mode": "daemon"}
    if options.config is not None:
        from tbot_otel import bot_config

        attributes.update(bot_config.read(options.config))
    given = {name: getattr(options, name, None) for name in _ATTRIBUTES}
    attributes.update({name: value for name, value in given.items() if value is not None})
    if "tbot.version" not in attributes:
        attributes["tbot.version"] = _ask_version()
    verdict = decide(START.name, {**attributes, **helper()})
    if isinstance(verdict, Refused):
        raise InvalidEventError(str(verdict.attribute), verdict.reason.value)
    return StartEvent.of(verdict.attributes), verdict.left_out


def _ask_version() -> str:
    """The version that tbot gives of itself; empty where it gives none."""
    import shutil
    import subprocess

    tbot = shutil.which("tbot")
    if tbot is None:
        return ""
    try:
        answer = subprocess.run(
            [tbot, "version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_ASK_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.search(r"^Teleport (?:[A-Za-z]+ )?v(\S+)", answer.stdout, re.MULTILINE)
    return match[1] if match else ""


def report(left_out: "Sequence[tuple[str | None, Reason]]") -> None:
    """Say on standard error what policy left out, without its value."""
    for name, reason in left_out:
        print(f"tbot-otel: {name or 'an attribute'}: {reason.value}", file=sys.stderr)
