"""`tbot-otel run`: the command is its own, as if it had been started directly."""

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

from collectors import PATIENCE, Rotel, run

OURS = [os.fsencode(sys.executable), b"-m", b"tbot_otel", b"run", b"--"]
PYTHON = [os.fsencode(sys.executable), b"-I", b"-S", b"-c"]
ADDRESS = b"TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS="

# Python's own way to start a command takes no environment but a proper one, and undoes less.
START = """\
import ctypes, fcntl, os, resource, signal, termios

argv, environ = {argv!r}, {environ!r}
# In the background, nohup and a shell leave the first three ignored; the interpreter, the others.
for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGPIPE", "SIGXFSZ"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
libc = ctypes.CDLL(None)

def execute():
    strings = [(ctypes.c_char_p * (len(words) + 1))(*words) for words in (argv, environ)]
    libc.execvpe(argv[0], *strings)

{setup}
execute()
"""


def start(
    argv: list[bytes],
    environ: list[bytes],
    setup: str = "",
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
    inherited: tuple[int, ...] = (),
    leads: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a command.

    Args:
        argv: Its words; the first is looked for on this process's ``PATH``.
        environ: Its environment, byte for byte.
        setup: The Python code that makes the process what the command is to find.
        stdin: Its standard input.
        stdout: Its standard output.
        stderr: Its standard error.
        inherited: Further descriptors that it has.
        leads: Whether it leads a session of its own.
    """
    script = START.format(argv=argv, environ=environ, setup=setup)
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=inherited,
        start_new_session=leads,
    )


@contextlib.contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process with the block, and close what is open to it."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def output(argv: list[bytes], environ: list[bytes], setup: str = "") -> bytes:
    """What a command says on standard output, when it says nothing on standard error."""
    with ending(start(argv, environ, setup)) as process:
        said, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (0, b"")
    return said


def receive(descriptor: int, wanted: bytes) -> None:
    """Read until something wanted has come."""
    deadline = time.monotonic() + PATIENCE
    received = b""
    while wanted not in received:
        ready, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"nothing came after {received!r}"
        more = os.read(descriptor, 4096)
        assert more, f"it ended after {received!r}"
        received += more


def environment(rotel: Rotel, consent: str) -> list[bytes]:
    """An environment with nothing in it but what a report needs."""
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONWARNINGS": "error",
        "TELEPORT_ANONYMOUS_TELEMETRY": consent,
        "OTEL_EXPORTER_OTLP_ENDPOINT": rotel.endpoint("http/protobuf"),
    }
    return [os.fsencode(f"{name}={value}") for name, value in variables.items()]


@pytest.fixture
def granted(rotel: Rotel) -> list[bytes]:
    """An environment with consent."""
    return environment(rotel, "1")


@pytest.fixture(params=["0", "1"], ids=["refused", "granted"])
def environ(request: pytest.FixtureRequest, rotel: Rotel) -> list[bytes]:
    """An environment without and with consent."""
    return environment(rotel, request.param)


# No interpreter is between the kernel and what this prints.
PROC = [b"head", b"-v", b"-c1M"]
PROC += [b"/proc/self/" + name for name in (b"status", b"stat", b"limits", b"oom_score_adj")]
PROC += [b"/proc/self/" + name for name in (b"timerslack_ns", b"personality", b"cgroup")]
STATUS = {"Umask", "PPid", "Uid", "Gid", "Groups", "Threads", "NoNewPrivs", "Seccomp"}
STATUS |= {"SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "Cpus_allowed", "Mems_allowed"}
STATUS |= {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}
# proc_pid_stat(5) counts from 1: ppid pgrp session tty_nr tpgid, priority nice num_threads,
# rt_priority policy.
STAT = [*range(4, 9), *range(18, 21), 40, 41]


def proc(argv: list[bytes], environ: list[bytes], setup: str = "") -> dict[str, object]:
    """What the kernel says of a command, with its process id as 0."""
    with ending(start([*argv, *PROC], environ, setup)) as process:
        said, _ = process.communicate(timeout=60)
    parts = re.split(r"\n?==> /proc/self/(\w+) <==\n", said.decode())[1:]
    found: dict[str, object] = dict(zip(parts[::2], parts[1::2], strict=True))
    lines = dict(line.split(":\t", 1) for line in parts[1].splitlines())
    assert int(lines["Pid"]) == process.pid
    found["status"] = {name: lines[name] for name in STATUS}
    fields = parts[3].split()
    numbers = [int(fields[at - 1]) for at in STAT]
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
    """All that the kernel knows of a process is what it would have been, its id included."""
    assert proc(OURS, environ, setup) == proc([], environ, setup)


def test_lost_signals(environ: list[bytes]) -> None:
    """The two signals that the interpreter ignores for itself have their default again."""
    setup = """\
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"""
    assert proc(OURS, environ, setup) == proc([], environ)


DESCRIPTORS = b"""\
import fcntl, os, sys
found = []
for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
    try:
        link = os.readlink(f"/proc/self/fd/{fd}")
        flags = [fcntl.fcntl(fd, name) for name in (fcntl.F_GETFD, fcntl.F_GETFL)]
    except OSError:  # it was the listing's
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
    """Open descriptors are the same: streams, gaps between them, files, pipes and sockets."""
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
        for argv in ([], OURS):
            command = [*argv, *PYTHON, DESCRIPTORS, os.fsencode(found)]
            process = start(
                command,
                environ,
                setup,
                stdin=reading,
                stdout=writing,
                stderr=log,
                inherited=(listener.fileno(), writing),
            )
            with ending(process):
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
    [ADDRESS],
    [b"LONG=" + b"x" * 100_000],
]


