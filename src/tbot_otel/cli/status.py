"""Print whether a start would be sent, which variable decides, where to, and likely mistakes.

Exit status: 0 = it would be sent; 3 = it would not.
"""

import argparse

from tbot_otel.cli import _source
from tbot_otel.consent import OptInSampler
from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp import environment
from tbot_otel.policy import Permitted, decide
from tbot_otel.registry import START

EXIT_WOULD_NOT_SEND = 3

_MAX_PLAUSIBLE_TIMEOUT_SECONDS = 600
# The specification's port for the other transport.
_WRONG_PORTS = {"grpc": ":4318", "http/protobuf": ":4317"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print the status."""
    consent = OptInSampler().should_sample()
    protocol = environment.protocol()
    would_send, variable, reason = consent.granted, consent.variable, consent.reason
    if would_send:
        # Only with consent: the check imports the packages around the exporter.
        try:
            environment.check_protocol(protocol)
        except ExporterConfigurationError as error:
            would_send, variable, reason = False, "OTEL_EXPORTER_OTLP_PROTOCOL", str(error)
    helper, problems = _check_helper()
    problems += _find_endpoint_problems(protocol)
    if options.json:
        import json

        status = {
            "would_send": would_send,
            "reason": reason,
            "variable": variable,
            "endpoint": environment.endpoint(),
            "protocol": protocol,
            "helper": helper,
            "problems": problems,
        }
        print(json.dumps(status, indent=2))
    else:
        print(f"would send: {'yes' if would_send else 'no'}, {reason}")
        print(f"to:         {environment.endpoint()}")
        print(f"protocol:   {protocol}")
        print(f"helper:     {' '.join(helper.values()) or 'none'}")
        for problem in problems:
            print(f"problem:    {problem}")
    return 0 if would_send else EXIT_WOULD_NOT_SEND


def _check_helper() -> tuple[dict[str, str], list[str]]:
    """Return the parts of the helper's name and version that would leave, and problems."""
    decision = decide(START.name, _source.helper_attributes())
    if not isinstance(decision, Permitted):
        return {}, []
    variables = {
        "tbot.helper": _source.HELPER_VARIABLE,
        "tbot.helper_version": _source.HELPER_VERSION_VARIABLE,
    }
    helper = {
        name.removeprefix("tbot."): str(value)
        for name, value in decision.attributes.items()
        if name in variables
    }
    problems = [
        f"{variables[name]}: {_source.describe_reason(name, reason)}"
        for name, reason in decision.left_out
        if name in variables
    ]
    return helper, problems


def _find_endpoint_problems(protocol: str) -> list[str]:
    problems = []
    endpoint = environment.endpoint()
    port = _WRONG_PORTS.get(protocol)
    if port and endpoint.rpartition("://")[2].partition("/")[0].endswith(port):
        other = "HTTP" if protocol == "grpc" else "gRPC"
        problems.append(
            f"the endpoint's port {port[1:]} is for {other}, the protocol is {protocol}"
        )
    if (environment.timeout_seconds() or 0) > _MAX_PLAUSIBLE_TIMEOUT_SECONDS:
        problems.append("OTEL_EXPORTER_OTLP_TIMEOUT is over ten minutes; this SDK reads seconds")
    return problems
