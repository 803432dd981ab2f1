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
https://github.com/tbot-otel/tbot-otel/blob/main/docs/reference.md#status
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

    from tbot_otel.otlp.settings import Settings

EXIT_CHECK_FAILED = 1
EXIT_WOULD_NOT_SEND = 3

_RUN = {
    (launcher.ADDRESS, True): "forwards tbot's report",
    (launcher.ADDRESS, False): "receives tbot's report, but cannot forward it",
    (launcher.OPT_OUT, False): f"tells tbot not to report ({OPT_IN}=0)",
    (launcher.NOTHING, False): "changes nothing for tbot",
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
    settings: Settings | None = None
    problem: str | None = None
    try:
        settings = _checks.read_checked_settings()
    except ExporterConfigurationError as error:
        problem = str(error)
    would_send, variable, reason = _decide(consent, problem)
    helper, problems = _check_helper()
    if problem and not consent:
        problems.append(problem)
    problems += _checks.find_likely_mistakes(settings)
    told, run_reason = launcher.choose_instruction(consent)
    forwards = told == launcher.ADDRESS and would_send
    relay_problem = problem or relay.find_problem()
    proxy = settings and settings.proxy
    status: dict[str, Any] = {
        "would_send": would_send,
        "reason": reason,
        "variable": variable,
        "endpoint": environment.printable_endpoint(),
        "proxy": proxy and f"{proxy.scheme}://{proxy.address}",
        "protocol": environment.protocol(),
        "defaults": [
            name
            for name in ("endpoint", "protocol")
            if not environment.standard_variable(name.upper())
        ],
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
        status["check"], exit_status = _check(settings if would_send else None, reason)
    if options.json:
        import json

        write(json.dumps(status, indent=2))
    else:
        write(*map(printable, _describe(status)))
    return exit_status


def _decide(consent: Consent, problem: str | None) -> tuple[bool, str, str]:
    """Return whether a start would be sent, the variable that decides, and the reason."""
    if not consent:
        return False, consent.variable, consent.reason
    if problem:
        return False, problem.partition(":")[0], problem
    # Only with consent: the check imports the packages around the exporter.
    try:
        environment.check_installed(environment.protocol())
    except ExporterConfigurationError as missing:
        return False, environment.variable_name("PROTOCOL"), str(missing)
    return True, consent.variable, consent.reason


def _describe(status: "dict[str, Any]") -> "Iterator[str]":
    def because(part: "dict[str, Any]") -> str:
        # The first line may have said it.
        return "" if part["reason"] in (None, status["reason"]) else f", {part['reason']}"

    def default(name: str) -> str:
        return " (default)" if name in status["defaults"] else ""

    run, relay_status, check = status["run"], status["relay"], status["check"]
    proxy = f" through the proxy {status['proxy']}" if status["proxy"] else ""
    yield f"would send: {'yes' if status['would_send'] else 'no'}, {status['reason']}"
    yield f"to:         {status['endpoint']}{default('endpoint')}{proxy}"
    yield f"protocol:   {status['protocol']}{default('protocol')}"
    yield f"helper:     {' '.join(status['helper'].values()) or 'none'}"
    yield f"run:        {_RUN[run['command_is_told'], run['forwards']]}{because(run)}"
    can_start = "can start" if relay_status["can_start"] else "cannot start"
    yield f"relay:      {can_start}{because(relay_status)}"
    for problem in status["problems"]:
        yield f"problem:    {problem}"
    if check:
        hint = f"; {check['hint']}" if check["hint"] else ""
        yield f"check:      {check['result'].replace('_', ' ')}{because(check)}{hint}"


def _check(settings: "Settings | None", reason: str) -> "tuple[dict[str, Any], int]":
    """Check the Collector, and return what `status` says about it, and its exit status.

    Args:
        settings: Where a start would be sent; None if none would be.
        reason: Why none would be.
    """
    outcome = Outcome(Status.REFUSED, reason) if settings is None else _export_nothing(settings)
    result, exit_status = _RESULTS[outcome.status]
    check = {
        "result": result,
        "reason": None if outcome.status is Status.DELIVERED else outcome.reason,
        "hint": settings and _checks.find_likely_cause(outcome.reason, settings),
    }
    return check, exit_status


def _export_nothing(settings: "Settings") -> Outcome:
    """Export no records, and return the outcome."""
    import logging
    import threading

    from tbot_otel.otlp.quiet import silence_grpc
    from tbot_otel.otlp.responses import ResponseObserver
    from tbot_otel.otlp.send import build_exporter, export_and_observe

    # The outcome has the reason, and other loggers repeat variables.
    logging.basicConfig(handlers=[logging.NullHandler()])
    silence_grpc()
    observer = ResponseObserver(OptInSampler().should_sample)
    try:
        exporter = build_exporter(settings, observer)
    except ExporterConfigurationError as error:
        return Outcome(Status.FAILED, str(error))
    wait = emit.wait_seconds(settings)
    outcomes: list[Outcome] = []

    def export() -> None:
        outcomes.append(export_and_observe(exporter, observer, []))
        exporter.shutdown()  # type: ignore[no-untyped-call]

    # An exporter can take longer than its timeout.
    thread = threading.Thread(target=export, daemon=True)
    thread.start()
    thread.join(wait)
    if outcomes:
        return outcomes[0]
    return Outcome(Status.FAILED, observer.last_problem or f"no response within {wait:g} s")


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
