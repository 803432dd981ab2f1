"""The policy: each of its callers must decide as the table of cases says."""

import json
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from support.cases import CASES, FULL_ATTRIBUTES, OTHER, Case, Refusal, restrict_case
from support.fuzzing import examples
from support.otlp import attribute_values
from support.processes import install_tbot_script
from support.standins import HTTPStandin, Response
from tbot_otel.cli import _source, main
from tbot_otel.cli._parser import Parser
from tbot_otel.exporter import TbotLogExporter
from tbot_otel.policy import Permitted, Reason, Refused, decide, is_allowable_helper
from tbot_otel.processor import OptInLogRecordProcessor
from tbot_otel.record import anonymize
from tbot_otel.registry import EVENTS, START

PERMITTED = [case for case in CASES if not isinstance(case.expected, Refusal)]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def assert_decision(decision: Permitted | Refused, case: Case) -> None:
    """Compare a decision, including the order of the attributes, with the table."""
    if isinstance(case.expected, Refusal):
        assert isinstance(decision, Refused)
        assert (decision.reason, decision.attribute) == case.expected
    else:
        assert isinstance(decision, Permitted)
        assert decision.event_name == case.event_name
        assert list(decision.attributes.items()) == list(case.expected.items())
        assert decision.left_out == case.left_out


def log_record(case: Case) -> LogRecord:
    """Return the case as a log record of any library."""
    return LogRecord(event_name=case.event_name, attributes=case.attributes)


@each_case
def test_decide(case: Case) -> None:
    """The policy decides as the table says and does not change its arguments."""
    attributes = None if case.attributes is None else MappingProxyType(dict(case.attributes))
    assert_decision(decide(case.event_name, attributes), case)


@pytest.mark.parametrize("case", PERMITTED, ids=lambda case: case.id)
def test_decide_again(case: Case) -> None:
    """A permitted record is permitted again without a change."""
    assert isinstance(case.expected, dict)
    assert_decision(decide("tbot.start", case.expected), case._replace(left_out=[]))


@examples(100)
@given(
    st.dictionaries(
        st.sampled_from([*FULL_ATTRIBUTES]) | st.text(),
        st.text() | st.integers() | st.floats() | st.none() | st.booleans() | st.binary(),
    )
)
def test_any_attributes(attributes: dict[str, object]) -> None:
    """Only attributes of the registry leave, with values that are permitted again unchanged."""
    decision = decide("tbot.start", attributes)
    if isinstance(decision, Refused):
        assert decision.reason is Reason.NOT_A_COUNT
        return
    for attribute in START.attributes:
        if attribute.name in decision.attributes or not attribute.optional:
            value = decision.attributes.pop(attribute.name)
            assert attribute.admit(value) == value
    assert decision.attributes == {}


def test_table_is_complete() -> None:
    """The table has a case for every reason and every event.

    `test_registry` checks that it has cases for every attribute.
    """
    reasons = {reason for case in CASES for _, reason in case.left_out}
    refusals = {case.expected.reason for case in CASES if isinstance(case.expected, Refusal)}
    assert reasons | refusals == set(Reason)
    assert {case.event_name for case in PERMITTED} == {*EVENTS}


@each_case
def test_anonymize(case: Case) -> None:
    """The exporter copies the part of a record that the table permits."""
    record, decision = anonymize(ReadableLogRecord(log_record(case), Resource.get_empty()))
    assert_decision(decision, case)
    if isinstance(case.expected, Refusal):
        assert record is None
    else:
        assert record is not None
        assert record.event_name == "tbot.start"
        assert record.attributes == case.expected


