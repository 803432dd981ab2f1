"""The command `report`: bad input, output, signals and limits, from the user's side."""

import contextlib
import gzip
import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pytest

from support.collectors import Collector, Official
from support.commands import run_main
from support.otlp_files import compress_zstd, make_start, to_line
from support.processes import BASE_ENVIRON, WAIT_SECONDS, run_python, wait_until
from tbot_otel.policy import EXPECTED_HELPER
from tbot_otel.report.otlp_json import MAX_LINE_OBJECTS
from tbot_otel.report.reader import BLOCK_BYTES, MAX_LINE_BYTES

SECRET = "web01"
COMMAND = [sys.executable, "-m", "tbot_otel", "report"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a start."""
    path = tmp_path / "starts.jsonl"
    path.write_text(to_line(make_start()))
    return path


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, also of this process."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
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
            f"argument --allow-helper: {EXPECTED_HELPER}",
        ),
        (["missing.jsonl"], "missing.jsonl: No such file or directory"),
        (["starts.jsonl", "missing.jsonl"], "missing.jsonl: No such file or directory"),
        (["missing*.jsonl"], "missing*.jsonl: no file matches"),
        (["fold*"], "fold*: no file matches"),
        (["\x1b7\u202e"], "\\x1b7\\u202e: No such file or directory"),
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
        (["utf-16"], "utf-16: expected UTF-8; convert it with: iconv -f UTF-16 -t UTF-8"),
        (["files.tar"], "files.tar: only gzip and Zstandard are read; extract the files first"),
        (["starts.jsonl", "--output", "folder"], "folder: Is a directory"),
        (["starts.jsonl", "--output", "missing/out"], "missing/out: No such file or directory"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("private")
def test_usage_errors(
    tmp_path: Path,
    file: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A usage error is one line that names the place, and no content, with status 2."""
    text = file.read_bytes() * 50
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "truncated.gz").write_bytes(gzip.compress(text)[:-20])
    (tmp_path / "truncated.zst").write_bytes(compress_zstd(text)[:-20])
    for name, compress in (("damaged.gz", gzip.compress), ("damaged.zst", compress_zstd)):
        whole = compress(text)
        (tmp_path / name).write_bytes(whole[:40] + SECRET.encode() * 9 + whole[85:])
    (tmp_path / "utf-16").write_text("{}", encoding="utf-16")
    (tmp_path / "files.tar").write_bytes(b"starts.jsonl".ljust(257, b"\0") + b"ustar\x0000")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    done = run_main("report", *words)
    line = f"tbot-otel report: {message}\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert sorted(tmp_path.rglob("*")) == before


def test_empty_file_among_others(file: Path) -> None:
    """An empty file among others is named, because the Collector can have just created it."""
    empty = file.with_name("empty.jsonl")
    empty.touch()
    done = run_main("report", file, empty, "--format", "json")
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
    expected = "tbot-otel report: needs the extra 'report': pip install 'tbot-otel[report]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


# A report in memory, and one in a file.
@pytest.mark.parametrize("form", ["html", "parquet"])
def test_output(tmp_path: Path, file: Path, private: Path, form: str) -> None:
    """OUT is replaced by the whole report, which only its owner can read, or as it was before."""
    out = tmp_path / "out"
    words = ["report", str(file), "--format", form]
    done = run_main(*words, "-o", out)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert out.stat().st_mode & 0o777 == 0o600
    out.chmod(0o644)
    content = out.read_bytes()
    out.write_text("before")
    link = tmp_path / "link"
    link.symlink_to(out)
    run_main(*words, "-o", link)
    assert (link.is_symlink(), out.read_bytes(), out.stat().st_mode & 0o777) == (
        *(True, content),
        0o644,
    )
    assert run_main(*words).stdout.encode(errors="surrogateescape") == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out", file.name, "tmp"]
    assert list(private.iterdir()) == []


