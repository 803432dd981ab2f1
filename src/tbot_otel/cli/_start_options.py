"""Reads the start for emit and preview: from a tbot.yaml, options, tbot itself, the environment."""

import argparse
import contextlib
import os
import re

from tbot_otel.cli._output import write_message
from tbot_otel.errors import InvalidEventError
from tbot_otel.policy import Permitted, Reason, Refused, decide, is_allowable_helper
from tbot_otel.registry import ATTRIBUTES, OTHER, START

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

    from tbot_otel.cli._parser import Parser

HELPER_VARIABLE = "_TBOT_TELEMETRY_HELPER"
HELPER_VERSION_VARIABLE = "_TBOT_TELEMETRY_HELPER_VERSION"

CONFIG_PATH_VARIABLE = "TBOT_CONFIG_PATH"
CONFIG_VARIABLE = "TBOT_CONFIG"

_TBOT_VERSION_TIMEOUT_SECONDS = 5.0
_MAX_TBOT_VERSION_BYTES = 65_536
_TBOT_VERSION = re.compile(rb"^Teleport (?:[A-Za-z]+ )?v(\S+)\s", re.MULTILINE)


def configure(parser: "Parser") -> None:
    """Add the options. Options win over the file."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the tbot.yaml to read, of version 1 or 2; - is standard input. By default, "
        f"{CONFIG_PATH_VARIABLE} names it, or {CONFIG_VARIABLE} has its content",
    )
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
    counts = parser.add_argument_group(
        "numbers of configured destinations",
        "As in tbot, kubernetes/v2, kubernetes/argo-cd, tunnels, application-proxy and\n"
        "every identity count as other.",
    )
    for kind in ("other", "database", "kubernetes", "application"):
        name = f"tbot.destinations_{kind}"
        counts.add_argument(
            f"--destinations-{kind}",
            dest=name,
            type=_checked(name),
            metavar="N",
            help=f"the number of configured {kind} destinations",
        )
    parser.add_allow_helper()


def _checked(name: str) -> "Callable[[str], str | int]":
    attribute = ATTRIBUTES[name]

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


def read(options: argparse.Namespace) -> tuple[Permitted, list[str]]:
    """Read a start.

    Returns:
        What policy permits of the start, and a line for each value that policy changed or left out.

    Raises:
        BotConfigError: The file cannot be read or counted.
    """
    given = {name: getattr(options, name, None) for name in ATTRIBUTES}
    given = {name: value for name, value in given.items() if value is not None}
    lines = []
    configuration = _read_configuration(options.config)
    if configuration is None and given.keys() <= {"tbot.version"}:
        lines.append("no configuration was read; --config names a tbot.yaml")
    attributes = {"tbot.run_mode": "daemon"} | (configuration or {}) | given | helper_attributes()
    problem = ""
    if "tbot.version" not in attributes:
        attributes["tbot.version"], problem = _find_tbot_version()
    decision = decide(START.name, attributes, options.allowed_helpers)
    if isinstance(decision, Refused):
        raise InvalidEventError(str(decision.attribute), decision.reason.value)
    lines += [
        f"tbot.version: {problem}; --tbot-version gives it"
        if name == "tbot.version" and problem
        else f"{name or 'an attribute'}: {describe_reason(name, reason)}"
        for name, reason in decision.changes
    ]
    return decision, lines


def _read_configuration(path: str | None) -> dict[str, object] | None:
    """Read the tbot.yaml that the option or a variable of tbot's names; None if none does."""
    path = path or os.environ.get(CONFIG_PATH_VARIABLE)
    text = os.environ.get(CONFIG_VARIABLE)
    if not path and not text:
        return None
    from tbot_otel.cli import _bot_config

    return _bot_config.read(path) if path else _bot_config.read_text(text or "", CONFIG_VARIABLE)


def _find_tbot_version() -> tuple[str, str]:
    """Return the version that `tbot version` prints; if it prints none, an empty one and why."""
    import shutil

    tbot = shutil.which("tbot")
    if tbot is None:
        return "", "tbot was not found on PATH"
    version = None
    with contextlib.suppress(OSError):
        version = _run_tbot_version(tbot)
    return (version, "") if version else ("", "`tbot version` printed no version")


def _run_tbot_version(tbot: str) -> str | None:
    """Run `tbot version` until it has printed a version, has exited, or takes too long."""
    import select
    import subprocess
    import time

    with subprocess.Popen(
        [tbot, "version"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    ) as process:
        pipe: IO[bytes] = process.stdout  # type: ignore[assignment] # it is a pipe
        output, match = b"", None
        deadline = time.monotonic() + _TBOT_VERSION_TIMEOUT_SECONDS
        try:
            while (
                not match and len(output) < _MAX_TBOT_VERSION_BYTES and time.monotonic() < deadline
            ):
                # A process that it left behind can keep the pipe open.
                exited = process.poll() is not None
                ready = select.select([pipe], [], [], 0 if exited else 0.05)[0]
                chunk = pipe.read(_MAX_TBOT_VERSION_BYTES) if ready else b""
                is_complete = not chunk and (exited or ready)
                output += b"\n" if is_complete else chunk
                match = _TBOT_VERSION.search(output)
                if is_complete:
                    break
        finally:
            process.kill()
    return match[1].decode("utf-8", "replace") if match else None


def describe_reason(name: str | None, reason: Reason) -> str:
    """Return why a value was changed or left out, and for a helper's name how to allow it."""
    can_be_allowed = name == "tbot.helper" and is_allowable_helper(os.environ.get(HELPER_VARIABLE))
    return f"{reason.value}; --allow-helper lets it leave" if can_be_allowed else reason.value


def print_lines(lines: "Sequence[str]") -> None:
    """Print lines about a start to standard error."""
    for line in lines:
        write_message(f"tbot-otel: {line}")
