"""The launcher: starts tbot in this very process, and with consent a forwarder beside it.

It stands between a person and every start of their tbot, so it imports next to nothing: a name
with an underscore is the part of its module that costs no time.
"""

import os
import sys
import time

from tbot_otel import destination
from tbot_otel.consent import OptInSampler
from tbot_otel.errors import TbotOtelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

ADDRESS = "TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS"

NOT_FOUND = 127
CANNOT_RUN = 126

_BACKLOG = 64
_STREAMS = (0, 1, 2)
# Those that come with this package.
_INSTALLED = ("http/protobuf", "grpc")
_EXTRA = ("connectrpc", "waitress")


def launch(command: list[str], log: str | None = None) -> int:
    """Become a command, as if it had been started in place of this process.

    With consent, and if there is somewhere to send to, a forwarder is forked first, and the command
    finds its address in `ADDRESS`. Whatever goes wrong with that is one line on standard error, and
    the command starts all the same.

    Args:
        command: The command's words, the first one its path or a name to look for on ``PATH``.
        log: The file that the forwarder appends to.

    Returns:
        `NOT_FOUND` or `CANNOT_RUN`, after one line on standard error: it could not be started.
    """
    _undo_interpreter()
    if _may_send():
        problem = _missing()
        if problem is None:
            try:
                _fork_forwarder(log)
            except OSError as error:
                problem = error.strerror or type(error).__name__
        if problem is not None:
            say(f"the start is not reported: {problem}")
    return _become(command)


def say(line: str) -> None:
    """Say a line on standard error, if there is one that takes it."""
    if sys.stderr is not None:
        try:
            print(f"tbot-otel run: {line}", file=sys.stderr, flush=True)
        except OSError:
            pass


def _undo_interpreter() -> None:
    """Undo what the interpreter has changed of what a command inherits."""
    import _signal

    # What it was before cannot be known. A Go program such as tbot sets both for itself.
    for name in ("SIGPIPE", "SIGXFSZ"):
        _signal.signal(getattr(_signal, name), _signal.SIG_DFL)
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    # In the C locale it sets LC_CTYPE (https://peps.python.org/pep-0538/).
    if "LC_CTYPE" in os.environ and _is_coerced():
        del os.environ["LC_CTYPE"]


def _is_coerced() -> bool:
    try:
        with open("/proc/self/environ", "rb") as file:
            return b"\0LC_CTYPE=" not in b"\0" + file.read()
    except OSError:
        # Elsewhere than on Linux. The interpreter turns both on, or a person one of them.
        return bool(sys.flags.utf8_mode) and "PYTHONUTF8" not in os.environ


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
        say(f"{ADDRESS} is set already, and left as it is")
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
    listener.bind(("127.0.0.1", 0))
    listener.listen(_BACKLOG)
    # Another user of this machine can connect, but does not know the path.
    prefix = f"/{os.urandom(16).hex()}"
    journal = None
    if log is not None:
        # A pipe that nobody reads is no reason to wait.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        journal = os.open(log, flags, 0o600)
    kept = (*_STREAMS, null, listener.fileno(), journal)
    others = [fd for fd in map(int, os.listdir("/dev/fd")) if fd not in kept]
    tbot = os.getpid()
    born = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            _detach()
            for stream in _STREAMS:
                os.dup2(null, stream)
            for descriptor in others:
                _close(descriptor)
            from tbot_otel import forwarder

            forwarder.forward(listener.detach(), prefix, tbot=tbot, born=born, journal=journal)
        finally:
            os._exit(0)
    try:
        _, status = os.waitpid(child, 0)
    except ChildProcessError:
        # Where SIGCHLD is ignored, children are reaped by themselves.
        status = 0
    if status:
        code = os.waitstatus_to_exitcode(status)
        raise OSError(code, os.strerror(code))
    os.environ[ADDRESS] = f"http://127.0.0.1:{listener.getsockname()[1]}{prefix}"
    listener.close()


def _detach() -> None:
    """Leave the command's session, and its children: whoever reaps orphans reaps the forwarder."""
    try:
        os.setsid()
        if os.fork() == 0:
            return
    except OSError as error:
        os._exit(error.errno or 1)
    os._exit(0)


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        # It was that of the listing.
        pass


def _become(command: list[str]) -> int:
    """Look for the command as a shell does, and become it."""
    name = command[0]
    folders = [""] if "/" in name else os.environ.get("PATH", os.defpath).split(os.pathsep)
    problem = None
    for folder in folders:
        path = os.path.join(folder, name)
        try:
            _execute(path, command)
        except (OSError, ValueError) as error:
            if name and os.path.lexists(path):
                problem = getattr(error, "strerror", None) or type(error).__name__
    if problem is None:
        say("COMMAND: expected a program's path, or the name of one on PATH")
        return NOT_FOUND
    say(f"COMMAND: {problem}")
    return CANNOT_RUN


def _execute(path: str, command: list[str]) -> "NoReturn":
    import errno

    try:
        os.execv(path, command)
    except OSError as error:
        if error.errno != errno.E2BIG or os.environ.pop(ADDRESS, None) is None:
            raise
    # Without our variable it may just fit.
    os.execv(path, command)