@pytest.mark.usefixtures("opted_in")
@each_case
def test_exporter(case: Case) -> None:
    """A pipeline exports the record that the table permits and counts the reasons."""
    memory = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    exporter = TbotLogExporter(memory)
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    provider.get_logger("a library").emit(log_record(case))
    exported = [
        (record.log_record.event_name, record.log_record.attributes)
        for record in memory.get_finished_logs()
    ]
    if isinstance(case.expected, Refusal):
        assert exported == []
        assert exporter.left_out == {case.expected.reason: 1}
    else:
        assert exported == [("tbot.start", case.expected)]
        assert exporter.left_out == Counter(reason for _, reason in case.left_out)


@pytest.mark.usefixtures("opted_in")
@each_case
def test_processor(case: Case) -> None:
    """The processor passes on the record that the table permits and counts the reasons."""
    memory = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    processor = OptInLogRecordProcessor(SimpleLogRecordProcessor(memory))
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(processor)
    provider.get_logger("a library").emit(log_record(case))
    passed = [
        (record.log_record.event_name, record.log_record.attributes)
        for record in memory.get_finished_logs()
    ]
    if isinstance(case.expected, Refusal):
        assert passed == []
        assert processor.left_out == {case.expected.reason: 1}
    else:
        assert passed == [("tbot.start", case.expected)]
        assert processor.left_out == Counter(reason for _, reason in case.left_out)


ALLOWABLE_HELPERS = ["acme-deploy", "gitlab-ci:org/group/step_2", "a", "k8s:x", "w" * 64]
OTHER_HELPERS = [
    *("", "w" * 65, "web01.example.com", "192.0.2.1", "x y", "x\n", "someone@example.com"),
    *("0b7f1f2e5d0c4c398a543f1d9e6b7a20", "account-123456789012", "00:1b:44:11:3a:b7"),
]


@pytest.mark.parametrize("helper", ALLOWABLE_HELPERS)
def test_allowed_helper(helper: str) -> None:
    """A helper that the owner of the pipeline allows leaves, with its version."""
    assert is_allowable_helper(helper)
    given = FULL_ATTRIBUTES | {"tbot.helper": helper}
    decision = decide("tbot.start", given, ["another", helper])
    assert isinstance(decision, Permitted)
    assert (decision.attributes, decision.left_out) == (given, [])


@pytest.mark.parametrize("helper", OTHER_HELPERS)
def test_helper_that_cannot_be_allowed(helper: str) -> None:
    """Nothing else leaves, even if the owner of the pipeline allows it."""
    assert not is_allowable_helper(helper)
    decision = decide("tbot.start", FULL_ATTRIBUTES | {"tbot.helper": helper}, [helper])
    assert isinstance(decision, Permitted)
    assert decision.attributes.get("tbot.helper") == (OTHER if helper else None)
    assert "tbot.helper_version" not in decision.attributes


def test_allowing_helpers_changes_nothing_else() -> None:
    """Only the name of a helper can be allowed."""
    given = FULL_ATTRIBUTES | {"tbot.run_mode": "x", "tbot.join_type": "x", "tbot.version": "x"}
    assert decide("tbot.start", given, ["x"]).attributes == {  # type: ignore[union-attr]
        **FULL_ATTRIBUTES,
        **dict.fromkeys(("tbot.run_mode", "tbot.join_type", "tbot.version"), OTHER),
    }


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
    _source.configure(parser)
    return {
        action.dest: action.option_strings[0]
        for action in parser._actions
        if action.dest in FULL_ATTRIBUTES
    }


OPTIONS = options_by_attribute()
COMMAND_ATTRIBUTES = {*OPTIONS, *_source.helper_attributes()}
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
    for name, reason in case.left_out:
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


@pytest.mark.integration
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
    left_out = [f"tbot-otel: {line}" for line in expected_lines(case, inputs)]
    assert printed.err.splitlines() == left_out

    assert main(["emit", *words]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines()[:-1] == left_out
    sent = MessageToDict(
        ExportLogsServiceRequest.FromString(standin.requests[-1].body),
        use_integers_for_enums=True,
    )
    assert without_session_and_times(sent) == without_session_and_times(previewed)