def test_output_to_a_device(file: Path) -> None:
    """A device is written to, and not replaced."""
    done = run_main("report", file, "--format", "json", "-o", "/dev/null")
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk(file: Path) -> None:
    """A full disk ends the command with status 1 and one line that names the place."""
    words = [str(file), "--format", "html"]
    with open("/dev/full", "wb") as full:
        printing = subprocess.run(
            [*COMMAND, *words],
            env=BASE_ENVIRON,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
    writing = run_main("report", *words, "-o", "/dev/full")
    for done, place in ((printing, "standard output"), (writing, "/dev/full")):
        expected = f"tbot-otel report: {place}: No space left on device\n"
        assert (done.returncode, done.stderr) == (1, expected)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_paths_that_are_not_printable(tmp_path: Path, file: Path) -> None:
    """Each message that has a path is one line."""
    empty, out = tmp_path / "a\nb", tmp_path / "c\x1b[31m"
    empty.touch()
    out.symlink_to("/dev/full")
    done = run_main("report", file, empty, "-o", out)
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (
        *(1, ""),
        [
            f"tbot-otel report: {tmp_path}/a\\nb: the file is empty",
            f"tbot-otel report: {tmp_path}/c\\x1b[31m: No space left on device",
        ],
    )


def test_full_disk_keeps_the_file(tmp_path: Path, file: Path, private: Path) -> None:
    """If the report does not fit, OUT is as it was, and nothing else is left."""
    out = tmp_path / "out"
    out.write_text("before")
    script = (
        "import resource, signal, sys; from tbot_otel.cli import main; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); "
        "sys.exit(main(['report', *sys.argv[1:]]))"
    )
    words = [str(file), "--format", "html", "-o", str(out)]
    done = run_python("-c", script, *words, TMPDIR=str(private), PYTHONDONTWRITEBYTECODE="1")
    assert (done.returncode, done.stderr) == (1, f"tbot-otel report: {out}: File too large\n")
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", file.name, "tmp"]
    assert list(private.iterdir()) == []


def test_reader_that_closes_early(file: Path) -> None:
    """A reader that closes standard output early causes no message."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, str(file)],
        env=BASE_ENVIRON,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=WAIT_SECONDS,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_closed_output(file: Path) -> None:
    """Without standard output, a report needs OUT. Nothing is read before."""
    words = ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND]
    missing = file.with_name("missing.jsonl")
    done = subprocess.run(
        [*words, str(missing)], env=BASE_ENVIRON, capture_output=True, check=False, text=True
    )
    line = "tbot-otel report: --output: expected a file, because standard output is closed\n"
    assert (done.returncode, done.stderr) == (2, line)
    out = file.with_name("out")
    done = subprocess.run(
        [*words, str(file), "-o", str(out)],
        env=BASE_ENVIRON,
        capture_output=True,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert out.stat().st_size


def run_in_terminal(words: list[str], **environ: str) -> tuple[int, str]:
    """Run the command in a terminal of 80 columns, and return its status and its output."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [*COMMAND, *words], {**BASE_ENVIRON, **environ})  # noqa: S606
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


# pty.fork is used where other threads may run: only exec follows in the child.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_terminal(file: Path) -> None:
    """There is color in a terminal only, and none with NO_COLOR; parquet is not written to it."""
    environ = {"TERM": "xterm-256color", "LANG": "C.UTF-8"}
    status, text = run_in_terminal([str(file)], **environ)
    assert (status, "\x1b[" in text) == (0, True)
    status, plain = run_in_terminal([str(file)], NO_COLOR="1", **environ)
    assert status == 0
    assert not any(f"\x1b[{code}" in plain for code in ("3", "4", "9"))
    done = run_python("-m", "tbot_otel", "report", str(file), FORCE_COLOR="1", LANG="C.UTF-8")
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    status, text = run_in_terminal([str(file), "--format", "parquet"], **environ)
    assert status == 2
    assert "--format: expected -o OUT, because parquet is not text" in text


def test_ascii_output(file: Path) -> None:
    """Standard output that is not Unicode causes no error."""
    done = run_python("-m", "tbot_otel", "report", str(file), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")


@contextlib.contextmanager
def written_in_parts(path: Path, *parts: bytes) -> Iterator[None]:
    """Create a named pipe, and write each part of its content when the one before was read."""
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for part in parts:
                pipe.write(part)
                wait_until(lambda: not unread_bytes(pipe))

    # Without a reader, it does not end.
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    yield
    thread.join(WAIT_SECONDS)


@pytest.mark.parametrize(
    ("form", "first"),
    [
        ("plain", 1),
        ("gzip", 1),
        ("zstd", 1),
        ("zstd", 3),
        ("frames", 1),
        ("frames", 4),
        ("frames", 6),
    ],
)
def test_pipe_that_is_written_in_parts(tmp_path: Path, form: str, first: int) -> None:
    """The form of a pipe is recognized, however few bytes are written first."""
    text = to_line(make_start()).encode()
    frame = compress_zstd(text)
    content = {
        "plain": text,
        "gzip": gzip.compress(text),
        "zstd": frame,
        "frames": len(frame).to_bytes(4) + frame,
    }[form]
    path = tmp_path / "pipe"
    with written_in_parts(path, content[:first], content[first:]):
        done = run_main("report", path, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["starts"], report["records"]["unreadable"]) == (1, 0)


def unread_bytes(pipe: BinaryIO) -> int:
    """The number of bytes that wait in a pipe."""
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("content", [b"", b"\x1f", b"{}\n", b"\x28\xb5\x2f\xfd"])
def test_short_pipe(tmp_path: Path, content: bytes) -> None:
    """A pipe that ends early does not block the command."""
    path = tmp_path / "pipe"
    with written_in_parts(path, content):
        done = run_main("report", path, "--format", "json")
    line = f"1 part of the input was not understood, the first is line 1 of {path}"
    status, message = {
        b"": (0, ""),
        b"\x28\xb5\x2f\xfd": (2, f"tbot-otel report: {path}: the archive is incomplete\n"),
    }.get(content, (1, f"tbot-otel report: {line}\n"))
    assert (done.returncode, done.stderr) == (status, message)


def start_reading(path: Path, **environ: str) -> subprocess.Popen[bytes]:
    """Create a named pipe, and start a report of it."""
    os.mkfifo(path)
    return subprocess.Popen(
        [*COMMAND, str(path), "--format", "json"],
        env=BASE_ENVIRON | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


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
    process = subprocess.Popen(
        [*COMMAND, str(path), *words],
        env={**BASE_ENVIRON, "TMPDIR": str(private)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        with contextlib.suppress(BrokenPipeError), path.open("wb") as pipe:
            pipe.write(to_line(make_start()).encode())
            # Blocks without a start: the fifth and more are for the workers.
            for _ in range(6):
                pipe.write(b" " * (BLOCK_BYTES - 1) + b"\n")
            pipe.flush()
            yield EndlessRun(process, pipe, wait_until(lambda: find_workers(process.pid)))
    finally:
        process.kill()
        process.communicate()


def find_workers(pid: int) -> list[int]:
    """The worker processes of a command."""
    # They may have exited since.
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [
            int(child)
            for child in children
            if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()
        ]
    return []


def is_running(pid: int) -> bool:
    """Whether a process runs. A process that nobody has waited for does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def blocks_sigint(pid: int) -> bool:
    """Whether a process blocks SIGINT."""
    (mask,) = re.findall(r"^SigBlk:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(mask, 16) >> (signal.SIGINT - 1) & 1)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@needs_proc
@pytest.mark.parametrize("content", [b"", b"\x1f"])
def test_signal_before_the_first_bytes(tmp_path: Path, content: bytes) -> None:
    """A signal ends a command that waits for the first bytes of a pipe."""
    path = tmp_path / "pipe"
    with start_reading(path) as process, path.open("wb", buffering=0) as pipe:
        pipe.write(content)
        state = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: not unread_bytes(pipe) and ") S " in state.read_text())
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, *output) == (143, b"", b"")


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
            assert all(map(blocks_sigint, run.workers))
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
        expected = b"tbot-otel report: a worker process was killed; it may need more memory\n"
        assert (run.process.returncode, *output) == (2, b"", expected)
    assert list(private.iterdir()) == []


@needs_proc
def test_temporary_files_are_private(tmp_path: Path, private: Path) -> None:
    """While it works, its temporary folder can be read by its owner only."""
    with (
        start_reading(tmp_path / "pipe", TMPDIR=str(private)) as process,
        (tmp_path / "pipe").open("wb"),
    ):
        (folder,) = wait_until(lambda: [*private.iterdir()])
        assert folder.stat().st_mode & 0o777 == 0o700
        process.kill()


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


LONGEST = '{"resourceLogs":[' + "{}," * (MAX_LINE_OBJECTS - 2) + "{}]}\n"
TOO_LONG = "[" + " " * MAX_LINE_BYTES + "]\n"


def many_starts() -> str:
    """A line that is longer than a block."""
    return to_line(*(make_start() for _ in range(8_000)))


def readable_lines() -> tuple[list[str], int, int]:
    """Long lines, how many of their starts count, and how many lines are unreadable."""
    # Enough blocks for the worker processes.
    return [many_starts()] * 6 + [LONGEST], 8_000, 0


def unreadable_lines() -> tuple[list[str], int, int]:
    """Lines with too much."""
    too_many = '{"resourceLogs":[' + "{}," * MAX_LINE_OBJECTS + "{}]}\n"
    much_too_long = f"{SECRET * (10 * 2**20)}\n"
    deep = '{"resourceLogs":' + "[" * (10 * 2**20) + "\n"
    return [too_many, TOO_LONG, much_too_long, TOO_LONG, deep], 0, 5


@needs_proc
@pytest.mark.parametrize(
    ("make_lines", "compress"),
    [
        (readable_lines, bytes),
        (unreadable_lines, bytes),
        (lambda: ([many_starts(), TOO_LONG], 8_000, 1), compress_zstd),
    ],
    ids=["readable", "unreadable", "compressed"],
)
def test_memory(
    tmp_path: Path,
    make_lines: Callable[[], tuple[list[str], int, int]],
    compress: Callable[[bytes], bytes],
) -> None:
    """Long lines take little memory. Those that are too long are counted, the others count."""
    file = tmp_path / "starts"
    lines, starts, unreadable = make_lines()
    # A start before and after each.
    around = [to_line(make_start()) for _ in range(len(lines) + 1)]
    text = "".join(f"{start}{line}" for start, line in zip(around, [*lines, ""], strict=True))
    file.write_bytes(compress(text.encode()))
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
    assert report["starts"] == starts + len(around)
    assert report["records"]["unreadable"] == unreadable
    assert SECRET not in json.dumps(report)


def export(collector: Official, *starts: dict[str, Any]) -> None:
    """Export starts to a Collector."""
    request = urllib.request.Request(
        f"{collector.endpoint('http/protobuf')}/v1/logs",
        to_line(*starts).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=WAIT_SECONDS).close()


FILE_EXPORTERS: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({}, 1),
    "protobuf": ({"format": "proto"}, 1),
    "protobuf-zstd": ({"format": "proto", "compression": "zstd"}, 1),
    "zstd": ({"compression": "zstd"}, 1),
    "rotated": ({"rotation": {"max_megabytes": 1}}, 3),
    "rotated-zstd": ({"rotation": {"max_megabytes": 1}, "compression": "zstd"}, 1),
}


def test_files_of_the_collector(official_binary: Path, tmp_path: Path) -> None:
    """The official Collector's file exporter writes what the command reads."""
    exporters = {}
    for name, (settings, _) in FILE_EXPORTERS.items():
        (tmp_path / name).mkdir()
        path = str(tmp_path / name / "starts.jsonl")
        exporters[f"file/{name}"] = {"path": path, "flush_interval": "50ms", **settings}
    collector = Official(official_binary, tmp_path, exporters=exporters)
    again = make_start()
    with collector.running():
        for _ in range(5):
            export(collector, again, *(make_start({"join_type": "github"}) for _ in range(400)))
    for name, (_, least_files) in FILE_EXPORTERS.items():
        folder = tmp_path / name
        assert len(list(folder.iterdir())) >= least_files, name
        done = run_main("report", folder, "--format", "json")
        assert (done.returncode, done.stderr) == (0, ""), name
        report = json.loads(done.stdout)
        assert (report["starts"], report["records"]) == (
            2_001,
            {"read": 2_005, "duplicate": 4, "refused": {}, "unreadable": 0, "future": 0},
        ), name
        rows = report["tables"]["join_type"]["rows"]
        assert rows == [{"join_type": "github", "starts": 2_000}], name
        # A file that is still being written to: its last line is not complete.
        (whole,) = folder.glob("starts.jsonl")
        whole.write_bytes(whole.read_bytes()[:-100])
        done = run_main("report", folder, "--format", "json")
        records = json.loads(done.stdout)["records"]
        assert records["unreadable"] == 1, name
        assert 0 < records["read"] < 2_005, name


@pytest.mark.usefixtures("opted_in")
def test_records_of_emit(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `emit --record` wrote is read: one start, also if the Collector has it too."""
    file = tmp_path / "records.jsonl"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint("http/protobuf"))
    words = ["--join-method", "github", "--tbot-version", "18.3.0", "--record", str(file)]
    for _ in range(2):
        done = run_main("emit", *words)
        assert done.returncode == 0, done.stderr
    file.write_text(file.read_text() * 2)
    done = run_main("report", file, "--format", "json", "--min-group=1")
    report = json.loads(done.stdout)
    assert (report["starts"], report["records"]["duplicate"]) == (2, 2)
    assert report["tables"]["join_type"]["rows"] == [{"join_type": "github", "starts": 2}]
    assert report["tables"]["os_type"]["rows"] == [{"os_type": sys.platform, "starts": 2}]


DATABASE_SCRIPT = """
import os, sys
from pathlib import Path
from tbot_otel.report.count import StartCounter
counter = StartCounter(Path(sys.argv[1]))
for statement in sys.argv[2:]:
    try:
        counter._database.execute(statement)
    except Exception as error:
        print(type(error).__name__)
    else:
        print("done")
"""


def test_database_is_closed(tmp_path: Path, private: Path) -> None:
    """DuckDB loads no extension, reads and writes only in its folder, and keeps its settings."""
    statements = {
        "INSTALL httpfs": "PermissionException",
        "LOAD httpfs": "PermissionException",
        f"COPY starts TO '{tmp_path}/x.csv'": "PermissionException",
        f"FROM read_csv('{__file__}')": "PermissionException",
        "FROM read_csv('https://example.com/x.csv')": "PermissionException",
        "SET autoload_known_extensions = true": "InvalidInputException",
        "SET enable_external_access = true": "InvalidInputException",
        f"COPY starts TO '{private}/x.csv'": "done",
        # Its progress bar would be on standard output.
        "SELECT error(name) FROM duckdb_settings() "
        "WHERE name = 'enable_progress_bar' AND value = 'true'": "done",
    }
    done = run_python("-c", DATABASE_SCRIPT, str(private), *statements, HOME=str(tmp_path))
    assert (done.stdout.split(), done.stderr) == ([*statements.values()], "")
    assert list(tmp_path.iterdir()) == [private]


SPILL_SCRIPT = """
import sys
from array import array
from pathlib import Path
import os
from tbot_otel.report import count
from tbot_otel.report.parse import Chunk
count.MEMORY_LIMIT_MIB = 64
folder = Path(sys.argv[1])
counter = count.StartCounter(folder)
values = ("daemon", "18.3.0", "token", "", "", 0, 0, 0, 0, "linux", "amd64")
for _ in range(10):
    chunk = Chunk(1)
    chunk.session_ids = os.urandom(16 * 200_000)
    chunk.days = chunk.indexes = array("i", bytes(4 * 200_000))
    chunk.values = [values]
    counter.add(chunk, 0)
print(sum(path.stat().st_size for path in folder.iterdir()) > 2**20)
counter.finish()
print(counter.document(5)["starts"])
"""


def test_spilling(tmp_path: Path, private: Path) -> None:
    """What does not fit in memory goes to the private folder, and not to the working folder."""
    done = subprocess.run(
        [sys.executable, "-c", SPILL_SCRIPT, str(private)],
        cwd=tmp_path,
        env=BASE_ENVIRON,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\n2000000\n", "")
    assert list(tmp_path.iterdir()) == [private]