@pytest.mark.parametrize("more", ENVIRONMENTS, ids=lambda more: repr(more)[:60])
def test_environment(more: list[bytes], environ: list[bytes]) -> None:
    """The environment is the same byte for byte and in order, but for the address with consent."""
    before = [*environ, *more]
    seen = output([*OURS, b"cat", b"/proc/self/environ"], before).removesuffix(b"\0").split(b"\0")
    if b"TELEPORT_ANONYMOUS_TELEMETRY=1" in environ:
        (address,) = (entry for entry in seen if entry.startswith(ADDRESS))
        assert re.fullmatch(ADDRESS + rb"http://127\.0\.0\.1:\d+/[0-9a-f]{32}", address)
        seen.remove(address)
        before = [entry for entry in before if entry != ADDRESS]
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
    """Arguments are the same byte for byte, the name that the command goes by too."""
    command = [b"sh", b"-c", b"cat /proc/$$/cmdline; readlink /proc/$$/exe /proc/$$/cwd", *words]
    assert output([*OURS, *command], environ) == output(command, environ)


def test_folder_is_gone(environ: list[bytes]) -> None:
    """A working directory that is deleted is still the command's."""
    setup = """\
import tempfile
folder = tempfile.mkdtemp()
os.chdir(folder)
os.rmdir(folder)"""
    seen = output([*OURS, b"readlink", b"/proc/self/cwd"], environ, setup)
    assert seen.endswith(b" (deleted)\n")


def test_no_room_for_the_address(granted: list[bytes], tmp_path: Path) -> None:
    """Where the address does not fit behind arguments and environment, the command has none."""
    # A program's path counts. So the launcher itself takes less than what it is to start.
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    (folder / "environment").symlink_to("/usr/bin/env")
    granted[0] = b"PATH=" + os.fsencode(folder)
    # The smallest limit there is, 128 KiB.
    setup = f"""\
resource.setrlimit(resource.RLIMIT_STACK, (2**19, 2**19))
os.environ["PATH"] = {str(folder)!r}
environ.append(b"FILL=" + b"x" * %d)"""
    shortened = """
while True:
    execute()
    environ[-1] = environ[-1][:-8]"""
    direct = output([b"environment"], granted, setup % 131_000 + shortened)
    setup %= direct.count(b"x", direct.index(b"FILL="))
    with ending(start([*OURS, b"environment"], granted, setup)) as process:
        said, complaint = process.communicate(timeout=60)
    assert said == direct
    assert complaint.endswith(b": Argument list too long\n")


