"""`tbot-otel run` starts the command as if it had been started directly."""

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from support.collectors import Collector
from support.processes import WAIT_SECONDS, run_python, wait_until

RUN = [os.fsencode(sys.executable), b"-m", b"tbot_otel", b"run", b"--"]
PYTHON = [os.fsencode(sys.executable), b"-I", b"-S", b"-c"]
ADDRESS_PREFIX = b"TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS="

# Calls execvpe itself: subprocess accepts only valid environments and restores fewer signals.
EXEC_SCRIPT = """\
import ctypes, fcntl, os, resource, signal, termios

argv, environ = {argv!r}, {environ!r}
# A shell or nohup may ignore the first three in the background; the interpreter ignores the rest.
for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGPIPE", "SIGXFSZ"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
libc = ctypes.CDLL(None)

def exec_command():
    strings = [(ctypes.c_char_p * (len(words) + 1))(*words) for words in (argv, environ)]
    libc.execvpe(argv[0], *strings)

{setup}
exec_command()
"""


def start_process(
    argv: list[bytes],
    environ: list[bytes],
    setup: str = "",
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
    pass_fds: tuple[int, ...] = (),
    new_session: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a command.

    Args:
        argv: Its words. The first one is found on this process's ``PATH``.
        environ: Its environment, byte for byte.
        setup: Python code that prepares the process before exec.
        stdin: Its standard input.
        stdout: Its standard output.
        stderr: Its standard error.
        pass_fds: Other descriptors that it inherits.
        new_session: Whether it leads a new session.
    """
    script = EXEC_SCRIPT.format(argv=argv, environ=environ, setup=setup)
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        start_new_session=new_session,
    )


@contextlib.contextmanager
def killed_at_end(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Kill a process at the end of the block, and close its pipes."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def output_of(argv: list[bytes], environ: list[bytes], setup: str = "") -> bytes:
    """The standard output of a command that succeeds and writes nothing to standard error."""
    with killed_at_end(start_process(argv, environ, setup)) as process:
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, b"")
    return stdout


def read_until(fd: int, expected: bytes) -> None:
    """Read from a descriptor until the expected bytes have arrived."""
    deadline = time.monotonic() + WAIT_SECONDS
    received = b""
    while expected not in received:
        ready, _, _ = select.select([fd], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"nothing arrived after {received!r}"
        more = os.read(fd, 4096)
        assert more, f"the end came after {received!r}"
        received += more


def environment_entries(collector: Collector, consent: str) -> list[bytes]:
    """A minimal environment for a report."""
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONWARNINGS": "error",
        "TELEPORT_ANONYMOUS_TELEMETRY": consent,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint("http/protobuf"),
    }
    return [os.fsencode(f"{name}={value}") for name, value in variables.items()]


@pytest.fixture
def opted_in_environ(collector: Collector) -> list[bytes]:
    """An environment with consent."""
    return environment_entries(collector, "1")


@pytest.fixture(params=["0", "1"], ids=["refused", "opted in"])
def environ(request: pytest.FixtureRequest, collector: Collector) -> list[bytes]:
    """An environment without and with consent."""
    return environment_entries(collector, request.param)


# Prints what the kernel knows, without an interpreter in between.
PRINT_PROC = [b"head", b"-v", b"-c1M"]
PRINT_PROC += [b"/proc/self/" + name for name in (b"status", b"stat", b"limits", b"oom_score_adj")]
PRINT_PROC += [b"/proc/self/" + name for name in (b"timerslack_ns", b"personality", b"cgroup")]
STATUS_LINES = {"Umask", "PPid", "Uid", "Gid", "Groups", "Threads", "NoNewPrivs", "Seccomp"}
STATUS_LINES |= {"SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "Cpus_allowed", "Mems_allowed"}
STATUS_LINES |= {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}
# proc_pid_stat(5) counts from 1: ppid pgrp session tty_nr tpgid, priority nice num_threads,
# rt_priority policy.
STAT_FIELDS = [*range(4, 9), *range(18, 21), 40, 41]


def kernel_state(argv: list[bytes], environ: list[bytes], setup: str = "") -> dict[str, object]:
    """The kernel's information about a command, with its process id replaced with 0."""
    with killed_at_end(start_process([*argv, *PRINT_PROC], environ, setup)) as process:
        stdout, _ = process.communicate(timeout=60)
    parts = re.split(r"\n?==> /proc/self/(\w+) <==\n", stdout.decode())[1:]
    found: dict[str, object] = dict(zip(parts[::2], parts[1::2], strict=True))
    lines = dict(line.split(":\t", 1) for line in parts[1].splitlines())
    assert int(lines["Pid"]) == process.pid
    found["status"] = {name: lines[name] for name in STATUS_LINES}
    fields = parts[3].split()
    numbers = [int(fields[at - 1]) for at in STAT_FIELDS]
    found["stat"] = [0 if number == process.pid else number for number in numbers]
    return found


SETUPS = {
    "plain": "",
    "umask": "os.umask(0o123)",
    "own session": "os.setsid()",
    "own group": "os.setpgid(0, 0)",
    "nice": "os.nice(5)",
    "scheduler": "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))",
    "processor": "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
    "out of memory": "open('/proc/self/oom_score_adj', 'w').write('500')",
    "timer slack": "libc.prctl(29, 12345)",
    "personality": "libc.personality(0x40000)",
    "no new privileges": "libc.prctl(38, 1, 0, 0, 0)",
    "limits": """\
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 64))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_CPU, (60, 61))
resource.setrlimit(resource.RLIMIT_STACK, (2**19, 2**20))""",
    **{
        f"{name} ignored": f"signal.signal(signal.{name}, signal.SIG_IGN)"
        for name in ("SIGINT", "SIGHUP", "SIGCHLD", "SIGTERM", "SIGTSTP", "SIGRTMIN")
    },
    "all signals ignored": """\
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    if number not in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)""",
    "signals blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "signals pending": """\
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
for name in ("SIGINT", "SIGTERM", "SIGCHLD", "SIGUSR1", "SIGRTMIN"):
    os.kill(os.getpid(), getattr(signal, name))""",
}


@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS)
def test_process(setup: str, environ: list[bytes]) -> None:
    """The launcher does not change the kernel's information about the process, or its id."""
    assert kernel_state(RUN, environ, setup) == kernel_state([], environ, setup)


def test_sigpipe_and_sigxfsz(environ: list[bytes]) -> None:
    """The two signals that the interpreter ignores at startup have their default action."""
    setup = """\
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"""
    assert kernel_state(RUN, environ, setup) == kernel_state([], environ)


PRINT_DESCRIPTORS = b"""\
import fcntl, os, sys
found = []
for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
    try:
        link = os.readlink(f"/proc/self/fd/{fd}")
        flags = [fcntl.fcntl(fd, name) for name in (fcntl.F_GETFD, fcntl.F_GETFL)]
    except OSError:  # it belonged to os.listdir
        continue
    try:
        position = os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        position = None
    found.append((fd, link, flags, position))
open(sys.argv[1], "w").write(repr(found))
"""


@pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_descriptors(closed: tuple[int, ...], environ: list[bytes], tmp_path: Path) -> None:
    """Open descriptors are the same: standard streams, gaps, files, pipes and sockets."""
    found = tmp_path / "found"
    reading, writing = os.pipe()
    with (
        (tmp_path / "log").open("ab") as log,
        socket.create_server(("127.0.0.1", 0)) as listener,
        os.fdopen(reading, "rb"),
        os.fdopen(writing, "wb"),
    ):
        log.write(b"before")
        log.flush()
        setup = f"""\
os.dup2({listener.fileno()}, 103)
os.dup2({writing}, 107)
os.set_blocking({writing}, False)
os.closerange(3, 100)
os.dup2(103, 3)
os.dup2(107, 7)
for stream in {closed}:
    os.close(stream)"""
        seen = []
        for argv in ([], RUN):
            command = [*argv, *PYTHON, PRINT_DESCRIPTORS, os.fsencode(found)]
            process = start_process(
                command,
                environ,
                setup,
                stdin=reading,
                stdout=writing,
                stderr=log,
                pass_fds=(listener.fileno(), writing),
            )
            with killed_at_end(process):
                assert process.wait(60) == 0
            seen.append(found.read_text())
    assert seen[0] == seen[1]
    assert seen[0].count("socket:") == 2


ENVIRONMENTS = [
    [],
    [b"LANG=C"],
    [b"LC_ALL=C"],
    [b"LC_ALL="],
    [b"LANG=none.none"],
    [b"LC_CTYPE="],
    [b"LC_CTYPE=C"],
    [b"LC_CTYPE=POSIX", b"LAST=1"],
    [b"LC_CTYPE=C.UTF-8", b"LAST=1"],
    [b"LC_CTYPE=C.UTF-8", b"LC_CTYPE=C"],
    [b"LC_CTYPE=none.none"],
    [b"PYTHONUTF8=0"],
    [b"PYTHONUTF8=1"],
    [b"PYTHONCOERCECLOCALE=0"],
    [b"PYTHONCOERCECLOCALE=1", b"LC_CTYPE=C"],
    [b"PYTHONDONTWRITEBYTECODE=1", b"PYTHONHASHSEED=0", b"PYTHONUNBUFFERED=1"],
    [b"B\xff=\xfe", b"EMPTY=", b"A=\n", b"LAST=a=b"],
    [b"TWICE=1", b"NOTHING", b"TWICE=2", b"", b"=", b"=C:=", b"LAST=1"],
    [ADDRESS_PREFIX],
    [b"LONG=" + b"x" * 100_000],
]


@pytest.mark.parametrize("more", ENVIRONMENTS, ids=lambda more: repr(more)[:60])
def test_environment(more: list[bytes], environ: list[bytes]) -> None:
    """The environment is the same byte for byte, except for the address with consent."""
    before = [*environ, *more]
    seen = output_of([*RUN, b"cat", b"/proc/self/environ"], before).removesuffix(b"\0").split(b"\0")
    if b"TELEPORT_ANONYMOUS_TELEMETRY=1" in environ:
        (address,) = (entry for entry in seen if entry.startswith(ADDRESS_PREFIX))
        assert re.fullmatch(ADDRESS_PREFIX + rb"http://127\.0\.0\.1:\d+/[0-9a-f]{32}", address)
        seen.remove(address)
        before = [entry for entry in before if entry != ADDRESS_PREFIX]
    assert seen == before


@pytest.mark.parametrize(
    "words",
    [
        [],
        [b""],
        [b"\xff\xfe", b"a b", b"\n\t", b"\xc3\xa9", b"$HOME", b"*"],
        [b"-x", b"--", b"--log", b"--log=x", b"--help", b"run"],
        [b"x" * 10_000] * 10,
    ],
    ids=["none", "empty", "odd", "options", "long"],
)
def test_arguments(words: list[bytes], environ: list[bytes]) -> None:
    """Arguments are the same byte for byte, including the command's name."""
    command = [b"sh", b"-c", b"cat /proc/$$/cmdline; readlink /proc/$$/exe /proc/$$/cwd", *words]
    assert output_of([*RUN, *command], environ) == output_of(command, environ)


def test_deleted_working_directory(environ: list[bytes]) -> None:
    """The command keeps a working directory that was deleted."""
    setup = """\
import tempfile
folder = tempfile.mkdtemp()
os.chdir(folder)
os.rmdir(folder)"""
    seen = output_of([*RUN, b"readlink", b"/proc/self/cwd"], environ, setup)
    assert seen.endswith(b" (deleted)\n")


def test_environment_too_large_for_the_address(
    opted_in_environ: list[bytes], tmp_path: Path
) -> None:
    """If the address does not fit into the environment, the command starts, and may not report."""
    # A program's path counts, and a long one lets the launcher itself start.
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    (folder / "environment").symlink_to("/usr/bin/env")
    opted_in_environ[0] = b"PATH=" + os.fsencode(folder)
    # The smallest limit of Linux, 128 KiB.
    setup = f"""\
resource.setrlimit(resource.RLIMIT_STACK, (2**19, 2**19))
os.environ["PATH"] = {str(folder)!r}
environ.append(b"FILL=" + b"x" * %d)"""
    shortened = """
while True:
    exec_command()
    environ[-1] = environ[-1][:-8]"""
    direct = output_of([b"environment"], opted_in_environ, setup % 131_000 + shortened)
    setup %= direct.count(b"x", direct.index(b"FILL="))
    with killed_at_end(start_process([*RUN, b"environment"], opted_in_environ, setup)) as process:
        stdout, stderr = process.communicate(timeout=60)
    # The command must not report elsewhere.
    opt_in = b"TELEPORT_ANONYMOUS_TELEMETRY="
    assert stdout == direct.replace(opt_in + b"1", opt_in + b"0")
    assert stderr.endswith(b": Argument list too long\n")


@pytest.mark.parametrize("status", [0, 1, 2, 120, 126, 127, 128, 130, 255])
def test_exit_status(status: int, environ: list[bytes]) -> None:
    """The exit status is the command's."""
    with killed_at_end(
        start_process([*RUN, b"sh", b"-c", b"exit %d" % status], environ)
    ) as process:
        assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == status


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL", "SIGPIPE", "SIGABRT", "SIGRTMAX"])
def test_death_by_signal(name: str, environ: list[bytes]) -> None:
    """The launcher's parent sees the signal that killed the command."""
    number = signal.Signals[name]
    command = [b"sh", b"-c", b"ulimit -c 0; kill -%d $$" % number]
    with killed_at_end(start_process([*RUN, *command], environ)) as process:
        assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == -number


def test_no_child(environ: list[bytes]) -> None:
    """The command has no children that it did not start, running or zombie."""
    wait = b"""\
import os
try:
    print(os.wait())
except ChildProcessError:
    print("none")"""
    assert output_of([*RUN, *PYTHON, wait], environ) == b"none\n"


def test_notify(environ: list[bytes], tmp_path: Path) -> None:
    """A readiness notification comes from the main process of the service."""
    notify = b"""\
import os, socket
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
    manager.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])"""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.settimeout(WAIT_SECONDS)
        environ.append(os.fsencode(f"NOTIFY_SOCKET={path}"))
        with killed_at_end(start_process([*RUN, *PYTHON, notify], environ)) as process:
            assert process.communicate(timeout=60) == (b"", b"")
        message, ((_, _, credentials),), _, _ = manager.recvmsg(64, socket.CMSG_SPACE(12))
    assert message == b"READY=1"
    assert int.from_bytes(credentials[:4], sys.byteorder) == process.pid


# As a shell does: run the command as the foreground job, and continue it when it stops.
FOREGROUND_JOB = """\
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if job:
    while True:
        _, status = os.waitpid(job, os.WUNTRACED)
        os.write(1, b"%d\\n" % status)
        if not os.WIFSTOPPED(status):
            os._exit(0)
        os.kill(job, signal.SIGCONT)
os.setpgid(0, 0)
os.tcsetpgrp(0, os.getpid())
signal.signal(signal.SIGTTOU, signal.SIG_DFL)
os.dup2(0, 1)"""


@pytest.mark.parametrize(("key", "number"), [(b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT)])
@pytest.mark.parametrize("argv", [[], RUN], ids=["direct", "run"])
def test_terminal(argv: list[bytes], key: bytes, number: int, environ: list[bytes]) -> None:
    """In a terminal, the command is the foreground job and receives the keys' signals."""
    terminal, line = os.openpty()
    command = [*argv, b"sh", b"-c", b"echo ready; read it; echo $it$it; exec sleep 60"]
    with killed_at_end(
        start_process(command, environ, FOREGROUND_JOB, stdin=line, new_session=True)
    ) as process:
        os.close(line)
        assert process.stdout
        job_status = process.stdout.fileno()
        read_until(terminal, b"ready")
        os.write(terminal, b"\x1a")
        read_until(job_status, b"%d\n" % (signal.SIGTSTP << 8 | 0x7F))
        os.write(terminal, b"again\n")
        read_until(terminal, b"againagain")
        os.write(terminal, key)
        read_until(job_status, b"%d\n" % number)
        os.close(terminal)


def test_hang_up(environ: list[bytes]) -> None:
    """Closing the terminal kills the command that leads its session."""
    terminal, line = os.openpty()
    command = [*RUN, b"sh", b"-c", b"echo ready; exec sleep 60"]
    setup = "fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    with killed_at_end(
        start_process(command, environ, setup, stdin=line, new_session=True)
    ) as process:
        os.close(line)
        assert process.stdout
        read_until(process.stdout.fileno(), b"ready")
        os.close(terminal)
        assert process.wait(WAIT_SECONDS) == -signal.SIGHUP


def open_files(pid: int) -> dict[str, str]:
    """The files that a process has open, by descriptor."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        # It may have been closed since.
        with contextlib.suppress(OSError):
            found[path.name] = str(path.readlink())
    return found


def test_forwarder(opted_in_environ: list[bytes], tmp_path: Path) -> None:
    """The forwarder shares no stream, session, parent or terminal with the command."""
    terminal, line = os.openpty()
    setup = f"""\
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.dup2(os.open({str(tmp_path)!r}, os.O_RDONLY), 7)
os.dup2(1, 200)"""
    # The forwarder keeps the launcher's arguments, and so this one.
    marker = os.fsencode(tmp_path)
    command = [*RUN, b"sh", b"-c", b"exec cat", marker]
    with killed_at_end(
        start_process(command, opted_in_environ, setup, stdin=line, new_session=True)
    ) as process:
        os.close(line)
        assert process.stdout
        os.write(terminal, b"ready\n")
        read_until(process.stdout.fileno(), b"ready\n")
        command_files = open_files(process.pid)
        assert command_files.keys() == {"0", "1", "2", "7", "200"}
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            # The process may have exited since.
            with contextlib.suppress(OSError):
                if marker in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        (forwarder,) = found
        wait_until(lambda: not {*command_files.values()} & {*open_files(forwarder).values()})
        # Stopped, it cannot change anything during the checks.
        os.kill(forwarder, signal.SIGSTOP)
        try:
            forwarder_files = open_files(forwarder)
            assert [forwarder_files[stream] for stream in "012"] == ["/dev/null"] * 3
            assert not {*command_files.values()} & {*forwarder_files.values()}
            stat = Path(f"/proc/{forwarder}/stat").read_text().split()
            parent, group, session, tty = map(int, stat[3:7])
            assert session == group
            assert not {parent, session} & {process.pid, forwarder}
            assert tty == 0
            assert not Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            # ^D ends the input.
            os.write(terminal, b"\x04")
            assert process.communicate(timeout=WAIT_SECONDS) == (b"", b"")
            assert process.returncode == 0
        finally:
            os.kill(forwarder, signal.SIGKILL)
            os.close(terminal)


# Signals the process itself at an audit event of the interpreter.
SITECUSTOMIZE = """\
import os, sys
def signal_self(event, args):
    if f"{event} {args[:1]}".startswith(os.environ["POINT"]):
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))
sys.addaudithook(signal_self)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(
    "point",
    [
        "import ('tbot_otel.cli.run'",
        "import ('tbot_otel.run.launcher'",
        "import ('tbot_otel.otlp.environment'",
        "socket.bind",
        "os.fork",
        "os.exec",
    ],
)
def test_signal_before_the_command(
    point: str, name: str, opted_in_environ: list[bytes], tmp_path: Path
) -> None:
    """A signal before exec kills the launcher as it would kill the command."""
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    number = signal.Signals[name]
    variables = {"PYTHONPATH": tmp_path, "POINT": point, "SIGNAL": int(number)}
    opted_in_environ += [os.fsencode(f"{name}={value}") for name, value in variables.items()]
    with killed_at_end(start_process([*RUN, b"echo", b"started"], opted_in_environ)) as process:
        assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == -number


