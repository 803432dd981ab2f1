"""Damaged, joined and foreign files: nothing is left out in silence."""

import gzip
import os
import sys
import tracemalloc
from pathlib import Path

import pytest

from support.otlp_files import compress_zstd, make_start, to_line, to_message
from support.report_data import HELPER
from tbot_otel.report import otlp_json, otlp_protobuf, reader
from tbot_otel.report.inputs import ReportError, find_files
from tbot_otel.report.parse import Parser
from tbot_otel.report.reader import read_blocks
from tbot_otel.report.unreadable import UnreadableParts

ONE, TWO = to_line(make_start()).encode(), to_line(make_start(), make_start()).encode()
if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HALF = TWO[: len(TWO) // 2]
PRETTY = b'{\n  "resourceLogs": []\n}\n'
FRAMES = [len(frame).to_bytes(4) + frame for frame in map(compress_zstd, (ONE, TWO))]
MESSAGES = [to_message(make_start()), to_message(make_start(), make_start())]
MESSAGE_FRAMES = [
    len(frame).to_bytes(4) + frame for frame in (compress_zstd(message[4:]) for message in MESSAGES)
]


def read(path: Path) -> tuple[int, str]:
    """The number of starts in a file, and what was not understood."""
    parser = Parser(0, 10**6, (HELPER,))
    unreadable = UnreadableParts()
    starts = 0
    (file,) = find_files([str(path)])
    for block in read_blocks(file):
        chunk = parser.parse(block.content, is_protobuf=block.is_protobuf)
        unreadable.add(block, chunk)
        starts += len(chunk.days)
    return starts, str(unreadable) if unreadable.count else ""


def not_understood(first: str, count: int = 1, advice: str = "") -> str:
    """The sentence on what was not understood."""
    parts = f"{count} part" if count == 1 else f"{count} parts"
    were = "was" if count == 1 else "were"
    return f"{parts} of the input {were} not understood, the first is {first} of FILE{advice}"


JQ = "; it looks like pretty-printed JSON: convert it with jq -c ."
JQ_ARRAY = "; it looks like a JSON array: convert it with jq -c '.[]'"
RUNTIME = "; it looks like the log of a container runtime: extract what the container wrote"
SNAKE_CASE = "; it looks like JSON with names in snake_case: OTLP/JSON has resourceLogs"
CASES: dict[str, tuple[bytes, int, str]] = {
    # Exports on one line, without a newline between them, and parts of them.
    "joined": (ONE.strip() + TWO.strip() + ONE, 4, ""),
    "joined with spaces": (ONE.strip() + b" " + TWO, 3, ""),
    "joined with traces": (b'{"resourceSpans":[]}' + ONE, 1, ""),
    "half, then whole": (ONE + HALF + TWO + ONE, 4, not_understood("line 2")),
    "half, then joined": (HALF + ONE.strip() + TWO, 3, not_understood("line 1")),
    "whole, then half": (ONE.strip() + HALF, 1, not_understood("line 1")),
    "whole, then little": (TWO.strip() + b'{"resou', 2, not_understood("line 1")),
    "end, then whole": (TWO[-100:].strip() + ONE, 1, not_understood("line 1")),
    "unfinished": (ONE + HALF, 1, not_understood("line 2")),
    "only half": (HALF, 0, not_understood("line 1")),
    "byte order mark": (b"\xef\xbb\xbf" + ONE + TWO, 3, ""),
    "zeros": (bytes(70_000) + ONE + TWO, 3, ""),
    "zeros and half": (bytes(7) + TWO[100:] + ONE, 1, not_understood("line 1")),
    "zeros between": (ONE + bytes(9) + ONE + bytes(9), 2, ""),
    # The file exporter's messages.
    "frames": (b"".join(FRAMES), 3, ""),
    "frames of gzip": (gzip.compress(b"".join(FRAMES)), 3, ""),
    "half a frame": (FRAMES[1][:90] + FRAMES[0] + FRAMES[1], 3, not_understood("message 1")),
    "half a frame between": (
        *(FRAMES[0] + FRAMES[1][:90] + FRAMES[1] + FRAMES[0], 4, not_understood("message 2")),
    ),
    "unfinished frame": (FRAMES[0] + FRAMES[1][:-1], 1, not_understood("message 2")),
    "unfinished length": (FRAMES[0] + b"\0\0", 1, not_understood("message 2")),
    "damaged frame": (
        *(FRAMES[0] + FRAMES[1][:8] + b"\xff" * 6 + FRAMES[1][14:] + FRAMES[0], 2),
        not_understood("message 2"),
    ),
    "two damaged frames": (*((FRAMES[0] + FRAMES[1][:90]) * 2, 2, not_understood("message 2", 2)),),
    "protobuf": (b"".join(MESSAGES), 3, ""),
    "protobuf of zstd": (compress_zstd(b"".join(MESSAGES)), 3, ""),
    "zeros and protobuf": (bytes(999) + b"".join(MESSAGES), 3, ""),
    "half a message": (
        *(MESSAGES[0] + MESSAGES[1][:-300] + MESSAGES[0] + MESSAGES[1], 4),
        not_understood("message 2"),
    ),
    "unfinished message": (b"".join(MESSAGES)[:-1], 1, not_understood("message 2")),
    "message of another kind": (
        *(MESSAGES[0] + b"\0\0\0\x04\n\x02\xff\xff" + MESSAGES[1], 3, not_understood("message 2")),
    ),
    "message frames": (b"".join(MESSAGE_FRAMES), 3, ""),
    "half a message frame": (
        *(MESSAGE_FRAMES[1][:90] + MESSAGE_FRAMES[0], 1, not_understood("message 1")),
    ),
    "frames of both": (b"".join(FRAMES + MESSAGE_FRAMES + FRAMES), 9, ""),
    # What is not read.
    "pretty-printed": (PRETTY * 2, 0, not_understood("line 1", 6, JQ)),
    "array": (b"[" + ONE.strip() + b"]\n", 0, not_understood("line 1", 1, JQ_ARRAY)),
    "array of several": (
        *(b"[" + ONE.strip() + b"," + TWO.strip() + b"]", 0, not_understood("line 1", 1, JQ_ARRAY)),
    ),
    "array of lines": (
        *(b"[\n" + ONE.strip() + b",\n" + TWO + b"]\n", 2, not_understood("line 1", 3, JQ_ARRAY)),
    ),
    "snake_case": (
        *(b'{"resource_logs": [{}]}\n' * 2, 0, not_understood("line 1", 2, SNAKE_CASE)),
    ),
    "docker": (
        *(b'{"log":"{\\"resourceLogs\\":[]}\\n","stream":"stdout"}\n', 0),
        not_understood("line 1", 1, RUNTIME),
    ),
    "kubernetes": (
        *(b"2026-01-05T10:00:00.123456789Z stdout F " + ONE, 0),
        not_understood("line 1", 1, RUNTIME),
    ),
    "text": (b"web01 started\n" + ONE + b"\nweb01\n", 1, not_understood("line 1", 2)),
    "random": (bytes(range(256)) * 9, 0, not_understood("line 1", 10)),
}


@pytest.mark.parametrize("name", CASES)
def test_damage(tmp_path: Path, name: str) -> None:
    """The whole exports of a file count; for the rest, its amount and its first place are told."""
    content, starts, message = CASES[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    assert read(path) == (starts, message.replace("FILE", str(path)))


def test_damage_across_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not matter where a file is cut into blocks."""
    for size in (1, 3, 7, 100, 1000):
        monkeypatch.setattr(reader, "BLOCK_BYTES", size)
        for name, (content, starts, message) in CASES.items():
            if len(content) > 20_000 or (size == 1 and len(content) > 3_000):
                continue
            path = tmp_path / "file"
            path.write_bytes(content)
            assert read(path) == (starts, message.replace("FILE", str(path))), (name, size)


def test_long_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is too long is skipped; joined exports are not too long together."""
    monkeypatch.setattr(reader, "MAX_LINE_BYTES", 2 * len(TWO))
    monkeypatch.setattr(otlp_json, "MAX_LINE_BYTES", 2 * len(TWO))
    monkeypatch.setattr(reader, "BLOCK_BYTES", 100)
    path = tmp_path / "file"
    long = b"x" * 5 * len(TWO)
    for content, starts, message in (
        (TWO.strip() * 9 + b"\n", 18, ""),
        (ONE + long + b"\n" + ONE, 2, not_understood("line 2")),
        (ONE + long + ONE, 2, not_understood("line 2")),
        (ONE + long, 1, not_understood("line 2")),
    ):
        path.write_bytes(content)
        assert read(path) == (starts, message.replace("FILE", str(path)))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("é".encode("utf-16") + bytes(20), "UTF-16"),
        (TWO.decode().encode("utf-16-le"), "UTF-16"),
        (TWO.decode().encode("utf-16-be"), "UTF-16"),
        (b"PK\x03\x04" + TWO, "extract"),
        (b"\xfd7zXZ\0" + TWO, "extract"),
        (b"BZh91AY&SY" + TWO, "extract"),
        (gzip.compress(b"starts.jsonl".ljust(257, b"\0") + b"ustar\x0000" + TWO), "extract"),
        (gzip.compress(gzip.compress(gzip.compress(TWO))), "extract"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, problem: str) -> None:
    """What can only be read after another program is named, in one line."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=f"^{path}: .*{problem}"):
        read(path)


def test_pipes_among_files(tmp_path: Path) -> None:
    """A pipe in a folder is not waited for: it is named, and not read."""
    os.mkfifo(tmp_path / "a")
    (tmp_path / "b").write_bytes(ONE)
    (tmp_path / "c").symlink_to("/dev/null")
    for word in (tmp_path, tmp_path / "*"):
        assert [(Path(file.path).name, file.problem) for file in find_files([str(word)])] == [
            ("a", "skipped, because it is not a file"),
            ("b", ""),
            ("c", "skipped, because it is not a file"),
        ]
    (pipe,) = find_files([str(tmp_path / "a")])
    assert not pipe.problem


@pytest.mark.parametrize("kind", ["protobuf", "json"])
def test_bombs(tmp_path: Path, kind: str) -> None:
    """A frame that becomes long takes the memory of the longest line, and no more."""
    compressor = zstd.ZstdCompressor()
    piece = bytes(2**20)
    first = b"\n" if kind == "protobuf" else b"{"
    frame = compressor.compress(first)
    for _ in range(1024):
        frame += compressor.compress(piece)
    frame += compressor.flush()
    path = tmp_path / "file"
    path.write_bytes(len(frame).to_bytes(4) + frame + FRAMES[0])
    tracemalloc.start()
    try:
        assert read(path) == (1, not_understood("message 1").replace("FILE", str(path)))
        assert tracemalloc.get_traced_memory()[1] < 4 * reader.MAX_LINE_BYTES
    finally:
        tracemalloc.stop()


def test_many_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of very many parts, which would take much memory, is not understood."""
    monkeypatch.setattr(otlp_protobuf, "_MAX_UNCHECKED_BYTES", 100)
    monkeypatch.setattr(otlp_protobuf, "MAX_MESSAGE_TAGS", 1000)
    few, many = ((2 * count).to_bytes(4) + b"\n\0" * count for count in (900, 1100))
    for content, unreadable in ((few, 0), (many, 1)):
        chunk = Parser(0, 10**6, ()).parse(content, is_protobuf=True)
        assert chunk.unreadable == unreadable