@pytest.mark.parametrize("status", [0, 1, 2, 120, 126, 127, 128, 130, 255])
def test_exit_status(status: int, environ: list[bytes]) -> None:
    """The exit status is the command's."""
    with ending(start([*OURS, b"sh", b"-c", b"exit %d" % status], environ)) as process:
        assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == status


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL", "SIGPIPE", "SIGABRT", "SIGRTMAX"])
def test_death_by_signal(name: str, environ: list[bytes]) -> None:
    """Whoever started the launcher sees the signal that the command died by."""
    number = signal.Signals[name]
    command = [b"sh", b"-c", b"ulimit -c 0; kill -%d $$" % number]
    with ending(start([*OURS, *command], environ)) as process:
        assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == -number


def test_no_child(environ: list[bytes]) -> None:
    """The command has no child that it did not start, alive or ended."""
    wait = b"""\
import os
try:
    print(os.wait())
except ChildProcessError:
    print("none")"""
    assert output([*OURS, *PYTHON, wait], environ) == b"none\n"


def test_notify(environ: list[bytes], tmp_path: Path) -> None:
    """A service that tells of its readiness is the main process, as a service manager sees it."""
    notify = b"""\
import os, socket
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
    manager.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])"""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.settimeout(PATIENCE)
        environ.append(os.fsencode(f"NOTIFY_SOCKET={path}"))
        with ending(start([*OURS, *PYTHON, notify], environ)) as process:
            assert process.communicate(timeout=60) == (b"", b"")
        message, ((_, _, credentials),), _, _ = manager.recvmsg(64, socket.CMSG_SPACE(12))
    assert message == b"READY=1"
    assert int.from_bytes(credentials[:4], sys.byteorder) == process.pid


# A shell's part: the command is a job in the foreground, and is continued when it is stopped.
JOB = """\
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
@pytest.mark.parametrize("argv", [[], OURS], ids=["direct", "ours"])
def test_terminal(argv: list[bytes], key: bytes, number: int, environ: list[bytes]) -> None:
    """In a terminal the command is the job in the foreground, and the keys are for it."""
    terminal, line = os.openpty()
    command = [*argv, b"sh", b"-c", b"echo ready; read it; echo $it$it; exec sleep 60"]
    with ending(start(command, environ, JOB, stdin=line, leads=True)) as process:
        os.close(line)
        assert process.stdout
        told = process.stdout.fileno()
        receive(terminal, b"ready")
        os.write(terminal, b"\x1a")
        receive(told, b"%d\n" % (signal.SIGTSTP << 8 | 0x7F))
        os.write(terminal, b"again\n")
        receive(terminal, b"againagain")
        os.write(terminal, key)
        receive(told, b"%d\n" % number)
        os.close(terminal)


def test_hang_up(environ: list[bytes]) -> None:
    """A terminal that is gone ends the command that has the session."""
    terminal, line = os.openpty()
    command = [*OURS, b"sh", b"-c", b"echo ready; exec sleep 60"]
    setup = "fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    with ending(start(command, environ, setup, stdin=line, leads=True)) as process:
        os.close(line)
        assert process.stdout
        receive(process.stdout.fileno(), b"ready")
        os.close(terminal)
        assert process.wait(PATIENCE) == -signal.SIGHUP


def links(pid: int) -> dict[str, str]:
    """A process's open descriptors, and what they are open to."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        # It may be closed meanwhile.
        with contextlib.suppress(OSError):
            found[path.name] = str(path.readlink())
    return found


