"""The command `report`: bad input, output, signals and limits, from the user's side."""

import contextlib
import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pytest
from backports import zstd

from support.collectors import Official
from support.otlp_files import Shape, make_start, to_line, write_starts
from support.processes import BASE_ENVIRON, WAIT_SECONDS, run_python, wait_until
from tbot_otel.report.parse import MAX_LINE_OBJECTS
from tbot_otel.report.reader import MAX_LINE_BYTES

pytestmark = pytest.mark.integration

SECRET = "web01"
COMMAND = [sys.executable, "-m", "tbot_otel", "report"]
DAMAGED = b"\x1f\x8b\x08" + SECRET.encode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a start."""
    path = tmp_path / "starts.jsonl"
    path.write_text(to_line(make_start()))
    return path


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """The folder for temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: FILE"),
        (["starts.jsonl", "--since", SECRET], "argument --since: expected a day, YYYY-MM-DD"),
        (["starts.jsonl", "--until", "2026-02-30"], "argument --until: expected a day, YYYY-MM-DD"),
        (
            ["starts.jsonl", "--since", "2026-02-01", "--until", "2026-02-01"],
            "--since, --until: expected an earlier day for --since",
        ),
        (
            ["starts.jsonl", "--min-group", "0"],
            "argument --min-group: expected a number from 1 to 999999999",
        ),
        (
            ["starts.jsonl", "--format", SECRET],
            "argument --format: expected one of terminal, html, json, csv, parquet",
        ),
        (
            ["starts.jsonl", "--allow-helper", f"{SECRET}.example"],
            "argument --allow-helper: expected a name of the form that docs/events.md describes",
        ),
        (["missing.jsonl"], "missing.jsonl: No such file or directory"),
        (["starts.jsonl", "missing.jsonl"], "missing.jsonl: No such file or directory"),
        (["missing*.jsonl"], "missing*.jsonl: no file matches"),
        (["\x1b[31m\u202e"], "\\x1b[31m\\u202e: No such file or directory"),
        (["x" * 300], f"{'x' * 300}: File name too long"),
        (["dangling"], "dangling: No such file or directory"),
        (["empty.jsonl"], "empty.jsonl: the file is empty"),
        (["folder"], "folder: the folder has no files"),
        (["/dev/null"], "/dev/null: expected a file"),
        (
            [f"https://alice:{SECRET}@example.com/starts.jsonl"],
            "FILE: expected a file, a folder or a pattern, not a URL",
        ),
        (["truncated.gz"], "truncated.gz: the archive is incomplete"),
        (["truncated.zst"], "truncated.zst: the archive is incomplete"),
        (["damaged.gz"], "damaged.gz: the archive is damaged"),
        (["damaged.zst"], "damaged.zst: the archive is damaged"),
        (["protobuf"], "protobuf: expected the file exporter's `format: json`"),
        (["starts.jsonl", "--output", "folder"], "folder: expected a file"),
        (["starts.jsonl", "--output", "missing/out"], "missing/out: No such file or directory"),
    ],
    ids=str,
)
def test_usage_errors(
    tmp_path: Path, file: Path, private: Path, words: list[str], message: str
) -> None:
    """A usage error is one line that names the place, and no content, with status 2."""
    import gzip

    text = file.read_bytes() * 50
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "truncated.gz").write_bytes(gzip.compress(text)[:-20])
    (tmp_path / "truncated.zst").write_bytes(zstd.compress(text)[:-20])
    (tmp_path / "damaged.gz").write_bytes(DAMAGED)
    (tmp_path / "damaged.zst").write_bytes(zstd.compress(text)[:12] + SECRET.encode() * 9)
    (tmp_path / "protobuf").write_bytes((4).to_bytes(4) + b"\n\x02\n\x00")
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [*COMMAND, *words],
        cwd=tmp_path,
        env={**BASE_ENVIRON, "TMPDIR": str(private)},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    line = f"tbot-otel report: {message}\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert sorted(tmp_path.rglob("*")) == before


def test_empty_file_among_others(file: Path) -> None:
    """An empty file among others is named, because the Collector can have just created it."""
    empty = file.with_name("empty.jsonl")
    empty.touch()
    done = run_python("-m", "tbot_otel", "report", str(file), str(empty), "--format", "json")
    assert done.returncode == 0
    assert done.stderr == f"tbot-otel report: {empty}: the file is empty\n"
    assert json.loads(done.stdout)["starts"] == 1


def test_missing_extra(file: Path) -> None:
    """Without its extra, the command names it."""
    script = (
        "import sys; sys.modules['msgspec'] = None; from tbot_otel.cli import main; "
        "sys.exit(main(['report', *sys.argv[1:]]))"
    )
    done = run_python("-c", script, str(file))
    expected = "tbot-otel report: expected the extra: pip install 'tbot-otel[report]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


