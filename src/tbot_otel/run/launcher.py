"""The launcher: with consent it forks a forwarder, then it execs tbot in this process.

Every start of tbot waits for this module, so it imports almost nothing. It uses `_socket` and
`_signal` because `socket` and `signal` take time to import.
"""

import errno
import os
import sys
import time

from tbot_otel.consent import OPT_IN, Consent, OptInSampler
from tbot_otel.errors import missing_extra
from tbot_otel.otlp import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence
    from typing import NoReturn

ADDRESS_VARIABLE = "TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS"

EXIT_USAGE = 2
EXIT_NOT_FOUND = 127
EXIT_CANNOT_RUN = 126

# What the command is told about its report: a forwarder's address, not to report, or nothing.
ADDRESS = "address"
OPT_OUT = "opt_out"
NOTHING = "nothing"

_BACKLOG = 64
_STANDARD_STREAMS = (0, 1, 2)
# A forwarder has about ten threads and 40 MiB.
_MIN_FREE_TASKS = 64
_MIN_FREE_BYTES = 64 * 2**20
_UNLIMITED = float("inf")
_REQUIRED_MODULES = ("connectrpc", "waitress")


class Options:
    """What the forwarder does besides forwarding.

    Attributes:
        log_path: The file that it appends its log to; ``-`` for standard error, None for no log.
        record_path: The file that it appends each export to; None for none.
        dry_run: Whether it responds to tbot without sending anything.
        allowed_helpers: See `policy.decide`.
    """

    __slots__ = ("allowed_helpers", "dry_run", "log_path", "record_path")

    def __init__(self) -> None:
        self.log_path: str | None = None
        self.record_path: str | None = None
        self.dry_run: bool = False
        self.allowed_helpers: list[str] = []


class _UsageError(Exception):
    """An option cannot be used."""


def launch(command: list[str], options: Options) -> int:
    """Replace this process with a command, as if the command had been started directly.

    With consent, a forwarder is forked first, and the command finds its address in
    `ADDRESS_VARIABLE`. If that fails, the command is told not to report, and standard error gets
    one line.

    Args:
        command: The command's words. The first one is a path, or a name to find on ``PATH``.
        options: What the forwarder does.

    Returns:
        `EXIT_NOT_FOUND`, `EXIT_CANNOT_RUN` or `EXIT_USAGE`, after one line on standard error, if
        the command cannot be started.
    """
    forwarding = False
    try:
        _restore_locale()
        consent = OptInSampler().should_sample()
        told, reason = choose_instruction(consent)
        if options.dry_run and not consent:
            write_line(f"--dry-run has nothing to show: {reason}")
        if told == ADDRESS:
            _start_forwarder(options)
            forwarding = True
        elif consent and told == OPT_OUT:
            _forbid_report(reason)
        elif consent:
            write_line(reason)
        elif told == OPT_OUT:
            os.environ[OPT_IN] = "0"
    except _UsageError as error:
        write_line(str(error))
        return EXIT_USAGE
    except Exception as error:  # noqa: BLE001 - the command must start
        _forbid_report(getattr(error, "strerror", None) or type(error).__name__)
    return _exec_command(command, forwarding=forwarding)


def _forbid_report(problem: str) -> None:
    os.environ[OPT_IN] = "0"
    write_line(f"tbot makes no report: {problem}")


def write_line(line: str) -> None:
    """Write a line to standard error, unless it is closed or would block."""
    try:
        import select

        from tbot_otel.streams import printable

        # Not through sys.stderr: it would retry a failed write at exit and change the exit status.
        # (On Windows, select does not take files, and no command is started.)
        if sys.stderr is not None and (os.name == "nt" or select.select([], [2], [], 0)[1]):
            os.write(2, f"tbot-otel run: {printable(line)}\n".encode())
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


def choose_instruction(consent: Consent) -> tuple[str, str]:
    """Return what the command is told, and the reason. This changes nothing.

    Args:
        consent: The consent as it is now.

    Returns:
        `ADDRESS` if a forwarder has to be started, `OPT_OUT` if the command must not report, else
        `NOTHING`.
    """
    if not consent:
        # tbot does not know the other variables.
        return NOTHING if consent.variable == OPT_IN else OPT_OUT, consent.reason
    if os.environ.get(ADDRESS_VARIABLE):
        return NOTHING, f"{ADDRESS_VARIABLE} is already set, so tbot's report goes there"
    problem = _find_problem()
    return (ADDRESS, consent.reason) if problem is None else (OPT_OUT, problem)