def test_forwarder(granted: list[bytes], tmp_path: Path) -> None:
    """The forwarder has nothing of the command's: no stream, session, parent or terminal."""
    terminal, line = os.openpty()
    setup = f"""\
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.dup2(os.open({str(tmp_path)!r}, os.O_RDONLY), 7)
os.dup2(1, 200)"""
    # The forwarder has the launcher's words, and so this one.
    word = os.fsencode(tmp_path)
    command = [*OURS, b"sh", b"-c", b"exec cat", word]
    with ending(start(command, granted, setup, stdin=line, leads=True)) as process:
        os.close(line)
        assert process.stdout
        os.write(terminal, b"ready\n")
        receive(process.stdout.fileno(), b"ready\n")
        theirs = links(process.pid)
        assert theirs.keys() == {"0", "1", "2", "7", "200"}
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            # Whatever ends meanwhile is none.
            with contextlib.suppress(OSError):
                if word in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        (forwarder,) = found
        deadline = time.monotonic() + PATIENCE
        while {*theirs.values()} & {*links(forwarder).values()} and time.monotonic() < deadline:
            time.sleep(0.01)
        # Stopped, it can do nothing more about it.
        os.kill(forwarder, signal.SIGSTOP)
        try:
            own = links(forwarder)
            assert [own[stream] for stream in "012"] == ["/dev/null"] * 3
            assert not {*theirs.values()} & {*own.values()}
            stat = Path(f"/proc/{forwarder}/stat").read_text().split()
            parent, group, session, tty = map(int, stat[3:7])
            assert session == group
            assert not {parent, session} & {process.pid, forwarder}
            assert tty == 0
            assert not Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            # ^D: the end of what is typed.
            os.write(terminal, b"\x04")
            assert process.communicate(timeout=PATIENCE) == (b"", b"")
            assert process.returncode == 0
        finally:
            os.kill(forwarder, signal.SIGKILL)
            os.close(terminal)


# Ends the process at a point that the interpreter itself tells of.
HOOK = """\
import os, sys
def end(event, args):
    if f"{event} {args[:1]}".startswith(os.environ["POINT"]):
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))
sys.addaudithook(end)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(
    "point",
    [
        "import ('tbot_otel.cli.run'",
        "import ('tbot_otel.launcher'",
        "import ('tbot_otel.destination'",
        "socket.bind",
        "os.fork",
        "os.exec",
    ],
)
def test_signal_before_the_command(
    point: str, name: str, granted: list[bytes], tmp_path: Path
) -> None:
    """A signal that comes before the command has started ends the launcher as the command."""
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    number = signal.Signals[name]
    variables = {"PYTHONPATH": tmp_path, "POINT": point, "SIGNAL": int(number)}
    granted += [os.fsencode(f"{name}={value}") for name, value in variables.items()]
    with ending(start([*OURS, b"echo", b"started"], granted)) as process:
        assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == -number


UNWRITABLE = {
    "closed": "os.close(2)",
    "full": "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)",
    "nobody's": "r, w = os.pipe(); os.dup2(w, 2); os.close(r)",
    "not read": """\
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


@pytest.mark.parametrize("setup", UNWRITABLE.values(), ids=UNWRITABLE)
@pytest.mark.parametrize(("name", "status"), [("true", 0), ("false", 1), ("missing", 127)])
def test_unwritable(name: str, status: int, setup: str, granted: list[bytes]) -> None:
    """What cannot be said on standard error changes nothing."""
    granted.append(ADDRESS + b"http://127.0.0.1:9")
    with ending(start([*OURS, name.encode()], granted, setup)) as process:
        assert process.wait(10) == status


