"""The forwarder's life: it wakes for events, and ends if it cannot start up."""

import os
import signal
import time

import pytest

from support.processes import WAIT_SECONDS
from tbot_otel.run import forwarder
from tbot_otel.run.waker import Waker

# pytest-xdist has threads. The children call nothing that a fork can break.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def test_startup_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forwarder that hangs while it starts is killed, even if tbot ignores and blocks alarms."""
    monkeypatch.setattr(forwarder, "_STARTUP_TIMEOUT_SECONDS", 1)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        forwarder._limit_startup()
        time.sleep(WAIT_SECONDS)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGALRM


@pytest.mark.parametrize("has_pidfd", [True, False])
def test_waker(has_pidfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait ends when it is woken, and when the command exits, and then not again."""
    if not has_pidfd:
        monkeypatch.delattr(os, "pidfd_open")
    command = os.fork()
    if command == 0:
        signal.pause()
    waker = Waker(command)
    before = time.monotonic()
    waker.wake()
    waker.wait(WAIT_SECONDS)
    had_exited = waker.command_has_exited
    os.kill(command, signal.SIGKILL)
    os.waitpid(command, 0)
    while not waker.command_has_exited:
        waker.wait(WAIT_SECONDS)
    assert not had_exited
    assert time.monotonic() - before < WAIT_SECONDS
    exited_at = time.monotonic()
    waker.wait(0.2)
    assert time.monotonic() - exited_at >= 0.2
