"""A program that PyInstaller builds sends starts as it does from its source."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.standins import GRPCStandin, HTTPStandin, Response

PROGRAM = """
import sys
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from tbot_otel import OptInLogRecordProcessor, StartEvent, TbotLogExporter, record_start

options = {}
if "pipeline" in sys.argv:
    options["logger_provider"] = provider = LoggerProvider()
    batch = BatchLogRecordProcessor(TbotLogExporter())
    provider.add_log_record_processor(OptInLogRecordProcessor(batch))
session = record_start(StartEvent(run_mode="daemon", version="18.3.0"), **options)
print(session.flush(60).status.value)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built."""
    folder = tmp_path_factory.mktemp("frozen")
    (folder / "program.py").write_text(PROGRAM)
    subprocess.run(
        [sys.executable, "-m", "PyInstaller", "--log-level=WARN", "program.py"],
        cwd=folder,
        check=True,
    )
    return folder / "dist" / "program" / "program"


@pytest.mark.parametrize("words", [[], ["pipeline"]], ids=["private", "pipeline"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_frozen(program: Path, protocol: str, words: list[str]) -> None:
    """It delivers with consent, and does nothing without."""
    standin = GRPCStandin() if protocol == "grpc" else HTTPStandin(Response())
    with standin as collector:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        }
        statuses = [
            subprocess.run(
                [str(program), *words],
                env={"PATH": os.defpath} | environ | consent,
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            ).stdout
            for consent in ({}, {"TELEPORT_ANONYMOUS_TELEMETRY": "1"})
        ]
        assert statuses == ["refused\n", "delivered\n"]
        assert len(collector.requests) == 1