FOUND = b"#!/bin/sh\necho found $*\n"
# What the format of a program is read from, and no more.
GARBAGE = b"\x7fELF\0\0\0\0"
BASH = str(shutil.which("bash"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Whatever may be found on the way to a command."""
    for name in ("first", "second", "first/folder", "first/good"):
        (tmp_path / name).mkdir()
    for name, mode, content in (
        ("here", 0o755, FOUND),
        ("first/plain", 0o644, b""),
        ("first/garbage", 0o755, GARBAGE),
        ("first/script", 0o755, b"#!/nonexistent\n"),
        ("first/denied", 0o644, b""),
        ("second/denied", 0o755, FOUND),
        ("first/wrong", 0o755, GARBAGE),
        ("second/wrong", 0o755, FOUND),
        ("second/good", 0o755, FOUND),
    ):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(mode)
    (tmp_path / "first/dangling").symlink_to("nowhere")
    (tmp_path / "first/loop").symlink_to("loop")
    return tmp_path


BOTH = "first:second"
LONG = "x" * 300


@pytest.mark.parametrize(
    ("name", "path"),
    [
        *((name, BOTH) for name in ("missing", "./missing", "first/missing", "missing/x", "")),
        *((name, BOTH) for name in ("plain", "first/plain", "first/plain/x", "first/plain/")),
        *((name, BOTH) for name in ("folder", "first/folder", "first/folder/", "garbage")),
        *((name, BOTH) for name in ("first/garbage", "dangling", "first/dangling", "loop")),
        *((name, BOTH) for name in ("first/loop", LONG, f"./{LONG}", "denied", "wrong", "good")),
        *((name, BOTH) for name in ("second/good", "here", "./here")),
        *(("here", path) for path in ("", ":first", "first:", "first::second", ".", "none:.")),
        ("true", None),
        ("missing", None),
    ],
)
def test_looked_for_as_a_shell_does(name: str, path: str | None, folder: Path) -> None:
    """A command is found, not found or found wanting as in a shell, which is said in one line."""
    variables = {} if path is None else {"PATH": path}
    seen = [
        subprocess.run(
            [*argv, name, "a b"],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for argv in ([BASH, "-c", 'exec "$0" "$@"'], [*map(os.fsdecode, OURS)])
    ]
    assert seen[0].returncode == seen[1].returncode
    assert seen[0].stdout == seen[1].stdout
    said = seen[1].stderr
    assert said.count("\n") == (1 if seen[1].returncode else 0)
    assert not name or name not in said.removeprefix("tbot-otel run: ")


@pytest.mark.parametrize("name", ["script", "{0}/first/script"])
def test_no_interpreter(name: str, folder: Path) -> None:
    """A script whose interpreter is missing is found and can't be run, whatever a shell thinks."""
    name = name.format(folder)
    done = run(*map(os.fsdecode, OURS[1:]), name, PATH=str(folder / "first"))
    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr.count("\n") == 1
    assert name not in done.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
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
        (["--logs", "{0}/log", "echo"], 2, "unknown: --logs"),
        (["--secret=value", "echo"], 2, "unknown: --secret"),
        (["-xsecret", "echo"], 2, "unknown: -x"),
        (["-", "echo"], 2, "unknown: -"),
        (["--", "--"], 127, "COMMAND: expected a program's path, or the name of one on PATH"),
    ],
)
def test_words(words: list[str], status: int, said: str, tmp_path: Path) -> None:
    """Options end where the command begins, and a wrong one is said in one line, without values."""
    done = run("-m", "tbot_otel", "run", *(word.format(tmp_path) for word in words))
    assert done.returncode == status
    if not status:
        assert (done.stdout, done.stderr) == (f"{said}\n", "")
    else:
        help_ = " (see tbot-otel run --help)" if status == 2 else ""
        assert (done.stdout, done.stderr) == ("", f"tbot-otel run: {said}{help_}\n")
    assert not [*tmp_path.iterdir()], "nobody opted in"


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(option: str) -> None:
    """Help names the options and the exit statuses, and starts nothing."""
    done = run("-m", "tbot_otel", "run", option, "echo", "begun")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: tbot-otel run [--log FILE] [--] COMMAND")
    assert "begun" not in done.stdout
