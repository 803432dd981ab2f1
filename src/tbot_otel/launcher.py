"""The launcher: starts tbot in this very process, and with consent a forwarder beside it.

It stands between a person and every start of their tbot, so it imports next to nothing: a name
with an underscore is the part of its module that costs no time.
"""

import errno
import os
import sys
import time

from tbot_otel import destination
from tbot_otel.consent import OptInSampler
from tbot_otel.errors import TbotOtelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import NoReturn

ADDRESS = "TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS"

NOT_FOUND = 127
CANNOT_RUN = 126

_BACKLOG = 64
_STREAMS = (0, 1, 2)
# Those that come with this package.
_INSTALLED = ("http/protobuf", "grpc")
_EXTRA = ("connectrpc", "waitress")
_ELSEWHERE = "tbot's report goes where it would without this"


def launch(command: list[str], log: str | None = None) -> int:
    """Become a command, as if it had been started in place of this process.

    With consent, and if there is somewhere to send to, a forwarder is forked first, and the command
    finds its address in `ADDRESS`. Whatever goes wrong with that is a line on standard error, and
    the command starts all the same.

    Args:
        command: The command's words, the first one its path or a name to look for on ``PATH``.
        log: The file that the forwarder appends to.

    Returns:
        `NOT_FOUND` or `CANNOT_RUN`, after one line on standard error: it could not be started.
    """
    problem = None
    forwarded = False
    try:
        _restore_locale()
        if _may_send():
            problem = _missing()
            if problem is None:
                _fork_forwarder(log)
                forwarded = True
    except Exception as error:  # noqa: BLE001 - the command starts all the same
        problem = getattr(error, "strerror", None) or type(error).__name__
    if problem is not None:
        say(f"{_ELSEWHERE}: {problem}")
    return _become(command, forwarded=forwarded)


def say(line: str) -> None:
    """Say a line on standard error, if there is one and it takes it at once."""
    try:
        import select

        # What sys.stderr cannot write it would try again at the end, and that costs the status.
        # (On Windows select takes no stream, and nothing is started.)
        if sys.stderr is not None and (os.name == "nt" or select.select([], [2], [], 0)[1]):
            os.write(2, f"tbot-otel run: {line}\n".encode(errors="backslashreplace"))
    except Exception:  # noqa: BLE001, S110 - the command starts all the same
        pass


def _restore_locale() -> None:
    """Undo what the interpreter does where the C locale is meant: it sets LC_CTYPE (PEP 538)."""
    if "LC_CTYPE" in os.environ:
        before = _locale_before()
        if before is None:
            del os.environ["LC_CTYPE"]
        elif before != os.environ["LC_CTYPE"]:
            os.environ["LC_CTYPE"] = before


def _locale_before() -> str | None:
    """Return the LC_CTYPE that this process was started with; None if there was none."""
    try:
        with open("/proc/self/environ", "rb") as file:
            for entry in file.read().split(b"\0"):
                if entry.startswith(b"LC_CTYPE="):
                    return os.fsdecode(entry.removeprefix(b"LC_CTYPE="))
    except OSError:
        # Elsewhere than on Linux. The interpreter turns both on, or a person one of them.
        if not sys.flags.utf8_mode or "PYTHONUTF8" in os.environ:
            return os.environ["LC_CTYPE"]
    return None


def _may_send() -> bool:
    if not OptInSampler().should_sample().granted:
        return False
    protocol = destination.protocol()
    if protocol not in _INSTALLED:
        try:
            destination.check(protocol)
        except TbotOtelError:
            return False
    if os.environ.get(ADDRESS):
        say(f"{ADDRESS} is set already: tbot's report goes there")
        return False
    return True


def _missing() -> str | None:
    for name in _EXTRA:
        if not any(finder.find_spec(name, None) for finder in sys.meta_path):
            return "it needs the extra: pip install 'tbot-otel[run]'"
    return None


