"""Recorded exports: a line that cannot be written is said, and is no error."""

import logging
import os

import pytest

from support.starts import own_record
from tbot_otel.pipeline.recording import RecordFile, to_json
from tbot_otel.session import Start


@pytest.mark.parametrize("missing", [0, 1, 100])
def test_incomplete_line(
    missing: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A line that was written in part is said to be incomplete."""
    batch = [own_record(Start())]
    written: list[bytes] = []

    def write(_: int, data: bytes) -> int:
        written.append(data[: len(data) - missing])
        return len(written[-1])

    monkeypatch.setattr(os, "write", write)
    with caplog.at_level(logging.WARNING):
        RecordFile(7).write(batch)
    monkeypatch.undo()
    assert [record.getMessage() for record in caplog.records] == (
        ["--record: the last line is incomplete"] if missing else []
    )
    line = f"{to_json(batch, indent=None)}\n".encode()
    assert written == [line[: len(line) - missing]]