UNWRITABLE_STDERR = {
    "closed": "os.close(2)",
    "full": "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)",
    "without a reader": "r, w = os.pipe(); os.dup2(w, 2); os.close(r)",
    "full pipe": """\
r, w = os.pipe()
os.dup2(w, 2)
os.set_blocking(2, False)
try:
    while True:
        os.write(2, bytes(1))
except BlockingIOError:
    os.set_blocking(2, True)
os.set_inheritable(r, True)""",
}


@pytest.mark.parametrize("setup", UNWRITABLE_STDERR.values(), ids=UNWRITABLE_STDERR)
@pytest.mark.parametrize(
    ("name", "status"), [("true", 0), ("false", 1), ("/", 126), ("missing", 127)]
)
def test_unwritable_stderr(
    name: str, status: int, setup: str, opted_in_environ: list[bytes]
) -> None:
    """A standard error that cannot be written changes nothing."""
    opted_in_environ.append(ADDRESS_PREFIX + b"http://127.0.0.1:9")
    with killed_at_end(start_process([*RUN, name.encode()], opted_in_environ, setup)) as process:
        assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == status


PRINT_FOUND = b"#!/bin/sh\necho found $*\n"
# The start of an ELF file, and no more.
INVALID_ELF = b"\x7fELF\0\0\0\0"
BASH = str(shutil.which("bash"))


