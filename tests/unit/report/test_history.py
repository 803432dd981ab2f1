"""Starts by time."""

from datetime import date, timedelta
from typing import Any

import pytest

from support.report_data import Start, make_document, simulate
from tbot_otel.report.history import (
    MAX_UNITS,
    MAX_VERSIONS,
    history,
    release_of,
    releases,
    side_by_side,
    units_between,
)

MONDAY = date(2026, 8, 3)


def starts_on(day: date, count: int = 1, **values: Any) -> list[Start]:
    """Equal starts of a day."""
    return [Start(day.isoformat())._replace(**values)] * count


@pytest.mark.parametrize(
    ("first", "last", "unit", "labels"),
    [
        ("2026-08-03", "2026-08-03", "day", ["2026-08-03"]),
        ("2026-08-03", "2026-09-02", "day", ["2026-08-03", "2026-08-04"]),
        ("2026-08-05", "2026-09-05", "week", ["2026-08-03", "2026-08-10"]),
        ("2026-11-30", "2027-07-04", "week", ["2026-11-30", "2026-12-07"]),
        ("2026-11-30", "2027-07-05", "month", ["2026-11", "2026-12", "2027-01", "2027-02"]),
        ("1999-12-31", "2002-06-30", "month", ["1999-12", "2000-01"]),
        ("1999-12-31", "2002-07-01", "year", ["1999", "2000", "2001", "2002"]),
        ("1970-01-01", "2262-04-11", "year", ["1970", "1971"]),
    ],
)
def test_units(first: str, last: str, unit: str, labels: list[str]) -> None:
    """The units are the shortest of which there are few, and the first and last day are in them."""
    starts = starts_on(date.fromisoformat(first)) + starts_on(date.fromisoformat(last), 2)
    past = history(make_document(starts), "run_mode")
    assert past.unit == unit
    assert past.labels[: len(labels)] == labels
    assert len(past.labels) <= MAX_UNITS or unit == "year"
    assert (sum(past.totals), past.totals[0]) == (3, 3 if len(past.labels) == 1 else 1)
    assert past.totals[-1] >= 2


def test_units_between_follow_each_other() -> None:
    """A unit begins where the one before it ends, also at the end of years and of February."""
    for unit, starts in (
        ("week", ["2027-12-27", "2028-01-03"]),
        ("month", ["2027-12-01", "2028-01-01", "2028-02-01", "2028-03-01"]),
        ("year", ["2027-01-01", "2028-01-01"]),
    ):
        first = date(2027, 12, 31)
        last = date.fromisoformat(starts[-1])
        assert [str(day) for day in units_between(first, last, unit)] == starts
        assert [str(day) for day in units_between(first, last - timedelta(1), unit)] == starts[:-1]


def test_history_has_gaps() -> None:
    """A day without starts counts none."""
    modes = ("daemon", "one-shot")
    starts = [
        start
        for day, counts in ((0, (6, 5)), (2, (9, 7)))
        for mode, count in zip(modes, counts, strict=True)
        for start in starts_on(MONDAY + timedelta(day), count, run_mode=mode)
    ]
    past = history(make_document(starts), "run_mode")
    labels = ["2026-08-03", "2026-08-04", "2026-08-05"]
    parts = {"daemon": [6, 0, 9], "one-shot": [5, 0, 7]}
    assert past == ("day", labels, [11, 0, 16], parts, [False, True, False])


def cells_of(counts: dict[str, list[int]], unit_days: int = 1) -> list[Start]:
    """Starts with join methods, from their numbers in each unit."""
    return [
        start
        for method, numbers in counts.items()
        for n, number in enumerate(numbers)
        for start in starts_on(MONDAY + timedelta(unit_days * n), number, join_type=method)
    ]


@pytest.mark.parametrize(
    ("counts", "unit", "columns", "groups", "folded"),
    [
        # All cells are large enough, or empty.
        ({"iam": [9, 0, 5], "token": [5, 6, 7]}, "day", ["iam", "token"], 0, 0),
        # A small cell folds its whole value, and another one, so that it is not alone.
        ({"iam": [90, 90], "token": [9, 5], "tpm": [9, 4]}, "day", ["iam"], 2, 27),
        # Two small values are folded together.
        ({"iam": [90, 90], "token": [9, 4], "tpm": [4, 9]}, "day", ["iam"], 2, 26),
        # Too much would be folded by day.
        ({"iam": [9, 9], "token": [4, 5]}, "week", ["iam", "token"], 0, 0),
        # The only value is every start.
        ({"iam": [1, 1]}, "day", ["iam"], 0, 0),
    ],
)
def test_columns(
    counts: dict[str, list[int]], unit: str, columns: list[str], groups: int, folded: int
) -> None:
    """A value has a column if none of its cells is small; the others are one, of two values."""
    table = make_document(cells_of(counts))["tables"]["day_join_type"]
    assert table["unit"] == unit
    assert sorted({str(row["join_type"]) for row in table["rows"]}) == columns
    assert table["folded"] == {"groups": groups, "starts": folded}
    total = sum(int(row["starts"]) for row in table["rows"])
    assert total + folded == sum(map(sum, counts.values()))


