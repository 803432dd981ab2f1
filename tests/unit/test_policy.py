"""The policy: each of its callers must decide as the table of cases says."""

from collections import Counter
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from support.cases import CASES, FULL_ATTRIBUTES, OTHER, Case, Refusal
from support.fuzzing import examples
from tbot_otel.pipeline.exporter import TbotLogExporter
from tbot_otel.pipeline.processor import OptInLogRecordProcessor
from tbot_otel.pipeline.record import anonymize
from tbot_otel.policy import Permitted, Reason, Refused, decide, is_allowable_helper
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
        assert decision.changes == case.changes


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
    assert_decision(decide("tbot.start", case.expected), case._replace(changes=[]))


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
    reasons = {reason for case in CASES for _, reason in case.changes}
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
        assert exporter.changes == {case.expected.reason: 1}
    else:
        assert exported == [("tbot.start", case.expected)]
        assert exporter.changes == Counter(reason for _, reason in case.changes)


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
        assert processor.changes == {case.expected.reason: 1}
    else:
        assert passed == [("tbot.start", case.expected)]
        assert processor.changes == Counter(reason for _, reason in case.changes)


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
    assert (decision.attributes, decision.changes) == (given, [])


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
