"""The lines of libraries are hidden on the thread that sends, and only while it sends."""

import logging
import threading

import pytest

from tbot_otel.otlp.quiet import hidden_logs

LIBRARY = logging.getLogger("opentelemetry.test_quiet")
LIBRARY.setLevel(logging.INFO)


@pytest.mark.parametrize("library", ["grpc", "opentelemetry.sdk", "requests", "urllib3.connection"])
def test_libraries(library: str, caplog: pytest.LogCaptureFixture) -> None:
    """Every library behind an export is hidden."""
    logger = logging.getLogger(f"{library}.test_quiet")
    with hidden_logs():
        logger.warning("hidden")
    logger.warning("after the block")
    assert caplog.messages == ["after the block"]


def test_block(caplog: pytest.LogCaptureFixture) -> None:
    """The block hides lines; afterwards, and elsewhere, lines appear."""
    with hidden_logs():
        LIBRARY.warning("hidden")
        logging.getLogger("another").warning("of another library")
        thread = threading.Thread(target=LIBRARY.warning, args=["of another thread"])
        thread.start()
        thread.join()
    LIBRARY.info("after the block")
    assert caplog.messages == ["of another library", "of another thread", "after the block"]


def test_error(caplog: pytest.LogCaptureFixture) -> None:
    """An error ends the block, too."""
    with pytest.raises(RuntimeError), hidden_logs():
        raise RuntimeError
    LIBRARY.warning("after the block")
    assert caplog.messages == ["after the block"]
