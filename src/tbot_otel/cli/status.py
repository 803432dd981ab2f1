"""Say whether a start would be sent, which variable decides, where to, and what looks wrong.

Exit status: 0 = it would be sent; 3 = it would not.
"""

import argparse

from tbot_otel import destination
from tbot_otel.cli import _source
from tbot_otel.consent import OptInSampler
from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.events import START
from tbot_otel.policy import Permitted, decide

WOULD_NOT_SEND = 3

_LONG_TIMEOUT = 600
# The port that the specification gives to the other transport.
_FOREIGN_PORTS = {"grpc": ":4318", "http/protobuf": ":4317", "http/json": ":4317"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def run(options: argparse.Namespace) -> int:
    """Print the status."""
    consent = OptInSampler().should_sample()
    protocol = destination.protocol()
    would_send, variable, reason = consent.granted, consent.variable, consent.reason
    if would_send:
        # With consent only: to look for an installed package is to import those around it.
        try:
            destination.check(protocol)
        except ExporterConfigurationError as error:
            would_send, variable, reason = False, "OTEL_EXPORTER_OTLP_PROTOCOL", str(error)
    helper, problems = _helper()
    problems += _endpoint_problems(protocol)
    if options.json:
        import json

        status = {
            "would_send": would_send,
            "reason": reason,
            "variable": variable,
            "endpoint": destination.endpoint(),
            "protocol": protocol,
            "helper": helper,
            "problems": problems,
        }
        print(json.dumps(status, indent=2))
    else:
        print(f"would send: {'yes' if would_send else 'no'}, {reason}")
        print(f"to:         {destination.endpoint()}")
        print(f"protocol:   {protocol}")
        print(f"helper:     {' '.join(helper.values()) or 'none'}")
        for problem in problems:
            print(f"problem:    {problem}")
    return 0 if would_send else WOULD_NOT_SEND


def _helper() -> tuple[dict[str, str], list[str]]:
    """What would leave of the helper's name and version, and what is wrong with them."""
    verdict = decide(START.name, _source.helper())
    if not isinstance(verdict, Permitted):
        return {}, []
    variables = {"tbot.helper": _source.HELPER, "tbot.helper_version": _source.HELPER_VERSION}
    helper = {
        name.removeprefix("tbot."): str(value)
        for name, value in verdict.attributes.items()
        if name in variables
    }
    problems = [
        f"{variables[name]}: {reason.value}, so it is left out"
        for name, reason in verdict.left_out
        if name in variables
    ]
    return helper, problems


def _endpoint_problems(protocol: str) -> list[str]:
    problems = []
    endpoint = destination.endpoint()
    port = _FOREIGN_PORTS.get(protocol)
    if port and endpoint.rpartition("://")[2].partition("/")[0].endswith(port):
        other = "HTTP" if protocol == "grpc" else "gRPC"
        problems.append(
            f"the endpoint's port {port[1:]} is for {other}, the protocol is {protocol}"
        )
    if (destination.timeout() or 0) > _LONG_TIMEOUT:
        problems.append("OTEL_EXPORTER_OTLP_TIMEOUT is over ten minutes: this SDK reads seconds")
    return problems
