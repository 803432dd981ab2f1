"""Audits the process that imports this at its start: see `tbot_otel.testing`.

The folder is on PYTHONPATH, so that child processes import this too. Each line of the log is a
tuple: the process id, a kind, and what depends on the kind. No function is replaced.
"""

import _thread
import atexit
import contextlib
import ctypes
import importlib
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LOG_VARIABLE = "_TBOT_OTEL_AUDIT_LOG"

# Events that repeat what another event says are not here.
FILE_EVENTS = {
    *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"),
    *("os.removexattr", "os.setxattr", "os.symlink", "os.truncate", "os.utime", "sqlite3.connect"),
}
PROCESS_EVENTS = {
    *("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"),
}
THREAD_EVENTS = {"_thread.start_new_thread", "_thread.start_joinable_thread"}
HAS_THREAD_EVENTS = sys.version_info >= (3, 12)
# These read this machine's own files, and open no socket.
LOCAL_SOCKET_EVENTS = {"socket.gethostname", "socket.getservbyname", "socket.getservbyport"}
SOCKET_FAMILIES = {1: "Unix", 2: "IPv4", 10: "IPv6"}
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# The interpreter's list lacks a module that traceback imports since Python 3.15.
OWN_MODULES = {
    *(*sys.stdlib_module_names, "_missing_stdlib_info"),
    *("__main__", "__mp_main__", "tbot_otel"),
}

THREAD_END_TIMEOUT_SECONDS = 10.0
"""How long a thread that has ended for Python can take to end for the system."""


def next_thread_id() -> int:
    """Return the id that CPython gives to a new thread: 1 more for each, also of native code.

    This takes the id, for the state of a thread that does not exist.
    """
    api = ctypes.pythonapi
    api.PyInterpreterState_Get.restype = api.PyThreadState_New.restype = ctypes.c_void_p
    api.PyThreadState_GetID.restype = ctypes.c_uint64
    state = ctypes.c_void_p(api.PyThreadState_New(ctypes.c_void_p(api.PyInterpreterState_Get())))
    result: int = api.PyThreadState_GetID(state)
    api.PyThreadState_Clear(state)
    api.PyThreadState_Delete(state)
    return result


