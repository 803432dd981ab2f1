"""The policy: each of its callers must decide as the table of cases says."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from support.cases import CASES, FULL_ATTRIBUTES, Case, Refusal, restrict_case
from support.otlp import attribute_values
from support.processes import install_tbot_script
from support.standins import HTTPStandin, Response
from tbot_otel.cli import _start_options, main
from tbot_otel.cli._parser import Parser
from tbot_otel.policy import is_allowable_helper


class CommandInputs(NamedTuple):
    """The inputs that give a case to a command: options, tbot.yaml, tbot, and variables."""

    options: list[str]
    version: str
    join_method: str
    helper: str
    helper_version: str


def options_by_attribute() -> dict[str, str]:
    """Return the option of emit and preview for each attribute that has one."""
    parser = Parser()
    _start_options.configure(parser)
    return {
        action.dest: action.option_strings[0]
        for action in parser._actions
        if action.dest in FULL_ATTRIBUTES
    }


OPTIONS = options_by_attribute()
COMMAND_ATTRIBUTES = {*OPTIONS, *_start_options.helper_attributes()}
MODE_OPTIONS = {"one-shot": "--oneshot", "daemon": "--daemon"}


def command_inputs(case: Case) -> CommandInputs | None:
    """Return the inputs that give a case to a command; None if none do."""
    remaining = {**(case.attributes or {})}
    mode = MODE_OPTIONS.get(str(remaining.pop("tbot.run_mode", "")))
    texts = [
        text
        for name in ("tbot.version", "tbot.join_type", "tbot.helper", "tbot.helper_version")
        # Variables and shell scripts cannot contain NUL.
        if isinstance(text := remaining.pop(name, ""), str) and "\0" not in text
    ]
    if (
        case.event_name != "tbot.start"
        or isinstance(case.expected, Refusal)
        or not remaining.keys() <= OPTIONS.keys()
        # An option refuses every other value.
        or not remaining.items() <= case.expected.items()
        or mode is None
        or len(texts) != 4
        # In tbot's output, a version ends at a space.
        or texts[0].split() not in ([], [texts[0]])
    ):
        return None
    options = [f"{OPTIONS[name]}={value}" for name, value in remaining.items()]
    return CommandInputs([mode, *options], *texts)


COMMAND_CASES = [
    pytest.param(case, inputs, id=case.id)
    for case in (restrict_case(case, COMMAND_ATTRIBUTES) for case in CASES)
    if case and (inputs := command_inputs(case))
]


def expected_lines(case: Case, inputs: CommandInputs) -> Iterator[str]:
    """Yield a line for each value that policy changed or left out."""
    for name, reason in case.changes:
        if name == "tbot.version" and not inputs.version:
            yield "tbot.version: `tbot version` printed no version; --tbot-version gives it"
        elif name == "tbot.helper" and is_allowable_helper(inputs.helper):
            yield f"{name}: {reason.value}; --allow-helper lets it leave"
        else:
            yield f"{name}: {reason.value}"


def without_session_and_times(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request without its session and its times, which are new at every run."""
    (logs,) = request["resourceLogs"]
    (record,) = logs["scopeLogs"][0]["logRecords"]
    resource = logs["resource"]
    resource["attributes"] = [
        item for item in resource["attributes"] if item["key"] != "session.id"
    ]
    assert record.pop("timeUnixNano") == record.pop("observedTimeUnixNano")
    return request


@pytest.fixture(scope="module")
def standin() -> Iterator[HTTPStandin]:
    """A stand-in for a Collector that accepts every export."""
    with HTTPStandin(Response()) as standin:
        yield standin


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize(("case", "inputs"), COMMAND_CASES)
def test_commands(
    case: Case,
    inputs: CommandInputs,
    *,
    standin: HTTPStandin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Preview prints the record that the table permits, and emit sends the same record.

    Both name the attributes that policy changed or left out.
    """
    config = tmp_path / "tbot.yaml"
    config.write_text(f"onboarding: {{join_method: {json.dumps(inputs.join_method)}}}")
    words = ["--config", str(config), *inputs.options]
    line = f"Teleport v{inputs.version} git:v18.3.0-0-gabcdef1 go1.24.9" if inputs.version else ""
    monkeypatch.setenv("PATH", install_tbot_script(tmp_path, f"printf '%s\\n' {shlex.quote(line)}"))
    monkeypatch.setenv("_TBOT_TELEMETRY_HELPER", inputs.helper)
    monkeypatch.setenv("_TBOT_TELEMETRY_HELPER_VERSION", inputs.helper_version)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", standin.endpoint)

    assert main(["preview", "--json", *words]) == 0
    printed = capsys.readouterr()
    previewed = json.loads(printed.out)
    (record,) = previewed["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert record["eventName"] == "tbot.start"
    assert attribute_values(record["attributes"]) == case.expected
    changes = [f"tbot-otel: {line}" for line in expected_lines(case, inputs)]
    assert printed.err.splitlines() == changes

    assert main(["emit", *words]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines()[:-1] == changes
    sent = MessageToDict(
        ExportLogsServiceRequest.FromString(standin.requests[-1].body),
        use_integers_for_enums=True,
    )
    assert without_session_and_times(sent) == without_session_and_times(previewed)
