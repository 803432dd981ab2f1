"""Linking: what the Collector sees does not tell which starts came from the same machine."""

import random
import time
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from support.cases import FULL_ATTRIBUTES
from support.messages import encode_request, encode_start, field, new_session_id
from support.relay import running_relay
from support.standins import HTTPStandin, Response

MACHINE_COUNT = 40
STARTS_PER_MACHINE = 3
SECOND = 10**9


class Start(NamedTuple):
    """A start as the Collector sees it, with what it must not see: the machine and its clock."""

    machine: int
    clock_offset: int
    arrived_at: int
    time: int
    observed: int


FEATURES: dict[str, Callable[[Start], float]] = {
    "time": lambda start: start.time,
    "time of arrival less time": lambda start: start.arrived_at - start.time,
    "observed time less time": lambda start: start.observed - start.time,
    "part of a second": lambda start: start.time % SECOND,
    "part of a millisecond": lambda start: start.time % 10**6,
}


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> list[Start]:
    """Starts of machines with the same configuration and clocks of their own, in any order."""
    # Each clock is late or early by a constant.
    offsets = [random.randrange(-2 * SECOND, 2 * SECOND) for _ in range(MACHINE_COUNT)]  # noqa: S311
    order = [*range(MACHINE_COUNT)] * STARTS_PER_MACHINE
    random.shuffle(order)
    machines: dict[object, int] = {}
    folder = tmp_path_factory.mktemp("linking")
    with (
        HTTPStandin(Response()) as standin,
        running_relay(folder, standin.endpoint) as relay,
    ):
        for machine in order:
            session_id = new_session_id()
            machines[session_id] = machine
            seconds, nanos = divmod(time.time_ns() + offsets[machine], SECOND)
            timestamp = field(2, field(1, seconds) + field(2, nanos))
            body = encode_request(
                encode_start(FULL_ATTRIBUTES), session_id=session_id, more=timestamp
            )
            assert relay.post(body)[0] == 200
    starts = []
    contents = set()
    for request in standin.requests:
        message = ExportLogsServiceRequest.FromString(request.body)
        (logs,) = message.resource_logs
        (record,) = logs.scope_logs[0].log_records
        (session,) = (item for item in logs.resource.attributes if item.key == "session.id")
        machine = machines[session.value.string_value]
        times = request.arrived_at, record.time_unix_nano, record.observed_time_unix_nano
        starts.append(Start(machine, offsets[machine], *times))
        session.value.string_value = ""
        record.time_unix_nano = record.observed_time_unix_nano = 0
        contents.add((message.SerializeToString(), *sorted(request.headers)))
    assert len(starts) == len(order)
    # Apart from the session id and the time, all are the same.
    assert len(contents) == 1
    return starts


def count_linked(starts: list[Start], feature: Callable[[Start], float]) -> int:
    """Count the starts whose neighbor by this feature is a start of the same machine."""
    # Starts with the same value are in random order.
    in_order = sorted(random.sample(starts, len(starts)), key=feature)
    return sum(first.machine == second.machine for first, second in pairwise(in_order))


@pytest.mark.parametrize("name", FEATURES)
def test_starts_are_not_linked(starts: list[Start], name: str) -> None:
    """No time of a record brings the starts of a machine together.

    By chance, 2 of the 119 pairs are of the same machine. The chance of 15 is below one in a
    billion.
    """
    assert count_linked(starts, FEATURES[name]) < 15


def test_clocks_would_link(starts: list[Start]) -> None:
    """The search finds the machines if it knows the agents' clocks."""
    linked = count_linked(starts, lambda start: start.clock_offset)
    assert linked == MACHINE_COUNT * (STARTS_PER_MACHINE - 1)
