"""Concurrent clients of a relay, and a Collector that lets them wait."""

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, NumberDataPoint

from support.processes import WAIT_SECONDS
from support.relay import Relay
from support.setup_code import override_constants
from support.standins import HTTPStandin, Response

TOO_MANY_CALLS = (429, "resource_exhausted")


@contextlib.contextmanager
def concurrently(*calls: Callable[[], Any]) -> Iterator[list[Future[Any]]]:
    """Run all calls on threads of their own while the block runs, and then wait for them."""
    with ThreadPoolExecutor(len(calls)) as threads:
        yield [threads.submit(call) for call in calls]


class GatedStandin(HTTPStandin):
    """An HTTP stand-in that responds only while its gate is open."""

    def __init__(self, *responses: Response) -> None:
        self.gate = threading.Event()
        super().__init__(*responses, on_request=self._wait_for_gate)

    def _wait_for_gate(self) -> None:
        self.gate.wait(WAIT_SECONDS)

    def __exit__(self, *error: object) -> None:
        self.gate.set()
        super().__exit__(*error)


GATED_ENVIRON = {"OTEL_EXPORTER_OTLP_TIMEOUT": str(WAIT_SECONDS)}
"""The variables of a relay in front of a `GatedStandin`."""


def gated_setup(max_concurrent_calls: int) -> str:
    """Return the setup code of a relay in front of a `GatedStandin`: calls wait for its gate."""
    return override_constants(
        "tbot_otel.relay.app",
        MAX_CONCURRENT_CALLS=max_concurrent_calls,
        RESPONSE_TIMEOUT_SECONDS=WAIT_SECONDS,
    ) + override_constants("tbot_otel.relay.readiness", MAX_IDLE_SECONDS=3600)


def is_full(relay: Relay) -> bool:
    """Whether the relay has its maximum number of calls in flight."""
    return relay.post(b"")[:2] == TOO_MANY_CALLS


def report_until_admitted(relay: Relay, session_id: str | None = None) -> tuple[int, str]:
    """Report a start, again if a call of `is_full` was in flight in its place."""
    while (result := relay.report(session_id)) == TOO_MANY_CALLS:
        pass
    return result


def exported_session_ids(standin: HTTPStandin) -> list[list[str]]:
    """The session ids in each export that a stand-in has received, without empty exports."""
    exports = []
    for request in standin.requests:
        if request.path == "/v1/logs":
            logs = ExportLogsServiceRequest.FromString(request.body).resource_logs
            values = [{a.key: a.value.string_value for a in r.resource.attributes} for r in logs]
            exports.append([value["session.id"] for value in values])
    return [session_ids for session_ids in exports if session_ids]


def exported_metrics(standin: HTTPStandin) -> list[ExportMetricsServiceRequest]:
    """The metrics that a stand-in has received."""
    return [
        ExportMetricsServiceRequest.FromString(request.body)
        for request in standin.requests
        if request.path == "/v1/metrics"
    ]


def exported_points(standin: HTTPStandin) -> dict[str, dict[tuple[Any, ...], Any]]:
    """The last data points of each of the relay's own metrics, by attributes."""
    metrics = [
        metric
        for export in exported_metrics(standin)
        for resource in export.resource_metrics
        for scope in resource.scope_metrics
        if scope.scope.name == "tbot_otel"
        for metric in scope.metrics
    ]
    points: dict[str, dict[tuple[Any, ...], Any]] = {}
    for metric in metrics:
        values = points[metric.name] = {}
        for number in [*metric.sum.data_points, *metric.gauge.data_points]:
            values[_point_attributes(number)] = number.as_int
        for histogram in metric.histogram.data_points:
            values[_point_attributes(histogram)] = (histogram.count, histogram.sum)
    return points


def _point_attributes(
    point: NumberDataPoint | HistogramDataPoint,
) -> tuple[tuple[str, str | int], ...]:
    values = ((item.key, item.value) for item in point.attributes)
    return tuple((name, value.string_value or value.int_value) for name, value in values)


def open_files(pid: int) -> Counter[str]:
    """The open files of a process: how many descriptors refer to each of them."""
    files: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        # It may be closed already.
        with contextlib.suppress(FileNotFoundError):
            files[str(descriptor.readlink())] += 1
    return files


def resident_bytes(pid: int) -> int:
    """The resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