def open_descriptors() -> "dict[int, str]":
    """Return the open descriptors, and where each leads."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        # The descriptor of the listing itself is closed already.
        with contextlib.suppress(FileNotFoundError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def is_writable(descriptor: int) -> bool:
    """Return whether a descriptor is open for writing."""
    with open(f"/proc/self/fdinfo/{descriptor}") as file:
        flags = next(line.split()[1] for line in file if line.startswith("flags:"))
    return bool(int(flags, 8) & (os.O_WRONLY | os.O_RDWR))


def socket_kind(inode: str) -> str:
    """Return the kind of a socket that has an address or a peer."""
    for name in ("tcp", "tcp6", "udp", "udp6", "unix"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/net/{name}") as file:
            if any(f" {inode} " in f"{line.strip()} " for line in file):
                return name
    return "not connected"


def has_child() -> bool:
    """Return whether this process has, or had, a child process. It leaves a zombie to its owner."""
    import resource

    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0
    return True


def to_text(value: "Any") -> str:
    """Describe an argument of an event: an address, a command, or a path."""
    if isinstance(value, tuple):
        return ":".join(map(str, value[:2]))
    if isinstance(value, list):
        return " ".join(map(to_text, value))
    return os.fsdecode(value) if isinstance(value, bytes | os.PathLike) else str(value)


def active_threads() -> "dict[int, Any]":
    """Return the threads that `threading` knows, by ident; without its lock, as a hook must."""
    return dict(getattr(sys.modules.get("threading"), "_active", {}))


def native_threads() -> "list[str]":
    """Return the names that the system has for the threads that Python did not start."""
    deadline = time.monotonic() + THREAD_END_TIMEOUT_SECONDS
    while True:
        tasks = {*map(int, os.listdir("/proc/self/task"))}
        # The count is of threads that Python has started. It is private, and in every CPython.
        if len(tasks) <= 1 + _thread._count() or time.monotonic() > deadline:  # noqa: SLF001
            break
        time.sleep(0.01)
    names = []
    for task in tasks - {os.getpid(), *(thread.native_id for thread in active_threads().values())}:
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/task/{task}/comm") as file:
            names.append(file.read().strip())
    return names


def thread_name(function: "Any") -> str:
    """Return the name of the function that a thread runs."""
    thread = getattr(function, "__self__", None)
    threading = sys.modules.get("threading")
    if threading and isinstance(thread, threading.Thread):
        function = getattr(thread, "_target", None) or type(thread).run
    kind = type(function)
    return ".".join(
        getattr(function, name, getattr(kind, name)) for name in ("__module__", "__qualname__")
    )


class Audit:
    """The audit of this process, and of those that it forks."""

    def __init__(self, log: str) -> None:
        self._log = log
        self._auditing: set[int] = set()
        self._modules = {name for name in sys.modules if not name.startswith("opentelemetry")}

    def start(self) -> None:
        """Begin the audit of a process."""
        self._events: dict[str, None] = {}
        self._named_threads: dict[int, None] = {}
        self._popen: str | None = None
        self._main_thread = _thread.get_ident()
        self._first_descriptors = {*open_descriptors().values()}
        self._last_thread_id = next_thread_id()
        with open("/proc/self/cmdline", "rb") as file:
            command = file.read().removesuffix(b"\0").replace(b"\0", b" ")
        self._write("start", os.fsdecode(command))

    def hook(self, event: str, arguments: "tuple[Any, ...]") -> None:
        """Note an audit event."""
        self.without_audit(self._note, event, arguments)

    def without_audit(self, function: "Callable[..., object]", *arguments: object) -> None:
        """Call a function of the audit, and do not audit it."""
        ident = _thread.get_ident()
        if ident not in self._auditing:
            self._auditing.add(ident)
            try:
                function(*arguments)
            finally:
                self._auditing.discard(ident)

    def _write(self, *values: object) -> None:
        # It is opened for each line: a program may close descriptors that it does not know.
        line = f"{(os.getpid(), *values)!r}\n".encode("utf-8", "backslashreplace")
        descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def _note(self, event: str, arguments: "tuple[Any, ...]") -> None:
        ident = _thread.get_ident()
        if ident != self._main_thread and not HAS_THREAD_EVENTS:
            self._note_running_thread(ident)
        if event in THREAD_EVENTS:
            self._named_threads[len(self._named_threads)] = None
            self._write("thread", thread_name(arguments[0]))
            return
        if event == "open" and not arguments[2] & WRITE_FLAGS:
            return
        self._events[event] = None
        if event in ("import", "exec"):
            self._note_modules()
        elif event == "open" or event in FILE_EVENTS:
            # A number is a descriptor that is open already.
            if arguments[0] != os.devnull and not isinstance(arguments[0], int):
                self._write("file", f"{event} {to_text(arguments[0])}")
        elif event == "socket.__new__":
            family = SOCKET_FAMILIES.get(arguments[1], f"family {arguments[1]}")
            self._write("socket", f"open ({family})")
        elif event.startswith("socket.") and event not in LOCAL_SOCKET_EVENTS:
            # The first argument of most is the socket.
            values = [value for value in arguments if isinstance(value, str | bytes | int | tuple)]
            self._write("socket", f"{event[7:]} {':'.join(map(to_text, values[:2]))}")
        elif event in PROCESS_EVENTS:
            words = arguments[1] if len(arguments) > 1 else "".join(map(to_text, arguments))
            command = to_text([*words] if isinstance(words, tuple) else words)
            # Since Python 3.13, subprocess may call os.posix_spawn.
            if (event, command) != ("os.posix_spawn", self._popen):
                self._write("process", f"{event} {command}".rstrip())
            self._popen = command if event == "subprocess.Popen" else None
            if event == "os.exec":
                self.end()

    def _note_running_thread(self, ident: int) -> None:
        # Python 3.11 has no event for a new thread, but for what it does.
        thread = active_threads().get(ident)
        if thread and ident not in self._named_threads:
            self._named_threads[ident] = None
            self._write("thread", thread_name(thread.run))

    def _note_modules(self) -> None:
        new = {*sys.modules} - self._modules
        self._modules |= new
        for name in sorted(new):
            if name.partition(".")[0] not in OWN_MODULES:
                self._write("import", name)

    def end(self) -> None:
        """Look at what has no event: native threads, and what native code has opened."""
        self._note_modules()
        found = []
        for descriptor, target in open_descriptors().items():
            if target in self._first_descriptors or target == os.devnull:
                continue
            # Native code may close it meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if target.startswith("socket:"):
                    found.append(("socket", f"{target} is open ({socket_kind(target[8:-1])})"))
                elif is_writable(descriptor):
                    found.append(("file", f"{target} is open"))
        found += [("thread", f"{name} (native)") for name in native_threads()]
        thread_id = next_thread_id()
        count = thread_id - self._last_thread_id - 1 - len(self._named_threads)
        self._last_thread_id += 1
        found += [("thread", "a thread that ran Python")] * count
        self._write("end", found, [*self._events], has_child())


def import_next() -> None:
    """Import the sitecustomize that this one hides."""
    own = sys.modules.pop("sitecustomize")
    sys.path.remove(os.path.dirname(__file__))
    try:
        importlib.import_module("sitecustomize")
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        sys.modules.setdefault("sitecustomize", own)


if LOG_VARIABLE in os.environ:
    import_next()
    _audit = Audit(os.environ[LOG_VARIABLE])
    _audit.start()
    os.register_at_fork(after_in_child=lambda: _audit.without_audit(_audit.start))
    # Registered first, it is called last.
    atexit.register(lambda: _audit.without_audit(_audit.end))
    sys.addaudithook(_audit.hook)
