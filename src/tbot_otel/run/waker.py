"""What the forwarder waits for."""

import contextlib
import math
import os
import select

# Where the system cannot tell that tbot has exited.
_POLL_INTERVAL_SECONDS = 0.1


class Waker:
    """Wakes the forwarder: when tbot has exited, when something has happened, or at a deadline.

    Args:
        command_pid: The process id of tbot, which is not a child of this process.

    Attributes:
        command_has_exited: Whether tbot has exited.
    """

    def __init__(self, command_pid: int) -> None:
        self.command_has_exited: bool = False
        self._pid = command_pid
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._poll = select.poll()
        self._poll.register(self._read_fd, select.POLLIN)
        self._pidfd: int | None = None
        # Only Linux has pidfd_open, and it fails if the process has exited.
        with contextlib.suppress(AttributeError, OSError):
            self._pidfd = os.pidfd_open(command_pid)
            self._poll.register(self._pidfd, select.POLLIN)

    def wake(self) -> None:
        """End the wait: something has happened."""
        # If the pipe is full, the wait ends anyway.
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_fd, b"\0")

    def wait(self, seconds: float) -> None:
        """Wait for the next event, for at most this long."""
        if self._pidfd is None and not self.command_has_exited:
            seconds = min(seconds, _POLL_INTERVAL_SECONDS)
            self.command_has_exited = not _is_running(self._pid)
        for fd, _ in self._poll.poll(max(0, math.ceil(seconds * 1000))):
            if fd == self._pidfd:
                self.command_has_exited = True
                self._poll.unregister(fd)
            else:
                os.read(fd, select.PIPE_BUF)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # It runs as another user now.
        pass
    return True
