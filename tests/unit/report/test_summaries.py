"""The sums that both views of the report show."""

import pytest

from support.report_data import Start, make_document
from tbot_otel.report import wording
from tbot_otel.report.summaries import destinations, history


@pytest.mark.parametrize(
    ("first", "last", "unit", "labels"),
    [
        ("2026-08-03", "2026-08-03", "day", ["2026-08-03"]),
        ("2026-08-03", "2026-08-12", "day", ["2026-08-03", "2026-08-04"]),
        ("2026-08-05", "2026-08-16", "week", ["2026-08-03", "2026-08-10"]),
        ("2026-11-30", "2027-02-01", "week", ["2026-11-30", "2026-12-07"]),
        ("2026-11-30", "2027-02-08", "month", ["2026-11", "2026-12", "2027-01", "2027-02"]),
        ("1999-12-31", "2008-01-01", "year", ["1999", "2000"]),
        ("1999-12-31", "2009-01-01", "decade", ["1990", "2000"]),
        ("0001-01-01", "0004-12-31", "year", ["0001", "0002", "0003", "0004"]),
        ("1995-01-01", "2262-04-11", "century", ["1900", "2000", "2100", "2200"]),
        ("0001-01-01", "9999-12-31", "millennium", ["0000", "1000"]),
    ],
)
def test_units(first: str, last: str, unit: str, labels: list[str]) -> None:
    """The units are the shortest of which there are few, and the first and last day are in them."""
    past = history(make_document([Start(first), Start(last), Start(last)]), "run_mode", 10)
    assert past.unit == unit
    assert past.labels[: len(labels)] == labels
    assert len(past.labels) <= 10
    assert (sum(past.totals), past.totals[0]) == (3, 3 if len(past.labels) == 1 else 1)
    assert past.totals[-1] >= 2


def test_history_has_gaps_and_parts() -> None:
    """A day without starts counts none, and small groups are in the totals alone."""
    starts = [Start("2026-08-01")] * 6 + [Start("2026-08-03", run_mode="one-shot")] * 5
    past = history(make_document([*starts, Start("2026-08-03")]), "run_mode", 10)
    assert past == (
        "day",
        ["2026-08-01", "2026-08-02", "2026-08-03"],
        [6, 0, 6],
        {"daemon": [6, 0, 0], "one-shot": [0, 0, 5]},
    )


def test_destinations() -> None:
    """A start counts once for each of its kinds, once for them together, and by their number."""
    kinds = {"application": 5, "application+kubernetes": 7, "": 6}
    starts = [
        Start("2026-08-01", destinations=kind, destination_count=2 * bool(kind))
        for kind, count in kinds.items()
        for _ in range(count)
    ]
    assert destinations(make_document(starts)) == (
        {"application": 12, "kubernetes": 7},
        {"application+kubernetes": 7, "": 6, "application": 5},
        {0: 6, 2: 12},
    )


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 7, "0%"), (1, 1_000, "<1%"), (1, 3, "33%"), (999, 1_000, ">99%"), (7, 7, "100%")],
)
def test_percent(part: int, whole: int, text: str) -> None:
    """A share is not rounded to none or to all."""
    assert wording.percent(part, whole) == text
