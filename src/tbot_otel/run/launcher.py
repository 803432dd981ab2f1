"""The launcher: with consent it forks a forwarder, then it execs tbot in this process.

Every start of tbot waits for this module, so it imports almost nothing. It uses `_socket` and
`_signal` because `socket` and `signal` take time to import.
"""

import errno
import os
import sys
import time

from tbot_otel.consent import OptInSampler
from tbot_otel.otlp import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence
    from typing import NoReturn

ADDRESS_VARIABLE = "TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS"

EXIT_NOT_FOUND = 127
EXIT_CANNOT_RUN = 126

_BACKLOG = 64
_STANDARD_STREAMS = (0, 1, 2)
_REQUIRED_MODULES = ("connectrpc", "waitress")
_NOT_FORWARDED = "tbot's report is not forwarded, and goes where it would go without tbot-otel"


def launch(
    command: list[str], log_path: str | None = None, allowed_helpers: "Sequence[str]" = ()
) -> int:
    """Replace this process with a command, as if the command had been started directly.

    With consent and a supported protocol, a forwarder is forked first, and the command finds its
    address in `ADDRESS_VARIABLE`. If that fails, standard error gets one line, and the command
    starts anyway.

    Args:
        command: The command's words. The first one is a path, or a name to find on ``PATH``.
        log_path: The file that the forwarder appends its log to.
        allowed_helpers: See `policy.decide`.

    Returns:
        `EXIT_NOT_FOUND` or `EXIT_CANNOT_RUN`, after one line on standard error, if the command
        cannot be started.
    """
    problem = None
    forwarding = False
    try:
        _restore_locale()
        if _should_forward():
            problem = _find_missing_extra()
            if problem is None:
                _start_forwarder(log_path, allowed_helpers)
                forwarding = True
    except Exception as error:  # noqa: BLE001 - the command must start
        problem = getattr(error, "strerror", None) or type(error).__name__
    if problem is not None:
        write_line(f"{_NOT_FORWARDED}: {problem}")
    return _exec_command(command, forwarding=forwarding)


def write_line(line: str) -> None:
    """Write a line to standard error, unless it is closed or would block."""
    try:
        import select

        # Not through sys.stderr: it would retry a failed write at exit and change the exit status.
        # (On Windows, select does not take files, and no command is started.)
        if sys.stderr is not None and (os.name == "nt" or select.select([], [2], [], 0)[1]):
            os.write(2, f"tbot-otel run: {line}\n".encode(errors="backslashreplace"))
    except Exception:  # noqa: BLE001, S110 - the command must start
        pass


def _restore_locale() -> None:
    """Undo PEP 538: in the C locale, the interpreter sets LC_CTYPE in its own environment."""
    if "LC_CTYPE" in os.environ:
        original = _original_lc_ctype()
        if original is None:
            del os.environ["LC_CTYPE"]
        elif original != os.environ["LC_CTYPE"]:
            os.environ["LC_CTYPE"] = original


def _original_lc_ctype() -> str | None:
    """Return the LC_CTYPE that this process was started with; None if it had none."""
    try:
        with open("/proc/self/environ", "rb") as file:
            for entry in file.read().split(b"\0"):
                if entry.startswith(b"LC_CTYPE="):
                    return os.fsdecode(entry.removeprefix(b"LC_CTYPE="))
    except OSError:
        # Not Linux. Without PYTHONUTF8, UTF-8 mode means that the interpreter set LC_CTYPE.
        if not sys.flags.utf8_mode or "PYTHONUTF8" in os.environ:
            return os.environ["LC_CTYPE"]
    return None


def _should_forward() -> bool:
    if not OptInSampler().should_sample():
        return False
    if environment.protocol() not in environment.EXPORTER_MODULES:
        return False
    if os.environ.get(ADDRESS_VARIABLE):
        write_line(f"{ADDRESS_VARIABLE} is already set, so tbot's report goes there")
        return False
    return True


def _find_missing_extra() -> str | None:
    for name in _REQUIRED_MODULES:
        if not any(finder.find_spec(name, None) for finder in sys.meta_path):
            return "expected the extra: pip install 'tbot-otel[run]'"
    return None