@pytest.mark.parametrize("form", ["terminal", "html", "json", "csv", "parquet"])
def test_output(tmp_path: Path, file: Path, private: Path, form: str) -> None:
    """OUT is replaced by the whole report, which only its owner can read, or as it was before."""
    out = tmp_path / "out"
    words = [str(file), "--format", form]
    environ = {"TMPDIR": str(private)}
    done = run_python("-m", "tbot_otel", "report", *words, "-o", str(out), **environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert out.stat().st_mode & 0o777 == 0o600
    out.chmod(0o644)
    content = out.read_bytes()
    out.write_text("before")
    link = tmp_path / "link"
    link.symlink_to(out)
    run_python("-m", "tbot_otel", "report", *words, "-o", str(link), **environ)
    assert (link.is_symlink(), out.read_bytes(), out.stat().st_mode & 0o777) == (
        *(True, content),
        0o644,
    )
    done = subprocess.run(
        [*COMMAND, *words], env=BASE_ENVIRON, capture_output=True, check=True, timeout=WAIT_SECONDS
    )
    assert done.stdout == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out", file.name, "tmp"]
    assert list(private.iterdir()) == []


def test_output_to_a_device(file: Path) -> None:
    """A device is written to, and not replaced."""
    done = run_python("-m", "tbot_otel", "report", str(file), "--format", "json", "-o", "/dev/null")
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [[], ["-o", "/dev/full"]], ids=["stdout", "output"])
def test_full_disk(file: Path, words: list[str]) -> None:
    """A full disk ends the command with status 1 and one line that names the place."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, str(file), "--format", "html", *words],
            env=BASE_ENVIRON,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
    place = words[1] if words else "standard output"
    expected = f"tbot-otel report: {place}: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_full_disk_keeps_the_file(tmp_path: Path, file: Path, private: Path) -> None:
    """If the report does not fit, OUT is as it was, and nothing else is left."""
    out = tmp_path / "out"
    out.write_text("before")
    script = (
        "import resource, signal, sys; from tbot_otel.cli import main; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
        "sys.exit(main(['report', *sys.argv[1:]]))"
    )
    words = [str(file), "--format", "html", "-o", str(out)]
    done = run_python("-c", script, *words, TMPDIR=str(private), PYTHONDONTWRITEBYTECODE="1")
    assert (done.returncode, done.stderr) == (1, f"tbot-otel report: {out}: File too large\n")
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", file.name, "tmp"]
    assert list(private.iterdir()) == []


@pytest.mark.parametrize("form", ["terminal", "html", "json", "csv", "parquet"])
def test_reader_that_closes_early(file: Path, form: str) -> None:
    """A reader that closes standard output early causes no message."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, str(file), "--format", form],
        env=BASE_ENVIRON,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=WAIT_SECONDS,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def run_in_terminal(words: list[str], **environ: str) -> tuple[int, str]:
    """Run the command in a terminal of 80 columns, and return its status and its output."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [*COMMAND, *words], {**BASE_ENVIRON, **environ})
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    output = b""
    # At the end, Linux raises EIO.
    with contextlib.suppress(OSError):
        while data := os.read(terminal, 65536):
            output += data
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output.decode()


def test_terminal(file: Path) -> None:
    """There is color in a terminal only, and none with NO_COLOR; parquet is not written to it."""
    environ = {"TERM": "xterm-256color", "LANG": "C.UTF-8"}
    status, text = run_in_terminal([str(file)], **environ)
    assert (status, "\x1b[" in text) == (0, True)
    status, plain = run_in_terminal([str(file)], NO_COLOR="1", **environ)
    assert status == 0
    assert not any(f"\x1b[{code}" in plain for code in ("3", "4", "9"))
    done = run_python("-m", "tbot_otel", "report", str(file), FORCE_COLOR="1", **environ)
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    status, text = run_in_terminal([str(file), "--format", "parquet"], **environ)
    assert status == 2
    assert "expected --output" in text


def test_ascii_output(file: Path) -> None:
    """Standard output that is not Unicode causes no error."""
    done = run_python("-m", "tbot_otel", "report", str(file), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")


class EndlessRun(NamedTuple):
    """A command that reads a pipe, and has given work to its workers.

    Attributes:
        process: The command, in a process group of its own.
        pipe: The pipe's other end.
        workers: The worker processes.
    """

    process: "subprocess.Popen[bytes]"
    pipe: BinaryIO
    workers: list[int]


@contextlib.contextmanager
def endless_run(folder: Path, private: Path, *words: str) -> Iterator[EndlessRun]:
    """Run the command over a pipe that does not end."""
    path = folder / "pipe"
    os.mkfifo(path)
    starts = folder / "generated.jsonl"
    write_starts(starts, Shape(40_000))
    process = subprocess.Popen(
        [*COMMAND, str(path), *words],
        env={**BASE_ENVIRON, "TMPDIR": str(private)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        with contextlib.suppress(BrokenPipeError), path.open("wb") as pipe:
            pipe.write(starts.read_bytes())
            pipe.flush()
            yield EndlessRun(process, pipe, wait_until(lambda: find_workers(process.pid)))
    finally:
        process.kill()
        process.communicate()


def find_workers(pid: int) -> list[int]:
    """The worker processes of a command."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = path.read_text().rpartition(")")[2].split()[1]
            if parent == str(pid) and "spawn_main" in path.with_name("cmdline").read_text():
                found.append(int(path.parent.name))
    return found


