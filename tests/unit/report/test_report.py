"""Counting starts: `tbot-otel report` over files, against the plainest counting."""

import gzip
import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.fuzzing import examples
from support.otlp_files import (
    DAY_NS,
    FIRST_DAY_NS,
    compress_zstd,
    make_start,
    record_of,
    to_line,
)
from support.properties import check_report_file
from support.report_data import HELPER, Start, count, make_document
from tbot_otel.policy import Permitted, decide
from tbot_otel.registry import START
from tbot_otel.report import count as count_module
from tbot_otel.report import reader
from tbot_otel.report.document import DESTINATION_KINDS, Document
from tbot_otel.report.inputs import find_files
from tbot_otel.report.parse import Chunk, Parser

SESSION = "0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20"
SECRET = "web01"
DAY = date(1970, 1, 1) + timedelta(days=FIRST_DAY_NS // DAY_NS)


def start_of(values: dict[str, Any], host: tuple[str, str] | None, day: date) -> Start | None:
    """A start as policy lets it out, for the plainest counting; None if it is refused."""
    given = {f"tbot.{name}": value for name, value in values.items()}
    decision = decide(START.name, given, (HELPER,))
    if not isinstance(decision, Permitted):
        return None
    permitted = decision.attributes
    counts = {kind: int(permitted[f"tbot.destinations_{kind}"]) for kind in DESTINATION_KINDS}
    return Start(
        day=str(day),
        **{
            name: str(permitted.get(f"tbot.{name}", ""))
            for name in ("run_mode", "join_type", "version", "helper", "helper_version")
        },
        destinations="+".join(kind for kind, number in counts.items() if number),
        destination_count=sum(counts.values()),
        os_type=host[0] if host else "not reported",
        host_arch=host[1] if host else "not reported",
    )


class Case(NamedTuple):
    """A record of a generated file.

    Attributes:
        session: The number of its session.
        day: The number of its day.
        values: Its attributes.
        host: Its operating system and architecture.
        problem: Why it does not count: a key of `tables.REASONS`; empty if it does.
        ends_line: Whether its export ends with it.
        ends_file: Whether its file ends with it.
        garbage: A line after it that is not OTLP/JSON.
    """

    session: int
    day: int
    values: dict[str, str | int]
    host: tuple[str, str] | None
    problem: str
    ends_line: bool
    ends_file: bool
    garbage: str


COUNTS = st.sampled_from([0, 0, 1, 2, 999, 1000, 10**18])
CASES = st.lists(
    st.builds(
        Case,
        session=st.integers(0, 30),
        day=st.integers(0, 3),
        values=st.fixed_dictionaries(
            {"run_mode": st.sampled_from(["one-shot", "daemon", SECRET])},
            optional={
                "version": st.sampled_from(["18.3.0", "v17.0.0-rc.1", "9.9.9", SECRET, ""]),
                "join_type": st.sampled_from(["token", "github", "", "\u0645", "\u202e\x00"]),
                "helper": st.sampled_from([HELPER, "gha:teleport-actions/auth", SECRET, ""]),
                "helper_version": st.sampled_from(["1.2.3", SECRET, ""]),
                **{f"destinations_{kind}": COUNTS for kind in DESTINATION_KINDS},
            },
        ),
        host=st.sampled_from([None, ("linux", "amd64"), ("darwin", "arm64")]),
        problem=st.sampled_from(
            [*[""] * 6, "other_event", "invalid_attributes", "invalid_session_id", "invalid_time"]
        ),
        ends_line=st.booleans(),
        ends_file=st.booleans(),
        garbage=st.sampled_from([*[""] * 5, "{", SECRET, "42", "\ufeff{}", "[]", "{}"]),
    ),
    max_size=40,
)


def write_case(case: Case) -> dict[str, Any]:
    """The ``resourceLogs`` of a record."""
    session_id = str(UUID(int=case.session, version=4))
    if case.problem == "invalid_session_id":
        session_id = SECRET
    start = make_start(
        case.values,
        session_id=session_id,
        time_ns=FIRST_DAY_NS + case.day * DAY_NS,
        host=case.host,
    )
    record = record_of(start)
    if case.problem == "other_event":
        record["eventName"] = SECRET
    elif case.problem == "invalid_attributes":
        record["attributes"].append(
            {"key": "tbot.destinations_other", "value": {"stringValue": SECRET}}
        )
    elif case.problem == "invalid_time":
        record.update(timeUnixNano="0", observedTimeUnixNano="0")
    return start


DEFAULTS = {"run_mode": "daemon", "version": "18.3.0", "join_type": "token"}


@examples(40)
@given(cases=CASES, min_group=st.integers(1, 6))
def test_counts_equal_the_plainest_counting(
    tmp_path_factory: pytest.TempPathFactory, cases: list[Case], min_group: int
) -> None:
    """Whatever the files hold, every number is that of counting one start after the other."""
    folder = tmp_path_factory.mktemp("files")
    texts = [""]
    line: list[dict[str, Any]] = []
    unreadable = 0
    for case in cases:
        line.append(write_case(case))
        if case.ends_line or case.ends_file or case.garbage:
            texts[-1] += to_line(*line)
            line = []
        if case.garbage:
            texts[-1] += f"{case.garbage}\n"
            unreadable += 1
        if case.ends_file:
            texts.append("")
    texts[-1] += to_line(*line) if line else ""
    paths = [folder / f"{number:02}.jsonl" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)

    starts: dict[int, Start] = {}
    duplicate = 0
    refused: dict[str, int] = {}
    for case in cases:
        start = start_of({**DEFAULTS, **case.values}, case.host, DAY + timedelta(case.day))
        assert start is not None
        if case.problem:
            refused[case.problem] = refused.get(case.problem, 0) + 1
        elif case.session in starts:
            duplicate += 1
        else:
            starts[case.session] = start
    expected = make_document(
        starts.values(),
        min_group=min_group,
        duplicate=duplicate,
        unreadable=unreadable,
        refused=refused,
    )
    database = folder / "database"
    database.mkdir()
    report = count(*paths, folder=database, min_group=min_group)
    assert report == expected
    records = report["records"]
    assert records["read"] == len(cases)
    for name, table in report["tables"].items():
        total = sum(int(row["starts"]) for row in table["rows"]) + table["folded"]["starts"]
        assert total == report["starts"], name
    for hidden in (SECRET, SESSION, "\u202e"):
        assert hidden not in json.dumps(report, ensure_ascii=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with three starts in two exports."""
    path = tmp_path / "starts.jsonl"
    day = FIRST_DAY_NS + DAY_NS
    path.write_text(
        to_line(make_start(), make_start({"join_type": "github"}, time_ns=day))
        + to_line(make_start({"version": "18.4.0"}, host=None, time_ns=day + DAY_NS - 1))
    )
    return path


def write_variants(text: str) -> dict[str, bytes]:
    """The text of a file in every form that is read."""
    data = text.encode()
    lines = data.splitlines()
    return {
        "plain": data,
        "gzip": gzip.compress(data),
        "gzip of two members": gzip.compress(data[:100]) + gzip.compress(data[100:]),
        "zstd": compress_zstd(data),
        "zstd of two frames": compress_zstd(data[:100]) + compress_zstd(data[100:]),
        "the exporter's zstd": b"".join(
            len(frame).to_bytes(4) + frame for frame in map(compress_zstd, lines)
        ),
        "CRLF": data.replace(b"\n", b"\r\n"),
        "no end of the last line": data.rstrip(),
        "blank lines": data.replace(b"\n", b"\n\n \n"),
    }


FRAGMENTS = (
    *("[", "]", "{", "}", ",", ":", '"', "null", "0", "-1", "1e400", "\n", "\0", "\\ud800"),
    *('"resourceLogs":', '"resourceSpans":', '"resource":', '"scopeLogs":', '"logRecords":'),
    *('"attributes":', '"key":', '"value":', '"stringValue":', '"intValue":', '"timeUnixNano":'),
    *('"session.id"', '"tbot.version"', '"eventName":"tbot.start"', to_line(make_start())),
)


@pytest.fixture(scope="module")
def any_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that each example overwrites."""
    return tmp_path_factory.mktemp("fuzz") / "starts.json"


@examples(120)
@given(
    content=st.binary()
    | st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3)).map(
        lambda parts: "".join(parts).encode(errors="replace")
    ),
    compress=st.sampled_from([bytes, gzip.compress, compress_zstd]),
    cut=st.integers(0, 40),
    damaged=st.none() | st.integers(0, 40),
)
def test_anything(
    any_file: Path,
    content: bytes,
    compress: Callable[[bytes], bytes],
    cut: int,
    damaged: int | None,
) -> None:
    """Any file is read, or refused with one line that does not repeat its text."""
    data = bytearray(compress(content)[: -cut or None])
    if damaged is not None and damaged < len(data):
        data[damaged] ^= 255
    any_file.write_bytes(data)
    check_report_file(any_file)


