"""The log of the forwarder keeps its lines."""

import logging
import os
import traceback
from pathlib import Path

import pytest

from tbot_otel.run import forwarder


class BrokenTraceback(traceback.TracebackException):
    """A traceback that cannot be formatted."""

    def __init__(self, *_: object, **__: object) -> None:
        raise ImportError


def test_traceback_that_cannot_be_formatted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line stays, and says so."""
    logger = logging.getLogger("tbot_otel")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    monkeypatch.setenv("OTEL_LOG_LEVEL", "debug")
    log = tmp_path / "log"
    forwarder._configure_log(os.open(log, os.O_WRONLY | os.O_CREAT))
    with monkeypatch.context() as patch:
        patch.setattr(traceback, "TracebackException", BrokenTraceback)
        logging.getLogger("tbot_otel.run").error("the line", exc_info=RuntimeError())
    (handler,) = logger.handlers
    handler.stream.close()  # type: ignore[attr-defined]  # it is a StreamHandler
    line, explanation = log.read_text().splitlines()
    assert line.endswith("tbot-otel run: the line")
    assert explanation == "(the traceback cannot be formatted: ImportError)"