def test_unit_grows_until_few_are_folded() -> None:
    """With the starts, the units become shorter."""
    units = [
        make_document(simulate(90, count))["tables"]["day_join_type"]["unit"]
        for count in (100, 1_000, 10_000)
    ]
    assert units[-1] == "week"
    assert units[0] != "week"
    assert make_document(simulate(20, 20_000))["tables"]["day_join_type"]["unit"] == "day"


@pytest.mark.parametrize(
    ("first", "days", "complete"),
    [
        (0, 21, [True] * 3),
        (1, 20, [False, True, True]),
        (0, 20, [True, True, False]),
        (3, 10, [True, True]),
    ],
)
def test_incomplete_weeks(first: int, days: int, complete: list[bool]) -> None:
    """A week that the data do not cover is marked, unless all are."""
    starts = [
        start
        for n in range(days)
        for mode in ("daemon", "one-shot")
        for start in starts_on(MONDAY + timedelta(first + n), 2, run_mode=mode)
    ]
    past = history(make_document(starts), "run_mode")
    assert (past.unit, past.complete) == ("week", complete)


@pytest.mark.parametrize(
    ("majors", "minors", "patches", "names"),
    [
        ((18,), 3, 3, {f"18.{minor}.{patch}" for minor in range(3) for patch in range(3)}),
        ((17, 18), 3, 2, {f"{major}.{minor}.x" for major in (17, 18) for minor in range(3)}),
        ((17, 18), 5, 1, {"17.x", "18.x"}),
    ],
)
def test_many_versions_are_added_up(
    majors: tuple[int, ...], minors: int, patches: int, names: set[str]
) -> None:
    """Of more than nine versions, the table by time has releases; of more, major versions."""
    starts = [
        start
        for major in majors
        for minor in range(minors)
        for patch in range(patches)
        for start in starts_on(MONDAY, 9, version=f"{major}.{minor}.{patch}")
    ]
    rows = make_document(starts)["tables"]["day_version"]["rows"]
    assert {str(row["version"]) for row in rows} == names
    assert len(rows) <= MAX_VERSIONS


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("18.3.0", "18.3.x"),
        ("18.3.0-rc.1", "18.3.x"),
        ("18.13.10", "18.13.x"),
        ("_OTHER", "_OTHER"),
        ("", ""),
    ],
)
def test_release_of(version: str, release: str) -> None:
    """A release is a version without its last number."""
    assert release_of(version) == release


def test_releases() -> None:
    """A release's way up: since when it is there, and when it had more than half of a week."""
    shares = {"18.2.1": (20, 15, 5, 0), "18.3.0": (0, 5, 10, 12), "18.3.1": (0, 0, 5, 8)}
    starts = [
        start
        for version, numbers in shares.items()
        for n, number in enumerate(numbers)
        for start in starts_on(MONDAY + timedelta(7 * n), number, version=version)
    ]
    weeks, found = releases(make_document(starts))
    assert weeks == ["2026-08-03", "2026-08-10", "2026-08-17", "2026-08-24"]
    assert found == [
        ("18.3.x", "2026-08-10", "2026-08-17", [None, 0.25, 0.75, 1.0]),
        ("18.2.x", None, "2026-08-03", [1.0, 0.75, 0.25, None]),
    ]


def test_side_by_side() -> None:
    """Each run mode's starts with a value, the most common value first."""
    starts = [
        start
        for mode, method, count in (
            ("daemon", "iam", 9),
            ("daemon", "token", 8),
            ("one-shot", "token", 7),
        )
        for start in starts_on(MONDAY, count, run_mode=mode, join_type=method)
    ]
    assert side_by_side(make_document(starts), "join_type") == [
        ("token", {"daemon": 8, "one-shot": 7}),
        ("iam", {"daemon": 9}),
    ]