def test_compressions(file: Path, tmp_path: Path) -> None:
    """The content of a file tells how it is compressed, whatever its name is."""
    expected = count(file, folder=tmp_path)
    for name, data in write_variants(file.read_text()).items():
        file.write_bytes(data)
        assert count(file, folder=tmp_path) == expected, name


def test_folders_that_a_pattern_matches(tmp_path: Path) -> None:
    """A folder that a pattern matches counts like one that is named, unless it is empty."""
    names = ["3.json", "a/1.json", "b/2.json", "b/c/4.json"]
    for name in names:
        path = tmp_path / "d" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("{}")
    (tmp_path / "d" / "empty").mkdir()
    for pattern, expected in (
        ("d/*", names),
        ("d*", names),
        ("d/**", names),
        ("d/[ab]", names[1:]),
        ("d/*/", names[1:]),
        ("d/*/*.json", names[1:3]),
    ):
        found = [Path(file.path) for file in find_files([f"{tmp_path}/{pattern}"])]
        assert found == [tmp_path / "d" / name for name in expected], pattern


VARIANTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "number": lambda record: record["attributes"][3].update(value={"intValue": 0}),
    "snake case unknown": lambda record: record.update(dropped_attributes_count=1),
    "null": lambda record: record.update(body=None, traceId=None, severityText=None),
    "times as numbers": lambda record: record.update(timeUnixNano=FIRST_DAY_NS),
    "observed time": lambda record: record.update(timeUnixNano="0"),
    "no time": lambda record: record.pop("timeUnixNano"),
    "foreign attribute": lambda record: record["attributes"].append(
        {"key": "\u0645\x00", "value": {"arrayValue": {"values": [{"stringValue": SECRET}]}}}
    ),
    "empty value of another": lambda record: record["attributes"].append({"key": "x", "value": {}}),
    "empty helper": lambda record: record["attributes"].append({"key": "tbot.helper", "value": {}}),
}