@pytest.fixture
def program_folder(tmp_path: Path) -> Path:
    """A folder with every kind of file that the search for a command can find."""
    for name in ("first", "second", "first/folder", "first/good"):
        (tmp_path / name).mkdir()
    for name, mode, content in (
        ("here", 0o755, PRINT_FOUND),
        ("first/plain", 0o644, b""),
        ("first/garbage", 0o755, INVALID_ELF),
        ("first/script", 0o755, b"#!/nonexistent\n"),
        ("first/denied", 0o644, b""),
        ("second/denied", 0o755, PRINT_FOUND),
        ("first/wrong", 0o755, INVALID_ELF),
        ("second/wrong", 0o755, PRINT_FOUND),
        ("second/good", 0o755, PRINT_FOUND),
    ):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(mode)
    (tmp_path / "first/dangling").symlink_to("nowhere")
    (tmp_path / "first/loop").symlink_to("loop")
    return tmp_path


BOTH_FOLDERS = "first:second"
LONG_NAME = "x" * 300


@pytest.mark.parametrize(
    ("name", "path"),
    [
        *(
            (name, BOTH_FOLDERS)
            for name in ("missing", "./missing", "first/missing", "missing/x", "")
        ),
        *(
            (name, BOTH_FOLDERS)
            for name in ("plain", "first/plain", "first/plain/x", "first/plain/")
        ),
        *((name, BOTH_FOLDERS) for name in ("folder", "first/folder", "first/folder/", "garbage")),
        *((name, BOTH_FOLDERS) for name in ("first/garbage", "dangling", "first/dangling", "loop")),
        *(
            (name, BOTH_FOLDERS)
            for name in ("first/loop", LONG_NAME, f"./{LONG_NAME}", "denied", "wrong", "good")
        ),
        *((name, BOTH_FOLDERS) for name in ("second/good", "here", "./here")),
        *(("here", path) for path in ("", ":first", "first:", "first::second", ".", "none:.")),
        ("true", None),
        ("missing", None),
    ],
)
def test_search_as_in_a_shell(name: str, path: str | None, program_folder: Path) -> None:
    """The search for a command ends as in a shell; a failure is one line."""
    variables = {} if path is None else {"PATH": path}
    shell, run = [
        subprocess.run(
            [*argv, name, "a b"],
            cwd=program_folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for argv in ([BASH, "-c", 'exec "$0" "$@"'], [*map(os.fsdecode, RUN)])
    ]
    assert run.returncode == shell.returncode
    assert run.stdout == shell.stdout
    assert run.stderr.count("\n") == (1 if run.returncode else 0)
    assert run.stderr.startswith(f"tbot-otel run: {name}: " if run.returncode else "")


@pytest.mark.parametrize("name", ["script", "{0}/first/script"])
def test_missing_interpreter(name: str, program_folder: Path) -> None:
    """A script whose interpreter is missing cannot be run (126). A shell may differ."""
    name = name.format(program_folder)
    done = run_python(*map(os.fsdecode, RUN[1:]), name, PATH=str(program_folder / "first"))
    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr == f"tbot-otel run: {name}: its interpreter was not found\n"


@pytest.mark.parametrize(
    "name", [b"a\nb", b"\x1b[31m", b"\xff", "\N{RIGHT-TO-LEFT OVERRIDE}".encode()]
)
def test_name_that_is_not_printable(name: bytes, environ: list[bytes]) -> None:
    """A name with control characters is escaped."""
    with killed_at_end(start_process([*RUN, name], environ)) as process:
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 127
    assert stderr.endswith(b": command not found\n")
    assert stderr.count(b"\\") == 1
    assert stderr.removesuffix(b"\n").decode().isprintable()


@pytest.mark.parametrize(
    ("words", "status", "output"),
    [
        (["sh", "-c", "echo $0 $*", "-x", "--", "--log"], 0, "-x -- --log"),
        (["--", "sh", "-c", "echo $0 $*", "--", "-h"], 0, "-- -h"),
        (["--log", "{0}/log", "--", "sh", "-c", "echo $0", "--help"], 0, "--help"),
        (["--log={0}/log", "echo", "-x"], 0, "-x"),
        (["--log", "{0}/log", "--log={0}/other", "echo"], 0, ""),
        ([], 2, "COMMAND: expected a program"),
        (["--"], 2, "COMMAND: expected a program"),
        (["--log", "{0}/log"], 2, "COMMAND: expected a program"),
        (["--log"], 2, "--log: expected a file"),
        (["--log="], 2, "--log: expected a file"),
        (["--log", "--", "echo"], 2, "--log: expected a file"),
        (["--log=", "echo"], 2, "--log: expected a file"),
        (["--logs", "{0}/log", "echo"], 2, "unknown: --logs; did you mean --log?"),
        (["--allow-helper", "acme-deploy", "--log={0}/log", "echo", "--log=x"], 0, "--log=x"),
        *(
            ([*words, "echo"], 2, f"{option}: expected {expected}")
            for option, expected in (("--record", "a file"), ("--allow-helper", "a name"))
            for words in ([f"{option}="], [option, "--"])
        ),
        (
            ["--allow-helper=web01.example.com", "echo"],
            2,
            "--allow-helper: expected a name of letters, digits, - _ / and one :, at most 64",
        ),
        *(
            ([f"{option}=1", "echo"], 2, f"{option}: expected no value")
            for option in ("--dry-run", "--help", "-h")
        ),
        (["--secret=value", "echo"], 2, "unknown: --secret"),
        (["--a\n\x1b[31m", "echo"], 2, "unknown: --a\\n\\x1b[31m"),
        (["-xsecret", "echo"], 2, "unknown: -x"),
        (["-", "echo"], 2, "unknown: -"),
        (["--", "--"], 127, "--: command not found"),
    ],
)
def test_options(words: list[str], status: int, output: str, tmp_path: Path) -> None:
    """Options end where the command begins. A usage error is one line without values."""
    done = run_python("-m", "tbot_otel", "run", *(word.format(tmp_path) for word in words))
    assert done.returncode == status
    if not status:
        assert (done.stdout, done.stderr) == (f"{output}\n", "")
    else:
        hint = " (see tbot-otel run --help)" if status == 2 else ""
        assert (done.stdout, done.stderr) == ("", f"tbot-otel run: {output}{hint}\n")
    assert not [*tmp_path.iterdir()], "a log was written without consent"


def test_dry_run_without_consent(tmp_path: Path) -> None:
    """A dry run without consent says in one line why it has nothing to show."""
    options = ("--dry-run", "--record", str(tmp_path / "record"))
    done = run_python("-m", "tbot_otel", "run", *options, "echo", "--dry-run")
    assert (done.returncode, done.stdout) == (0, "--dry-run\n")
    line = "tbot-otel run: --dry-run has nothing to show: TELEPORT_ANONYMOUS_TELEMETRY is not set\n"
    assert done.stderr == line
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(option: str) -> None:
    """Help names the options and exit statuses, and starts no command."""
    done = run_python("-m", "tbot_otel", "run", option, "echo", "output-of-echo")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: tbot-otel run [OPTION ...] [--] COMMAND")
    assert "output-of-echo" not in done.stdout
