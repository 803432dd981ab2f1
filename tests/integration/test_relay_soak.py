"""The relay under load while its Collector and its workers are killed again and again.

``HYPOTHESIS_PROFILE=long`` runs until a million starts are acknowledged, over each protocol.
"""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from http.client import HTTPException
from itertools import count, cycle
from pathlib import Path

import pytest

from support.cases import FULL_ATTRIBUTES
from support.collectors import Official
from support.fuzzing import LONG_PROFILE
from support.messages import encode_request, encode_start, field, new_session_id
from support.otlp import PROTOCOLS, attribute_values
from support.processes import running_server, wait_until
from support.relay import Relay, running_relay
from support.relay_clients import concurrently, open_files, resident_bytes

CLIENTS = 8
PAUSE_SECONDS = 0.0 if LONG_PROFILE else 0.05
"""Of each client, after an acknowledged and a refused report."""
EXPORT_TIMEOUT_SECONDS = 1
# Longer and shorter than an export may take.
DOWNTIMES = (1.5, 0.1, 0.5)
MAX_UPTIME_SECONDS = 2.0 if LONG_PROFILE else 1.0
# A short run has each downtime once.
MIN_KILLS = len(DOWNTIMES) + 1
MIN_ACKNOWLEDGED = 500_000 if LONG_PROFILE else 0
# The server ends if a worker dies within 5.5 seconds of its restart.
WORKER_KILL_INTERVAL_SECONDS = 6.0
MAX_GROWTH_BYTES = 16 * 2**20


def write_without_buffer(collector: Official) -> None:
    """Configure a Collector so that a kill does not lose a record that it has acknowledged."""
    config = json.loads(collector._config.read_text())
    # With rotation, the Collector does not buffer, and appends to an existing file.
    config["exporters"]["file"] = {"path": str(collector._file), "rotation": {"max_megabytes": 999}}
    collector._config.write_text(json.dumps(config))


@contextmanager
def running_until_killed(collector: Official) -> Iterator[None]:
    """Run a Collector until the block ends, and kill it then."""
    command = [str(collector._binary), "--config", str(collector._config)]
    log = collector._folder / "collector.log"
    with running_server(command, log, collector.http_port, collector.grpc_port) as process:
        yield
        process.kill()
        process.wait()


def written_session_ids(collector: Official) -> set[object]:
    """The session ids in the file of a Collector that was killed."""
    session_ids: set[object] = set()
    text = collector._file.read_text().replace('{"resourceLogs"', '\n{"resourceLogs"')
    for line in text.splitlines():
        # A kill can cut off the line of an export that was not acknowledged.
        with suppress(json.JSONDecodeError):
            session_ids |= {
                attribute_values(logs["resource"]["attributes"])["session.id"]
                for logs in json.loads(line)["resourceLogs"]
            }
    return session_ids


def post_to_killed(relay: Relay, body: bytes) -> int:
    """Post a report, and return the status; 0 if its worker was killed."""
    try:
        return relay.post(body)[0]
    except (OSError, HTTPException):
        return 0


def kill_worker(relay: Relay, survivor: int) -> None:
    """Kill the other worker, if it is there."""
    for pid in relay.worker_pids() - {survivor}:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_soak(  # noqa: PLR0915 - it is one story
    protocol: str, official_binary: Path, tmp_path: Path
) -> None:
    """The Collector has every acknowledged and no refused report, and the relay does not grow."""
    collector = Official(official_binary, tmp_path)
    write_without_buffer(collector)
    acknowledged: list[str] = []
    refused: list[str] = []
    statuses: Counter[int] = Counter()
    stop = threading.Event()

    def run_client() -> None:
        while not stop.wait(PAUSE_SECONDS):
            session_id = new_session_id()
            status = post_to_killed(
                relay, encode_request(encode_start(FULL_ATTRIBUTES), session_id=session_id)
            )
            statuses[status] += 1
            if status == 200:
                acknowledged.append(session_id)
            session_id = new_session_id()
            invalid = encode_request(field(6, -1), session_id=session_id)
            assert post_to_killed(relay, invalid) in (400, 0)
            refused.append(session_id)

    with (
        running_relay(
            tmp_path,
            collector.endpoint(protocol),
            *("--workers", "2"),
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_TIMEOUT=str(EXPORT_TIMEOUT_SECONDS),
        ) as relay,
        concurrently(*[run_client] * CLIENTS) as clients,
    ):
        try:
            survivor = min(relay.worker_pids())
            next_worker_kill = time.monotonic()
            for kills, downtime in zip(count(), cycle(DOWNTIMES), strict=False):
                if kills == 1:
                    memory, files = resident_bytes(survivor), open_files(survivor).total()
                with running_until_killed(collector):
                    is_last = kills + 1 >= MIN_KILLS and len(acknowledged) >= MIN_ACKNOWLEDGED
                    if is_last or kills % 2 == 0:
                        # The relay finds a Collector that is up again.
                        before = len(acknowledged)
                        wait_until(lambda: len(acknowledged) > before)  # noqa: B023 - called now
                    time.sleep(random.uniform(0.2, MAX_UPTIME_SECONDS))  # noqa: S311 - no secret
                    if time.monotonic() >= next_worker_kill:
                        kill_worker(relay, survivor)
                        next_worker_kill = time.monotonic() + WORKER_KILL_INTERVAL_SECONDS
                    if is_last:
                        # The last calls get their responses while the Collector is up.
                        stop.set()
                        wait(clients)
                if is_last:
                    break
                time.sleep(downtime)
            assert resident_bytes(survivor) - memory < MAX_GROWTH_BYTES
            wait_until(lambda: open_files(survivor).total() - files < 2 * CLIENTS)
        finally:
            stop.set()
    for client in clients:
        client.result()
    written = written_session_ids(collector)
    print(f"acknowledged {len(acknowledged)}, statuses {statuses}, Collector killed {kills} times")
    assert acknowledged
    assert statuses.keys() <= {0, 200, 503}
    assert {200, 503} <= statuses.keys()
    assert not {*acknowledged} - written
    assert not {*refused} & written