def is_running(pid: int) -> bool:
    """Whether a process runs. A process that nobody has waited for does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@needs_proc
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
    ids=str,
)
def test_signals(tmp_path: Path, private: Path, number: signal.Signals, status: int) -> None:
    """A signal ends the command and its workers, and leaves no file behind and OUT as it was.

    A terminal sends SIGINT to the workers too. After SIGKILL, only the workers end.
    """
    out = tmp_path / "out" / "report.html"
    out.parent.mkdir()
    out.write_text("before")
    with endless_run(tmp_path, private, "--format", "html", "-o", str(out)) as run:
        if number is signal.SIGINT:
            os.killpg(run.process.pid, number)
        else:
            run.process.send_signal(number)
        output = run.process.communicate(timeout=WAIT_SECONDS)
        assert (run.process.returncode, *output) == (status, b"", b"")
        wait_until(lambda: not any(map(is_running, run.workers)))
    assert out.read_text() == "before"
    if number is not signal.SIGKILL:
        assert list(out.parent.iterdir()) == [out]
        assert list(private.iterdir()) == []


@needs_proc
def test_worker_that_is_killed(tmp_path: Path, private: Path) -> None:
    """If the kernel kills a worker, the command says so, and prints no wrong numbers."""
    with endless_run(tmp_path, private) as run:
        for pid in run.workers:
            os.kill(pid, signal.SIGKILL)
        run.pipe.close()
        output = run.process.communicate(timeout=WAIT_SECONDS)
        expected = b"tbot-otel report: a worker process ended: expected more memory\n"
        assert (run.process.returncode, *output) == (2, b"", expected)
    assert list(private.iterdir()) == []


@needs_proc
def test_temporary_files_are_private(tmp_path: Path, private: Path) -> None:
    """While it works, its temporary folder can be read by its owner only."""
    with endless_run(tmp_path, private):
        (folder,) = private.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700


def peak_memory(process: "subprocess.Popen[bytes]") -> int:
    """The most memory in MiB that a command and its workers have at the same time."""
    peak = 0
    while process.poll() is None:
        total = 0
        for pid in (process.pid, *find_workers(process.pid)):
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        peak = max(peak, total * resource.getpagesize() // 2**20)
        time.sleep(0.02)
    return peak


LONG = to_line(*(make_start() for _ in range(8_000)))
LINES = {
    "8,000 starts a line": LONG * 4,
    "the longest line": '{"resourceLogs":[' + "{}," * (MAX_LINE_OBJECTS - 2) + "{}]}\n",
    "too many objects": '{"resourceLogs":[' + "{}," * MAX_LINE_OBJECTS + "{}]}\n",
    "too long": "[" + " " * MAX_LINE_BYTES + "]\n",
    "much too long": f"{SECRET * (20 * 2**20)}\n",
    "deep": '{"resourceLogs":' + "[" * (10 * 2**20) + "\n",
}


@needs_proc
@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("compress", [bytes, zstd.compress], ids=["plain", "zstd"])
def test_memory(tmp_path: Path, name: str, compress: Callable[[bytes], bytes]) -> None:
    """Long lines take little memory. Those that are too long are counted, the others count."""
    file = tmp_path / "starts"
    start = to_line(make_start())
    file.write_bytes(compress(f"{start}{LINES[name] * 4}{start}".encode()))
    process = subprocess.Popen(
        [*COMMAND, str(file), "--format", "json"], env=BASE_ENVIRON, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        thread = ThreadPool(1)
        output = thread.apply_async(process.stdout.read)
        peak = peak_memory(process)
        report = json.loads(output.get(WAIT_SECONDS))
        thread.terminate()
    assert process.returncode == 0
    assert peak < 1024
    counted = {"8,000 starts a line": 8_000}.get(name, 0)
    assert report["starts"] == counted + 2
    readable = name in ("8,000 starts a line", "the longest line")
    assert report["records"]["unreadable"] == (0 if readable else 4)
    assert SECRET not in json.dumps(report)


def write_with_collector(
    official: Official, folder: Path, exporter: dict[str, object], count: int
) -> None:
    """Write starts to files with the file exporter, each in an export of its own."""
    with official.running():
        for _ in range(count):
            post(official, make_start())
