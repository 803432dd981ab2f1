"""The gateway of the relay's examples, with ClickHouse's own engine."""

import contextlib
import ssl
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
import yaml

from support import agent
from support.cases import FULL_ATTRIBUTES
from support.clickhouse import ClickHouse, running_clickhouse
from support.messages import new_session_id
from support.paths import ROOT
from support.processes import WAIT_SECONDS, free_port, wait_until
from support.relay_examples import (
    EXAMPLES,
    Server,
    collector_server,
    relay_server,
    report_start,
)
from support.starts import permit
from tbot_otel import __version__
from tbot_otel.connect import Report
from tbot_otel.registry import SCHEMA_URL
from tbot_otel.relay.batch import ReportBatch

pytestmark = pytest.mark.usefixtures("chdb")

DAY_SECONDS = 24 * 60 * 60
COUNT_ROWS = """\
SELECT count() AS n FROM otel.tbot_starts WHERE Timestamp > now() - INTERVAL 90 DAY
"""


class Gateway(NamedTuple):
    """The Collector of the example gateway.yaml, and what it needs."""

    server: Server
    clickhouse: ClickHouse
    certificate: Path
    file: Path

    @property
    def endpoint(self) -> str:
        """The endpoint for relays and other Collectors."""
        return f"https://localhost:{self.server.port}"

    def relay(self) -> Server:
        """A relay that exports to it."""
        certificate = str(self.certificate)
        return relay_server(self.endpoint, OTEL_EXPORTER_OTLP_CERTIFICATE=certificate)

    def post(self, *reports: Report) -> None:
        """Export reports to it. It must accept them."""
        self.post_message(ReportBatch(reports).encode().SerializeToString())

    def post_message(self, message: bytes) -> None:
        """Export encoded reports to it. It must accept them."""
        request = urllib.request.Request(
            f"{self.endpoint}/v1/logs", message, {"Content-Type": "application/x-protobuf"}
        )
        context = ssl.create_default_context(cafile=self.certificate)
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS, context=context) as response:
            assert response.status == 200

    def wait_for_rows(self, count: int) -> None:
        """Wait until the table has this number of rows that have not expired."""
        wait_until(lambda: self.clickhouse.query(COUNT_ROWS)[0]["n"] == count)


@contextlib.contextmanager
def prepared_gateway(
    binary: Path, folder: Path, more_replacements: Mapping[str, str] | None = None
) -> Iterator[Gateway]:
    """Run ClickHouse until the block ends, and yield a gateway that does not run yet."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    issued.private_key_pem.write_to_path(folder / "tls.key")
    port = free_port()
    with running_clickhouse(folder) as clickhouse:
        replacements = {
            "0.0.0.0:4318": f"127.0.0.1:{port}",
            "/etc/otelcol": str(folder),
            "/var/lib/otelcol": str(folder),
            "http://clickhouse.example.com:8123": clickhouse.endpoint,
            **(more_replacements or {}),
        }
        server = collector_server(binary, folder, "gateway.yaml", port, replacements)
        file = folder / "starts" / "starts.jsonl"
        yield Gateway(server, clickhouse, folder / "ca.crt", file)


def expected_row(session_id: str, attributes: dict[str, Any]) -> dict[str, Any]:
    """The row of a start, without its time and the SDK's version."""
    return {
        "TraceId": "",
        "SpanId": "",
        "TraceFlags": 0,
        "SeverityText": "INFO",
        "SeverityNumber": 9,
        "ServiceName": "tbot",
        "Body": "",
        "ResourceSchemaUrl": SCHEMA_URL,
        "ResourceAttributes": {
            "service.name": "tbot",
            "session.id": session_id,
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
        },
        "ScopeSchemaUrl": SCHEMA_URL,
        "ScopeName": "tbot_otel",
        "ScopeVersion": __version__,
        "ScopeAttributes": {},
        "LogAttributes": {name: str(value) for name, value in attributes.items()},
        "EventName": "tbot.start",
    }


