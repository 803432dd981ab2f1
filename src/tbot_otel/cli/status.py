"""Print whether a start would be sent, why, where to, and likely mistakes.

A start would be sent only if TELEPORT_ANONYMOUS_TELEMETRY opts in. This command
also says what `run` and `relay` would do. It needs no extra. With --check, the
Collector is sent an export without records, if a start would be sent.

Examples:
  tbot-otel status
  TELEPORT_ANONYMOUS_TELEMETRY=1 tbot-otel status --check

Exit status: 0 = it would be sent; 1 = the check failed; 2 = a usage error, or
the output cannot be written; 3 = it would not be sent.

What each line means:
https://github.com/tbot-otel/tbot-otel/blob/main/docs/status.md
"""

import argparse

from tbot_otel.cli import _checks, _start_options, emit, relay
from tbot_otel.cli._output import write
from tbot_otel.consent import OPT_IN, Consent, OptInSampler
from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp import environment
from tbot_otel.policy import Permitted, decide
from tbot_otel.registry import START
from tbot_otel.run import launcher
from tbot_otel.session import Outcome, Status
from tbot_otel.streams import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

EXIT_CHECK_FAILED = 1
EXIT_WOULD_NOT_SEND = 3

_TOLD = {
    launcher.ADDRESS: "the forwarder's address",
    launcher.OPT_OUT: f"{OPT_IN}=0",
    launcher.NOTHING: "nothing",
}
_RESULTS = {
    Status.DELIVERED: ("accepted", 0),
    Status.UNOBSERVED: ("unobserved", 0),
    Status.FAILED: ("failed", EXIT_CHECK_FAILED),
    Status.REFUSED: ("not_made", EXIT_WOULD_NOT_SEND),
}
"""The results of the check, with their exit statuses."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--check", action="store_true", help="send the Collector an export without records"
    )


def run(options: argparse.Namespace) -> int:
    """Print the status."""
    consent = OptInSampler().should_sample()
    error = _checks.find_error()
    error_line = ": ".join(error) if error else None
    would_send, variable, reason = _decide(consent, error)
    helper, problems = _check_helper()
    if error_line and not consent:
        problems.append(error_line)
    problems += _checks.find_likely_mistakes()
    told, run_reason = launcher.decide(consent)
    forwards = told == launcher.ADDRESS and would_send
    relay_problem = error_line or relay.find_problem()
    status: dict[str, Any] = {
        "would_send": would_send,
        "reason": reason,
        "variable": variable,
        "endpoint": environment.printable_endpoint(),
        "protocol": environment.protocol(),
        "helper": helper,
        "run": {
            "forwards": forwards,
            "reason": reason if told == launcher.ADDRESS else run_reason,
            "command_is_told": told,
        },
        "relay": {"can_start": relay_problem is None, "reason": relay_problem},
        "problems": problems,
        "check": None,
    }
    exit_status = 0 if would_send else EXIT_WOULD_NOT_SEND
    if options.check:
        outcome = _check() if would_send else Outcome(Status.REFUSED, reason)
        result, exit_status = _RESULTS[outcome.status]
        accepted = outcome.status is Status.DELIVERED
        status["check"] = {"result": result, "reason": None if accepted else outcome.reason}
    if options.json:
        import json

        write(json.dumps(status, indent=2))
    else:
        write(*map(printable, _describe(status)))
    return exit_status


def _decide(consent: Consent, error: tuple[str, str] | None) -> tuple[bool, str, str]:
    """Return whether a start would be sent, the variable that decides, and the reason."""
    if not consent:
        return False, consent.variable, consent.reason
    if error:
        return False, error[0], ": ".join(error)
    # Only with consent: the check imports the packages around the exporter.
    try:
        environment.check_protocol(environment.protocol())
    except ExporterConfigurationError as missing:
        return False, environment.variable_name("PROTOCOL"), str(missing)
    return True, consent.variable, consent.reason


def _describe(status: "dict[str, Any]") -> "Iterator[str]":
    def because(part: "dict[str, Any]") -> str:
        # The first line may have said it.
        return "" if part["reason"] in (None, status["reason"]) else f", {part['reason']}"

    run, relay_status, check = status["run"], status["relay"], status["check"]
    told = _TOLD[run["command_is_told"]]
    yield f"would send: {'yes' if status['would_send'] else 'no'}, {status['reason']}"
    yield f"to:         {status['endpoint']}"
    yield f"protocol:   {status['protocol']}"
    yield f"helper:     {' '.join(status['helper'].values()) or 'none'}"
    forwards = "forwards" if run["forwards"] else "does not forward"
    yield f"run:        {forwards}{because(run)}; tells tbot {told}"
    can_start = "can start" if relay_status["can_start"] else "cannot start"
    yield f"relay:      {can_start}{because(relay_status)}"
    for problem in status["problems"]:
        yield f"problem:    {problem}"
    if check:
        yield f"check:      {check['result'].replace('_', ' ')}{because(check)}"


def _check() -> Outcome:
    """Export no records, and return the outcome."""
    import logging
    import threading

    from tbot_otel.otlp.arguments import Arguments
    from tbot_otel.otlp.responses import ResponseObserver
    from tbot_otel.otlp.send import build_exporter, export_and_observe

    # The outcome has the reason, and other loggers repeat variables.
    logging.basicConfig(handlers=[logging.NullHandler()])
    observer = ResponseObserver(OptInSampler().should_sample)
    try:
        exporter = build_exporter(Arguments(), observer)
    except ExporterConfigurationError as error:
        return Outcome(Status.FAILED, str(error))
    wait = emit.wait_seconds()
    outcomes = [Outcome(Status.FAILED, f"no response within {wait:g} s")]

    def export() -> None:
        outcomes.append(export_and_observe(exporter, observer, []))
        exporter.shutdown()  # type: ignore[no-untyped-call]

    # An exporter can take longer than its timeout.
    thread = threading.Thread(target=export, daemon=True)
    thread.start()
    thread.join(wait)
    return outcomes[-1]


def _check_helper() -> tuple[dict[str, str], list[str]]:
    """Return the parts of the helper's name and version that would leave, and problems."""
    decision = decide(START.name, _start_options.helper_attributes())
    if not isinstance(decision, Permitted):
        return {}, []
    variables = {
        "tbot.helper": _start_options.HELPER_VARIABLE,
        "tbot.helper_version": _start_options.HELPER_VERSION_VARIABLE,
    }
    helper = {
        name.removeprefix("tbot."): str(value)
        for name, value in decision.attributes.items()
        if name in variables
    }
    problems = [
        f"{variables[name]}: {_start_options.describe_reason(name, reason)}"
        for name, reason in decision.changes
        if name in variables
    ]
    return helper, problems