def _fork_forwarder(log: str | None) -> None:
    """Fork the forwarder, and put its address into the environment.

    Raises:
        OSError: There is none.
    """
    import _socket

    # Whatever is opened here is closed when the command starts. It has its three streams or, where
    # one is closed, nothing in its place.
    null = os.open(os.devnull, os.O_RDWR)
    while null in _STREAMS:
        null = os.open(os.devnull, os.O_RDWR)
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        listener.bind(("127.0.0.1", 0))
        listener.listen(_BACKLOG)
        # Another user of this machine can connect, but does not know the path.
        prefix = f"/{os.urandom(16).hex()}"
        _fork(listener, prefix, null, log)
        os.environ[ADDRESS] = f"http://127.0.0.1:{listener.getsockname()[1]}{prefix}"
    finally:
        listener.close()


def _fork(listener: "socket", prefix: str, null: int, log: str | None) -> None:
    import _signal

    journal = None
    if log is not None:
        # A pipe that nobody reads is no reason to wait.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        try:
            journal = os.open(log, flags, 0o600)
        except OSError as error:
            say(f"--log: {error.strerror}")
    kept = (*_STREAMS, listener.fileno(), journal)
    others = [fd for fd in map(int, os.listdir("/dev/fd")) if fd not in kept]
    tbot = os.getpid()
    born = time.monotonic()
    pending = _signal.SIGCHLD in _signal.sigpending()
    child = os.fork()
    if child == 0:
        try:
            for stream in _STREAMS:
                os.dup2(null, stream)
            for descriptor in others:
                _close(descriptor)
            # The command starts after this, and shares nothing with the forwarder.
            _detach()
            from tbot_otel import forwarder

            forwarder.forward(listener.detach(), prefix, tbot=tbot, born=born, journal=journal)
        finally:
            os._exit(0)
    try:
        _, status = os.waitpid(child, 0)
    except ChildProcessError:
        # Where SIGCHLD is ignored, children are reaped by themselves.
        status = 0
    if not pending and _signal.SIGCHLD in _signal.sigpending():
        # Where it is blocked, the command would find it.
        _signal.sigwait({_signal.SIGCHLD})
    if status:
        code = os.waitstatus_to_exitcode(status)
        raise OSError(code, os.strerror(code))


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        # It was that of the listing.
        pass


def _detach() -> None:
    """Leave the command's session, and its children: whoever reaps orphans reaps the forwarder."""
    try:
        os.setsid()
        if os.fork() == 0:
            return
    except OSError as error:
        os._exit(error.errno or 1)
    os._exit(0)


def _become(command: list[str], *, forwarded: bool) -> int:
    path = _find(command[0])
    if path:
        try:
            _execute(path, command, forwarded=forwarded)
        except OSError as error:
            if error.errno != errno.ENOENT:
                say(f"COMMAND: {error.strerror}")
                return CANNOT_RUN
            if os.path.exists(path):
                say("COMMAND: its interpreter is not found")
                return CANNOT_RUN
    say("COMMAND: expected a program's path, or the name of one on PATH")
    return NOT_FOUND


def _find(name: str) -> str:
    """Look for a program as a shell does, and return its path; empty if there is none."""
    if "/" in name or not name:
        return name
    found = ""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder or os.curdir, name)
        if os.path.exists(path) and not os.path.isdir(path):
            if os.access(path, os.X_OK):
                return path
            found = found or path
    return found


def _execute(path: str, command: list[str], *, forwarded: bool) -> "NoReturn":
    import _signal

    # The interpreter has set both, and what they were before cannot be known.
    for name in ("SIGPIPE", "SIGXFSZ"):
        _signal.signal(getattr(_signal, name), _signal.SIG_DFL)
    try:
        os.execv(path, command)
    except OSError as error:
        if not forwarded or error.errno != errno.E2BIG:
            raise
        # Without our variable it may just fit.
        del os.environ[ADDRESS]
        say(f"{_ELSEWHERE}: {error.strerror}")
        os.execv(path, command)
    finally:
        # It is still us, and has something to say.
        _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