def _start_forwarder(log_path: str | None, allowed_helpers: "Sequence[str]") -> None:
    """Fork the forwarder, and set its address in the environment.

    Raises:
        OSError: It cannot be started.
    """
    import _socket

    # The command must find a closed standard stream closed, so no descriptor may take its number.
    null_fd = os.open(os.devnull, os.O_RDWR)
    while null_fd in _STANDARD_STREAMS:
        null_fd = os.open(os.devnull, os.O_RDWR)
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        listener.bind(("127.0.0.1", 0))
        listener.listen(_BACKLOG)
        # Another user of this machine can connect, but does not know the path.
        prefix = f"/{os.urandom(16).hex()}"
        _fork_forwarder(listener, prefix, null_fd, log_path, allowed_helpers)
        os.environ[ADDRESS_VARIABLE] = f"http://127.0.0.1:{listener.getsockname()[1]}{prefix}"
    finally:
        listener.close()


def _fork_forwarder(
    listener: "socket",
    prefix: str,
    null_fd: int,
    log_path: str | None,
    allowed_helpers: "Sequence[str]",
) -> None:
    import _signal

    log_fd = None
    if log_path is not None:
        # Non-blocking: opening a pipe without a reader must not wait.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        try:
            log_fd = os.open(log_path, flags, 0o600)
        except OSError as error:
            write_line(f"--log: {error.strerror}")
    kept_fds = (*_STANDARD_STREAMS, listener.fileno(), log_fd)
    other_fds = [fd for fd in map(int, os.listdir("/dev/fd")) if fd not in kept_fds]
    command_pid = os.getpid()
    forked_at = time.monotonic()
    sigchld_was_pending = _signal.SIGCHLD in _signal.sigpending()
    child = os.fork()
    if child == 0:
        try:
            for stream in _STANDARD_STREAMS:
                os.dup2(null_fd, stream)
            for fd in other_fds:
                _close_if_open(fd)
            _daemonize()
            from tbot_otel.run import forwarder

            forwarder.forward(
                listener.detach(),
                prefix,
                command_pid=command_pid,
                forked_at=forked_at,
                log_fd=log_fd,
                allowed_helpers=allowed_helpers,
            )
        finally:
            os._exit(0)
    try:
        _, status = os.waitpid(child, 0)
    except ChildProcessError:
        # Where SIGCHLD is ignored, the kernel reaps children.
        status = 0
    if not sigchld_was_pending and _signal.SIGCHLD in _signal.sigpending():
        # Where SIGCHLD is blocked, the command would receive it.
        _signal.sigwait({_signal.SIGCHLD})
    if status:
        code = os.waitstatus_to_exitcode(status)
        raise OSError(code, os.strerror(code))


def _close_if_open(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        # It belonged to os.listdir.
        pass


def _daemonize() -> None:
    """Leave the command's session, and stop being its child: init reaps the forwarder."""
    try:
        os.setsid()
        if os.fork() == 0:
            return
    except OSError as error:
        os._exit(error.errno or 1)
    os._exit(0)


def _exec_command(command: list[str], *, forwarding: bool) -> int:
    path = _find_program(command[0])
    if path:
        try:
            _exec(path, command, forwarding=forwarding)
        except OSError as error:
            if error.errno != errno.ENOENT:
                write_line(f"COMMAND: {error.strerror}")
                return EXIT_CANNOT_RUN
            if os.path.exists(path):
                write_line("COMMAND: its interpreter was not found")
                return EXIT_CANNOT_RUN
    write_line("COMMAND: expected a program's path, or the name of a program on PATH")
    return EXIT_NOT_FOUND


def _find_program(name: str) -> str:
    """Find a program as a shell does, and return its path; empty if there is none."""
    if "/" in name or not name:
        return name
    not_executable = ""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder or os.curdir, name)
        if os.path.exists(path) and not os.path.isdir(path):
            if os.access(path, os.X_OK):
                return path
            not_executable = not_executable or path
    return not_executable


def _exec(path: str, command: list[str], *, forwarding: bool) -> "NoReturn":
    import _signal

    # The interpreter ignores both signals at startup. Their original actions are not known.
    for name in ("SIGPIPE", "SIGXFSZ"):
        _signal.signal(getattr(_signal, name), _signal.SIG_DFL)
    try:
        os.execv(path, command)
    except OSError as error:
        if not forwarding or error.errno != errno.E2BIG:
            raise
        # Without the address, the environment may fit.
        del os.environ[ADDRESS_VARIABLE]
        write_line(f"{_NOT_FORWARDED}: {error.strerror}")
        os.execv(path, command)
    finally:
        # The exec failed, and this process still has a line to write.
        _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
