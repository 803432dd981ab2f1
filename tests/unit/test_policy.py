"""The policy decides as the table of cases says, and each of its callers asks it."""

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


def read(case: Case) -> ReadableLogRecord:
    """Return the case as a record of a pipeline."""
    return ReadableLogRecord(log_record(case), Resource.get_empty())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_decide(case: Case) -> None:
    """The policy decides as the table says, and permits again what it has permitted."""
    attributes = None if case.attributes is None else MappingProxyType(dict(case.attributes))
    assert_decision(decide(case.event_name, attributes), case)
    if not isinstance(case.expected, Refusal):
        assert_decision(decide("tbot.start", case.expected), case._replace(changes=[]))


@examples(40)
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
    # The gate adds the last one.
    assert reasons | refusals == {*Reason} - {Reason.CUT_BY_SDK}
    assert {case.event_name for case in PERMITTED} == {*EVENTS}


# The callers of `decide`: each gets a record that is refused, and one with every kind of change.
BY_ID = {case.id: case for case in CASES}
REFUSED_CASE = BY_ID["destinations_other -1"]
CHANGED_CASE = BY_ID["all invalid except the counts"]
CHANGES_OF_BOTH = Counter([Reason.NOT_A_COUNT, *(reason for _, reason in CHANGED_CASE.changes)])


def test_anonymize() -> None:
    """The gate copies the part of a record that the policy permits."""
    record, decision = anonymize(read(REFUSED_CASE))
    assert record is None
    assert_decision(decision, REFUSED_CASE)
    record, decision = anonymize(read(CHANGED_CASE))
    assert_decision(decision, CHANGED_CASE)
    assert record is not None
    assert record.log_record.event_name == "tbot.start"
    assert record.log_record.attributes == CHANGED_CASE.expected


@pytest.mark.usefixtures("opted_in")
def test_gates() -> None:
    """The exporter and the processor pass on what the policy permits, and count the reasons."""
    memory = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    exporter = TbotLogExporter(memory)
    processor = OptInLogRecordProcessor(SimpleLogRecordProcessor(memory))
    for gate in (SimpleLogRecordProcessor(exporter), processor):
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(gate)
        for case in (REFUSED_CASE, CHANGED_CASE):
            provider.get_logger("a library").emit(log_record(case))
    passed = [
        (record.log_record.event_name, record.log_record.attributes)
        for record in memory.get_finished_logs()
    ]
    assert passed == [("tbot.start", CHANGED_CASE.expected)] * 2
    assert exporter.changes == processor.changes == CHANGES_OF_BOTH


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


def test_equal_decisions() -> None:
    """What may leave is equal to what has the same event and attributes."""
    one, same, other = (
        Permitted("tbot.start", {"tbot.version": version}, []) for version in ("1", "1", "2")
    )
    assert one == same
    assert {one: "found"}[same] == "found"
    assert one != other
    assert len({one, same, other}) == 2
    assert one != Permitted("another", one.attributes, [])
    assert one != one.attributes
    assert hash(one) != hash(other)
