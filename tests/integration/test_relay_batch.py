"""The batches of the relay, and the encoder that official exporters use for them."""

import time
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

from support.cases import FULL_ATTRIBUTES
from support.collectors import Collector
from support.messages import new_session_id
from support.otlp import PROTOCOLS
from support.starts import permit
from tbot_otel.connect import Report
from tbot_otel.otlp.environment import EXPORTER_MODULES
from tbot_otel.otlp.responses import ResponseObserver
from tbot_otel.otlp.send import build_exporter, export_and_observe, import_exporter_module
from tbot_otel.otlp.settings import read_settings
from tbot_otel.relay.batch import ReportBatch, install_batch_encoder
from tbot_otel.session import Status


class UnreadableBatch(ReportBatch):
    """A batch whose records cannot be read."""

    def __getitem__(self, index: object) -> Any:
        raise AssertionError("a record was read")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_exporters_use_the_batch_encoder(
    monkeypatch: pytest.MonkeyPatch, collector: Collector, protocol: str
) -> None:
    """The official exporters send a batch's own message, and other records as before."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint(protocol))
    # monkeypatch restores the function after the test.
    monkeypatch.setattr(f"{EXPORTER_MODULES[protocol]}._log_exporter.encode_logs", encode_logs)
    observer = ResponseObserver()
    exporter = build_exporter(read_settings(), observer)
    install_batch_encoder()
    install_batch_encoder()
    # The exporter of gRPC has a method to override.
    module = import_exporter_module()
    assert (vars(module)["encode_logs"] is encode_logs) == (protocol == "grpc")
    first, second = (
        Report(new_session_id(), time.time_ns(), permit(FULL_ATTRIBUTES)) for _ in range(2)
    )
    for batch in (UnreadableBatch([first]), [*ReportBatch([second])]):
        assert export_and_observe(exporter, observer, batch).status is Status.DELIVERED
    exporter.shutdown()  # type: ignore[no-untyped-call]
    for report in (first, second):
        assert collector.find(report.session_id).event_name == "tbot.start"