def parse(text: str) -> Chunk:
    """Parse the lines of a block."""
    return Parser(0, 10**6, (HELPER,)).parse(text.encode())


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")], ids=["dense", "spaced"])
def test_variants_of_json(name: str, separators: tuple[str, str]) -> None:
    """OTLP/JSON of other writers is read."""
    session_id = str(UUID(int=1, version=4))
    start = make_start({"destinations_other": 0}, session_id=session_id)
    VARIANTS[name](record_of(start))
    chunk = parse(json.dumps({"resourceLogs": [start]}, separators=separators))
    assert chunk.values == [
        ("daemon", "18.3.0", "token", "", "", 0, 0, 0, 0, "linux", "amd64"),
    ]
    assert (bytes(chunk.session_ids), [*chunk.days], [*chunk.indexes]) == (
        *(UUID(session_id).bytes, [FIRST_DAY_NS // DAY_NS], [0]),
    )
    assert (chunk.read, chunk.unreadable) == (1, 0)


ODD_RECORDS: dict[str, tuple[dict[str, Any], str]] = {
    "year 1": (
        dict.fromkeys(("timeUnixNano", "observedTimeUnixNano"), "11651379494838206464"),
        "invalid_time",
    ),
    "negative": (
        dict.fromkeys(("timeUnixNano", "observedTimeUnixNano"), "-62135596800000000000"),
        "invalid_time",
    ),
    "text": (dict.fromkeys(("timeUnixNano", "observedTimeUnixNano"), SECRET), "invalid_time"),
    "2262": ({"timeUnixNano": str(2**63 - 1)}, ""),
    "after 2262": (
        dict.fromkeys(("timeUnixNano", "observedTimeUnixNano"), str(2**63)),
        "invalid_time",
    ),
    "count as text": (
        {"attributes": [{"key": "tbot.destinations_other", "value": {"stringValue": "1"}}]},
        "invalid_attributes",
    ),
    "empty count": (
        {"attributes": [{"key": "tbot.destinations_other", "value": {}}]},
        "invalid_attributes",
    ),
    "Arabic digits": (
        {"attributes": [{"key": "tbot.destinations_other", "value": {"intValue": "\u0661"}}]},
        "invalid_attributes",
    ),
    "many digits": (
        {"attributes": [{"key": "tbot.destinations_other", "value": {"intValue": "9" * 5000}}]},
        "invalid_attributes",
    ),
    "10^18": (
        {"attributes": [{"key": "tbot.destinations_other", "value": {"intValue": str(10**18)}}]},
        "",
    ),
    "attributes are text": ({"attributes": SECRET}, "invalid_attributes"),
    "no attributes": ({"attributes": None}, ""),
    "no event": ({"eventName": None}, "other_event"),
}


@pytest.mark.parametrize("name", ODD_RECORDS)
def test_odd_records(name: str) -> None:
    """An odd record counts as it is, or by the reason; its neighbors count."""
    change, reason = ODD_RECORDS[name]
    odd = make_start()
    record_of(odd).update(change)
    chunk = parse(to_line(make_start(), odd, make_start()))
    assert len(chunk.days) == (2 if reason else 3)
    assert chunk.refused == ({reason: 1} if reason else {})
    assert SECRET not in str(chunk.values)


def test_the_same_values_in_another_order(tmp_path: Path) -> None:
    """Starts whose texts differ but whose values are the same are one group."""
    file = tmp_path / "starts.jsonl"
    starts = [make_start(), make_start({"helper": ""}), make_start({"x": SECRET})]
    record_of(starts[0])["attributes"].reverse()
    file.write_text(to_line(*starts))
    report = count(file, folder=tmp_path)
    assert (report["starts"], report["records"]["duplicate"]) == (3, 0)
    assert report["tables"]["use_case"]["folded"] == {"groups": 1, "starts": 3}


def test_session_in_another_place(tmp_path: Path) -> None:
    """The session id is that attribute of the resource, wherever a text has the same form."""
    text = '{"key":"session.id","value":{"stringValue":"' + SESSION
    starts = [make_start(session_id=str(UUID(int=number, version=4))) for number in (1, 2, 2)]
    for start in starts:
        start["resource"]["attributes"].insert(0, {"key": "x", "value": {"stringValue": text}})
        start["resource"]["attributes"].insert(
            0,
            {
                "key": "y",
                "value": {
                    "arrayValue": {
                        "values": [
                            {
                                "kvlistValue": {
                                    "values": [
                                        {"key": "session.id", "value": {"stringValue": SESSION}}
                                    ]
                                }
                            }
                        ]
                    }
                },
            },
        )
    file = tmp_path / "starts.jsonl"
    file.write_text(to_line(*starts))
    report = count(file, folder=tmp_path)
    assert (report["starts"], report["records"]["duplicate"]) == (2, 1)


def test_first_of_a_session_counts(tmp_path: Path) -> None:
    """Of records of the same session, the first that is read counts."""
    for number, method in enumerate(("github", "gitlab", "iam")):
        start = make_start({"join_type": method}, session_id=SESSION)
        (tmp_path / f"{number}.jsonl").write_text(to_line(start))
    (tmp_path / "database").mkdir()
    paths = sorted(tmp_path.glob("*.jsonl"), reverse=True)
    report = count(*paths, folder=tmp_path / "database", min_group=1)
    assert report["tables"]["join_type"]["rows"] == [{"join_type": "iam", "starts": 1}]
    assert report["records"]["duplicate"] == 2


def test_index_of_values_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If there are too many values to remember, the counts are the same."""
    file = tmp_path / "starts.jsonl"
    methods = ("github", "iam", "github", "token", "iam") * 3
    file.write_text("".join(to_line(make_start({"join_type": method})) for method in methods))
    expected = count_in_blocks(file, tmp_path, monkeypatch)
    monkeypatch.setattr(count_module, "_MAX_INDEXES", 1)
    assert count_in_blocks(file, tmp_path, monkeypatch) == expected
    rows = expected["tables"]["join_type"]["rows"]
    assert {str(row["join_type"]): row["starts"] for row in rows} == {
        "github": 6,
        "iam": 6,
        "token": 3,
    }


def count_in_blocks(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Document:
    """Count a file with a block for each line."""
    monkeypatch.setattr(reader, "BLOCK_BYTES", 1)
    return count(file, folder=folder, min_group=1)