def test_gateway(official_binary: Path, tmp_path: Path) -> None:
    """Starts arrive in ClickHouse and in the file, which a restart of the gateway keeps."""
    session_ids: list[str] = []
    full = Report(new_session_id(), time.time_ns(), permit(FULL_ATTRIBUTES))
    with (
        prepared_gateway(official_binary, tmp_path) as gateway,
        contextlib.ExitStack() as stack,
    ):
        relay = gateway.relay()

        def report() -> bool:
            session_id, code = report_start(relay)
            session_ids.extend([session_id] if code == "ok" else [])
            return code == "ok"

        stack.enter_context(relay.running(tmp_path / "relay.log"))
        for number in range(2):
            with gateway.server.running(tmp_path / f"gateway-{number}.log"):
                # The relay may find a connection that has ended with the gateway before.
                wait_until(report)
                # Otherwise, the exit of the gateway could delay this insert beyond the next one.
                gateway.wait_for_rows(len(session_ids))
                if number:
                    gateway.post(full)
                    gateway.wait_for_rows(3)
        rows = gateway.clickhouse.query(
            "SELECT *, toUnixTimestamp64Nano(Timestamp) AS time FROM otel.tbot_starts"
        )
    now = time.time_ns()
    received: dict[str, Any] = {}
    for row in rows:
        del row["Timestamp"]
        assert row["ResourceAttributes"].pop("telemetry.sdk.version")
        received[row["ResourceAttributes"]["session.id"]] = row
    assert received.pop(full.session_id) == {
        **expected_row(full.session_id, FULL_ATTRIBUTES),
        "time": full.timestamp,
    }
    for session_id in session_ids:
        row = received.pop(session_id)
        # The time of receipt, less a random part of a minute.
        assert now - 2 * WAIT_SECONDS * 10**9 - 60 * 10**9 < row.pop("time") <= now
        assert row == expected_row(session_id, agent.REPORTED)
    assert received == {}
    text = gateway.file.read_text()
    assert [text.count(session_id) for session_id in (*session_ids, full.session_id)] == [1] * 3


def test_rows_are_deleted(official_binary: Path, tmp_path: Path) -> None:
    """ClickHouse deletes the rows that are older than the retention of the example."""
    now = time.time_ns() // 10**9
    reports = {
        days: Report(new_session_id(), (now - days * DAY_SECONDS) * 10**9, permit(FULL_ATTRIBUTES))
        for days in (0, 88, 91)
    }
    with prepared_gateway(official_binary, tmp_path) as gateway:
        with gateway.server.running(tmp_path / "gateway.log"):
            gateway.post(*reports.values())
            gateway.wait_for_rows(2)
        database = gateway.clickhouse
        # ClickHouse also does this from time to time.
        database.query("OPTIMIZE TABLE otel.tbot_starts FINAL")
        rows = database.query(
            "SELECT ResourceAttributes['session.id'] AS session_id FROM otel.tbot_starts"
        )
        (created,) = database.query("SHOW CREATE TABLE otel.tbot_starts")
    assert {row["session_id"] for row in rows} == {reports[days].session_id for days in (0, 88)}
    # 90 days.
    assert "TTL toDateTime(Timestamp) + toIntervalDay(90)" in created["statement"]


def test_files_are_bounded(official_binary: Path, tmp_path: Path) -> None:
    """The gateway deletes old files, by their number and their age."""
    smaller = {
        "max_megabytes: 100\n": "max_megabytes: 1\n",
        "max_backups: 1000\n": "max_backups: 50\n",
    }
    # In the file, less than a megabyte.
    reports = [
        Report(new_session_id(), time.time_ns(), permit(FULL_ATTRIBUTES)) for _ in range(500)
    ]
    message = ReportBatch(reports).encode().SerializeToString()
    with prepared_gateway(official_binary, tmp_path, smaller) as gateway:
        folder = gateway.file.parent
        folder.mkdir()
        # The names that the exporter gives to finished files.
        finished = {
            days: folder
            / time.strftime(
                "starts-%Y-%m-%dT%H-%M-%S.000-size.jsonl",
                time.gmtime(time.time() - days * DAY_SECONDS),
            )
            for days in (89, 91)
        }
        for path in finished.values():
            path.touch()

        def is_deleted(path: Path) -> bool:
            """Write more, and look."""
            gateway.post_message(message)
            return not path.exists()

        with gateway.server.running(tmp_path / "gateway.log"):
            wait_until(lambda: is_deleted(finished[91]))
            # There are not too many yet.
            assert len(list(folder.iterdir())) < 25
            assert finished[89].exists()
            wait_until(lambda: is_deleted(finished[89]))
            wait_until(lambda: len(list(folder.iterdir())) == 1 + 50)


def test_retention_is_documented() -> None:
    """The page says how long ClickHouse and the files keep starts. Both do so equally long."""
    exporters = yaml.safe_load((EXAMPLES / "gateway.yaml").read_text())["exporters"]
    rotation = exporters["file"]["rotation"]
    assert exporters["clickhouse"]["ttl"] == f"{rotation['max_days'] * 24}h"
    page = (ROOT / "docs" / "performance.md").read_text()
    assert f"{rotation['max_days']} days" in page
    assert f"{rotation['max_backups']} files of {rotation['max_megabytes']} MB" in page
