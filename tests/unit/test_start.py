"""A start on its way out: policy decides once more than it must, and nothing else can leave."""

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from support.cases import FULL_ATTRIBUTES, FULL_FIELDS, OTHER
from support.messages import NOW, encode_request, encode_start
from support.otlp import attribute_values, received_records
from support.processes import WAIT_SECONDS, wait_until
from support.standins import HTTPStandin, Response
from tbot_otel import StartEvent, Status, policy, record_start
from tbot_otel.cli import main
from tbot_otel.connect import Request, parse_report
from tbot_otel.pipeline import record
from tbot_otel.run import forwarder
from tbot_otel.run.delivery import Delivery
from tbot_otel.run.waker import Waker

pytestmark = pytest.mark.usefixtures("opted_in")


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPStandin]:
    """A stand-in for the Collector that the variables name."""
    with HTTPStandin(Response()) as standin:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", standin.endpoint)
        yield standin


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a function was called."""
    counts = Counter[str]()

    def count(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)

    decide = policy.decide
    for name, module in list(sys.modules.items()):
        if name.startswith("tbot_otel") and vars(module).get("decide") is decide:
            count(module, "decide")
    count(record, "EventLogRecord")
    count(record, "anonymous_resource")
    return counts


def send_with_record_start() -> None:
    """Send a start of a program."""
    event = StartEvent(**FULL_FIELDS)
    assert record_start(event).flush(WAIT_SECONDS).status is Status.DELIVERED


def send_with_emit() -> None:
    """Send a start with the command."""
    assert main(["emit", "--tbot-version=18.3.0", "--daemon"]) == 0


def send_with_run() -> None:
    """Send a report of tbot, as the forwarder does."""
    request = Request.from_binary(encode_request(encode_start(FULL_ATTRIBUTES)))
    waker = Waker(1)
    server: Any = forwarder._Forwarder.__new__(forwarder._Forwarder)
    server._record_file, server._dry_run = None, False
    delivery = Delivery(parse_report(request, NOW), waker, server._build_exporter)
    assert delivery.attempt.wait(WAIT_SECONDS).status is Status.DELIVERED


@pytest.mark.parametrize(
    ("send", "decisions"), [(send_with_record_start, 2), (send_with_emit, 1), (send_with_run, 1)]
)
def test_one_way_out(send: Any, decisions: int, standin: HTTPStandin, counts: Counter[str]) -> None:
    """A start is decided on, built and given a Resource this often."""
    send()
    assert counts == {"decide": decisions, "EventLogRecord": 1, "anonymous_resource": 1}
    assert len(standin.requests) == 1


def changed_by_setattr() -> StartEvent:
    """An event that was changed in spite of itself."""
    event = StartEvent(**FULL_FIELDS)
    object.__setattr__(event, "version", "web01")
    return event


def changed_by_setstate() -> StartEvent:
    """An event that was unpickled from another state."""
    event = StartEvent(**FULL_FIELDS)
    event.__setstate__((None, {"version": "web01", "join_type": "web01"}))
    return event


class OwnAttributes(StartEvent):
    """An event with attributes of its own."""

    @property
    def attributes(self) -> dict[str, str | int]:
        """More than policy permits."""
        return {**super().attributes, "tbot.version": "web01", "host.name": "web01"}


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (changed_by_setattr(), {"tbot.version": OTHER}),
        (changed_by_setstate(), {"tbot.version": OTHER, "tbot.join_type": OTHER}),
        (OwnAttributes(**FULL_FIELDS), {"tbot.version": OTHER}),
        (
            StartEvent(**FULL_FIELDS | {"helper": "acme-prod-deploy"}),
            {"tbot.helper": OTHER, "tbot.helper_version": None},
        ),
    ],
)
def test_last_decision_counts(
    event: StartEvent, changes: dict[str, str | None], standin: HTTPStandin
) -> None:
    """Whatever an event says of itself, policy decides on what is sent."""
    assert record_start(event).flush(WAIT_SECONDS).status is Status.DELIVERED
    wait_until(lambda: len(standin.requests) == 1)
    ((_, sent),) = received_records(standin.requests)
    expected = {name: value for name, value in (FULL_ATTRIBUTES | changes).items() if value}
    assert attribute_values(MessageToDict(sent)["attributes"]) == expected