def _find_problem() -> str | None:
    """Return why a report could not be sent, as far as that is known without an import of ours."""
    if not hasattr(os, "fork"):
        return "expected Linux or macOS"
    for name in _REQUIRED_MODULES:
        if not _is_installed(name):
            return missing_extra("run")
    protocol = environment.protocol()
    module = environment.EXPORTER_MODULES.get(protocol)
    if module is None:
        return environment.unsupported_protocol()
    parent, _, _ = module.rpartition(".")
    try:
        # A namespace without code. importlib.util.find_spec takes longer to import.
        path = __import__(parent, fromlist=[""]).__path__
    except ImportError:
        path = []
    if not _is_installed(module, path):
        return environment.missing_package(protocol)
    return _find_shortage()


def _find_shortage() -> str | None:
    """Return the limit that leaves too little for COMMAND and a forwarder together."""
    # The limit of processes and threads. It is -1 if there is none, and does not bind root.
    if os.geteuid() != 0 and 0 <= os.sysconf("SC_CHILD_MAX") < _MIN_FREE_TASKS:
        return f"fewer than {_MIN_FREE_TASKS} processes are allowed"
    group = _control_group()
    if _free(group, "pids") < _MIN_FREE_TASKS:
        return f"the control group has room for fewer than {_MIN_FREE_TASKS} processes"
    # Otherwise the kernel kills the forwarder alone.
    if _read_number(f"{group}/memory.oom.group") == 1 and (
        _free(group, "memory") < _MIN_FREE_BYTES
    ):
        return f"the control group has less than {_MIN_FREE_BYTES >> 20} MiB of memory left"
    return None


def _control_group() -> str:
    """Return the folder of this process's control group (version 2), if it has one."""
    try:
        with open("/proc/self/cgroup") as file:
            for line in file:
                if line.startswith("0::"):
                    return f"/sys/fs/cgroup{line[3:].strip()}"
    except OSError:
        pass
    return ""


def _free(group: str, resource: str) -> float:
    """Return how much of a resource a control group has left."""
    return _read_number(f"{group}/{resource}.max") - (
        _read_number(f"{group}/{resource}.current", default=0)
    )


def _read_number(path: str, default: float = _UNLIMITED) -> float:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        # There is no such file, or no limit: "max".
        return default


def _is_installed(name: str, path: "Sequence[str] | None" = None) -> bool:
    return any(finder.find_spec(name, path) for finder in sys.meta_path)


def _start_forwarder(options: Options) -> None:
    """Fork the forwarder, and set its address in the environment.

    Raises:
        OSError: It cannot be started.
    """
    import _socket

    # If a standard stream is closed, the command must find it closed: keep off its descriptor.
    null_fd = os.open(os.devnull, os.O_RDWR)
    while null_fd in _STANDARD_STREAMS:
        null_fd = os.open(os.devnull, os.O_RDWR)
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        listener.bind(("127.0.0.1", 0))
        listener.listen(_BACKLOG)
        # Another user of this machine can connect, but does not know the path.
        prefix = f"/{os.urandom(16).hex()}"
        _fork_forwarder(listener, prefix, null_fd, options)
        os.environ[ADDRESS_VARIABLE] = f"http://127.0.0.1:{listener.getsockname()[1]}{prefix}"
    finally:
        listener.close()


def _fork_forwarder(listener: "socket", prefix: str, null_fd: int, options: Options) -> None:
    import _signal

    log_fd = _open("--log", options.log_path)
    record_fd = _open("--record", options.record_path, must_open=options.dry_run)
    kept_fds = (*_STANDARD_STREAMS, listener.fileno(), log_fd, record_fd)
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
                record_fd=record_fd,
                dry_run=options.dry_run,
                allowed_helpers=options.allowed_helpers,
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


def _open(option: str, path: str | None, *, must_open: bool = False) -> int | None:
    """Open the file of an option for appending, and return its descriptor; None if that fails.

    Raises:
        _UsageError: It fails, and the file is necessary.
    """
    if path is None:
        return None
    from tbot_otel import files

    try:
        return os.dup(2) if path == "-" else files.open_for_appending(path)
    except OSError as error:
        if must_open:
            raise _UsageError(f"{option}: {error.strerror}") from None
        write_line(f"{option}: {error.strerror}")
    return None


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
                write_line(f"{command[0]}: {error.strerror}")
                return EXIT_CANNOT_RUN
            if os.path.exists(path):
                write_line(f"{command[0]}: its interpreter was not found")
                return EXIT_CANNOT_RUN
    write_line(f"{command[0]}: command not found")
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
        _forbid_report(os.strerror(errno.E2BIG))
        os.execv(path, command)
    finally:
        # The exec failed, and this process still has a line to write.
        _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
