"""The policy: one table of cases, and every caller gives what it says."""

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

from cases import CASES, WHOLE, Case, Refusal, tbot_that
from collectors import Answer, Standin, plain
from tbot_otel.cli import main
from tbot_otel.events import EVENTS, START
from tbot_otel.exporter import TbotLogExporter, anonymise
from tbot_otel.policy import Permitted, Reason, Refused, decide

PERMITTED = [case for case in CASES if not isinstance(case.expected, Refusal)]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def check(verdict: Permitted | Refused, case: Case) -> None:
    """Compare what was decided, the order of the attributes included, with the table."""
    if isinstance(case.expected, Refusal):
        assert isinstance(verdict, Refused)
        assert (verdict.reason, verdict.attribute) == case.expected
    else:
        assert isinstance(verdict, Permitted)
        assert verdict.event_name == case.event_name
        assert list(verdict.attributes.items()) == list(case.expected.items())
        assert verdict.left_out == case.left_out


def log_record(case: Case) -> LogRecord:
    """The case as anybody's log record."""
    return LogRecord(event_name=case.event_name, attributes=case.attributes)


@each_case
def test_decide(case: Case) -> None:
    """The policy decides as the table says, and changes nothing of what it is given."""
    attributes = None if case.attributes is None else MappingProxyType(dict(case.attributes))
    check(decide(case.event_name, attributes), case)


@pytest.mark.parametrize("case", PERMITTED, ids=lambda case: case.id)
def test_permitted_again(case: Case) -> None:
    """What is permitted is permitted again, as it is, and nothing is left out of it."""
    assert isinstance(case.expected, dict)
    check(decide("tbot.start", case.expected), case._replace(left_out=[]))


@given(
    st.dictionaries(
        st.sampled_from([*WHOLE]) | st.text(),
        st.text() | st.integers() | st.floats() | st.none() | st.booleans() | st.binary(),
    )
)
def test_any_attributes(attributes: dict[str, object]) -> None:
    """Whatever comes in, what leaves is the registry's, and is permitted again as it is."""
    verdict = decide("tbot.start", attributes)
    if isinstance(verdict, Refused):
        assert verdict.reason is Reason.NOT_A_COUNT
        return
    for attribute in START.attributes:
        if attribute.name in verdict.attributes or not attribute.optional:
            value = verdict.attributes.pop(attribute.name)
            assert attribute.admit(value) == value
    assert verdict.attributes == {}


def test_the_table_is_complete() -> None:
    """Every reason, every event and every value that the registry lists has its case."""
    reasons = {reason for case in CASES for _, reason in case.left_out}
    refusals = {case.expected.reason for case in CASES if isinstance(case.expected, Refusal)}
    assert reasons | refusals == set(Reason)
    assert {case.event_name for case in PERMITTED} == {*EVENTS}
    for attribute in START.attributes:
        kept = [
            case.expected.get(attribute.name) for case in CASES if isinstance(case.expected, dict)
        ]
        assert {*attribute.values} <= {*kept}


@each_case
def test_anonymise(case: Case) -> None:
    """The exporter copies of a record what the table says."""
    record, verdict = anonymise(ReadableLogRecord(log_record(case), Resource.get_empty()))
    check(verdict, case)
    if isinstance(case.expected, Refusal):
        assert record is None
    else:
        assert record is not None
        assert record.log_record.event_name == "tbot.start"
        assert record.log_record.attributes == case.expected


@pytest.mark.usefixtures("opted_in")
@each_case
def test_exporter(case: Case) -> None:
    """Through a pipeline comes what the table says, and what was left out is counted."""
    memory = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    exporter = TbotLogExporter(memory)
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    provider.get_logger("anybody").emit(log_record(case))
    left = [
        (record.log_record.event_name, record.log_record.attributes)
        for record in memory.get_finished_logs()
    ]
    if isinstance(case.expected, Refusal):
        assert left == []
        assert exporter.left_out == {case.expected.reason: 1}
    else:
        assert left == [("tbot.start", case.expected)]
        assert exporter.left_out == Counter(reason for _, reason in case.left_out)


class Typed(NamedTuple):
    """How a command is given a case: words, and what tbot, the file and the variables say."""

    words: list[str]
    version: str
    join_method: str
    helper: str
    helper_version: str


def typed(case: Case) -> Typed | None:
    """Return how a command is given a case; None where there is no way."""
    given = {**(case.attributes or {})}
    mode = {"one-shot": "--oneshot", "daemon": "--daemon"}.get(str(given.pop("tbot.run_mode", "")))
    texts = [
        text
        for name in ("tbot.version", "tbot.join_type", "tbot.helper", "tbot.helper_version")
        # Neither a variable nor a shell script has a NUL.
        if isinstance(text := given.pop(name, ""), str) and "\0" not in text
    ]
    if (
        case.event_name != "tbot.start"
        or isinstance(case.expected, Refusal)
        or not given.keys() <= WHOLE.keys()
        or mode is None
        or len(texts) != 4
        # tbot's own line ends a version at a space.
        or texts[0].split() not in ([], [texts[0]])
    ):
        return None
    counts = [
        f"--{name.removeprefix('tbot.').replace('_', '-')}={count}" for name, count in given.items()
    ]
    return Typed([mode, *counts], *texts)


TYPED = [(case, inputs) for case in CASES if (inputs := typed(case))]


def without_what_is_new(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request without what is new at every run: its session and its times."""
    (logs,) = request["resourceLogs"]
    (record,) = logs["scopeLogs"][0]["logRecords"]
    resource = logs["resource"]
    resource["attributes"] = [
        item for item in resource["attributes"] if item["key"] != "session.id"
    ]
    assert int(record.pop("timeUnixNano")) <= int(record.pop("observedTimeUnixNano"))
    return request


@pytest.fixture(scope="module")
def collector() -> Iterator[Standin]:
    """A Collector that takes everything."""
    with Standin(Answer()) as standin:
        yield standin


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize("pair", TYPED, ids=[case.id for case, _ in TYPED])
def test_commands(
    pair: tuple[Case, Typed],
    collector: Standin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What preview prints is what the table says and what emit sends; both name what they left."""
    case, given = pair
    config = tmp_path / "tbot.yaml"
    config.write_text(f"onboarding: {{join_method: {json.dumps(given.join_method)}}}")
    words = ["--config", str(config), *given.words]
    line = f"Teleport v{given.version} git:v18.3.0-0-gabcdef1 go1.24.9" if given.version else ""
    monkeypatch.setenv("PATH", tbot_that(tmp_path, f"printf '%s\\n' {shlex.quote(line)}"))
    monkeypatch.setenv("_TBOT_TELEMETRY_HELPER", given.helper)
    monkeypatch.setenv("_TBOT_TELEMETRY_HELPER_VERSION", given.helper_version)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)

    assert main(["preview", *words]) == 0
    printed = capsys.readouterr()
    previewed = json.loads(printed.out)
    (record,) = previewed["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert record["eventName"] == "tbot.start"
    assert plain(record["attributes"]) == case.expected
    left_out = [f"tbot-otel: {name}: {reason.value}" for name, reason in case.left_out]
    assert printed.err.splitlines() == left_out

    assert main(["emit", *words]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines()[:-1] == left_out
    sent = MessageToDict(
        ExportLogsServiceRequest.FromString(collector.requests[-1].body),
        use_integers_for_enums=True,
    )
    assert without_what_is_new(sent) == without_what_is_new(previewed)
