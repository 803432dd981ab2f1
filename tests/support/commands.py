"""Run commands in the process of the test."""

import contextlib
import io
import signal
import subprocess
from pathlib import Path

from tbot_otel.cli import main


def run_main(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command, and capture its output. Bytes that are not UTF-8 become surrogates.

    Args:
        words: The words after the program's name.
    """
    # `report` changes them.
    signals = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.getsignal(number) for number in signals}
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            status = main([*map(str, words)])
    except SystemExit as exited:
        status = int(str(exited.code))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    texts = []
    for stream in (stdout, stderr):
        stream.flush()
        stream.seek(0)
        texts.append(stream.buffer.read().decode(errors="surrogateescape"))
    return subprocess.CompletedProcess(words, status, *texts)
