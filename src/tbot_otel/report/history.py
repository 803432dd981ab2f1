"""Starts by time, in units that are as short as small groups allow."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from tbot_otel.report.document import Document, Table

if TYPE_CHECKING:
    from tbot_otel.report.document import Row

MAX_UNITS: Final = 31
"""The most units of a period, unless they are years."""
MAX_VERSIONS: Final = 9
"""The most versions of a table by time. If there are more, they are added up."""

# Of the starts, in the column of all others. More can be in it where fewer bars would be left, as
# one or two show no course of time.
_MAX_OTHERS = 0.2
_MAX_OTHERS_OF_SEVERAL = 0.6
_SEVERAL = 3

Counts = dict[tuple[date, str | None], int]
"""The starts of each day, or first day of a unit, with a value; None stands for rare values."""


def start_of_week(day: date) -> date:
    """Return the Monday of a day's week."""
    return day - timedelta(day.weekday())


_UNITS: dict[str, tuple[Callable[[date], date], int, int]] = {
    "day": (lambda day: day, 1, 10),
    "week": (start_of_week, 7, 10),
    "month": (lambda day: day.replace(day=1), 31, 7),
    "year": (lambda day: day.replace(month=1, day=1), 366, 4),
}
"""The first day of a day's unit, at least its days, and the characters of its label."""


def units_between(first: date, last: date, unit: str) -> Iterator[date]:
    """Return the first day of each unit of a period."""
    start_of, most_days, _ = _UNITS[unit]
    day = start_of(first)
    while day <= last:
        yield day
        day = start_of(day + timedelta(most_days))


def release_of(version: str, numbers: int = 2) -> str:
    """Return the release of a version, such as ``18.3.x``, or with one number ``18.x``."""
    match = re.match(rf"(?:\d+\.){{{numbers}}}(?=\d)", version)
    return f"{match[0]}x" if match else version


def group_versions(counts: Counts, min_group: int) -> Counts:
    """Add up versions with the same first numbers, if there are many."""
    for numbers in (2, 1):
        totals = Counter[str | None]()
        for (_, version), starts in counts.items():
            totals[version] += starts
        if sum(starts >= min_group for starts in totals.values()) <= MAX_VERSIONS:
            break
        grouped = Counter[tuple[date, str | None]]()
        for (day, version), starts in counts.items():
            grouped[day, version and release_of(version, numbers)] += starts
        counts = dict(grouped)
    return counts


def make_table(column: str, counts: Counts, min_group: int) -> Table:
    """Return the table of days and a column.

    A value has rows only if all of its rows have `min_group` starts; the others are folded, and are
    at least two. The unit is the shortest in which few starts are folded.
    """
    total = sum(counts.values())
    days = [day for day, _ in counts]
    best: Table = {"rows": [], "folded": {"groups": 0, "starts": total + 1}, "unit": "day"}
    for unit, (start_of, _, _) in _UNITS.items():
        if not total or best["folded"]["starts"] <= _MAX_OTHERS * total:
            break
        count = sum(1 for _ in units_between(min(days), max(days), unit))
        if count > MAX_UNITS and unit != "year":
            continue
        if count < _SEVERAL and best["folded"]["starts"] <= _MAX_OTHERS_OF_SEVERAL * total:
            break
        table = _make_table(column, counts, min_group, unit, start_of)
        if table["folded"]["starts"] < best["folded"]["starts"]:
            best = table
    if not total:
        best["folded"]["starts"] = 0
    return best


def _make_table(
    column: str, counts: Counts, min_group: int, unit: str, start_of: Callable[[date], date]
) -> Table:
    cells = defaultdict[str | None, Counter[date]](Counter)
    for (day, value), starts in counts.items():
        cells[value][start_of(day)] += starts
    totals = {value: sum(parts.values()) for value, parts in cells.items()}
    others = {
        value for value, parts in cells.items() if value is None or min(parts.values()) < min_group
    }
    if len(others) == 1 and len(cells) > 1:
        # Alone, it could be computed.
        others.add(min(cells.keys() - others, key=lambda value: (totals[value], str(value))))
    elif len(cells) == 1:
        others.discard(*cells)
    ordered = sorted(
        (
            (start, -starts, str(value))
            for value in cells.keys() - others
            for start, starts in cells[value].items()
        )
    )
    rows: list[Row] = [
        {"day": start.isoformat(), column: value, "starts": -starts}
        for start, starts, value in ordered
    ]
    folded = sum(totals[value] for value in others)
    return {"rows": rows, "folded": {"groups": len(others), "starts": folded}, "unit": unit}


class History(NamedTuple):
    """The starts in each unit of a period, also in those without any.

    Attributes:
        unit: The name of the unit.
        labels: The first day of each unit, as far as it is needed.
        totals: The starts in each.
        parts: The starts in each with a value, by the value, of those that have rows.
        complete: Whether the starts of all days of the unit can have been read.
    """

    unit: str
    labels: list[str]
    totals: list[int]
    parts: dict[str, list[int]]
    complete: list[bool]


def history(document: Document, column: str) -> History:
    """Return the history of a column.

    Args:
        document: The report. It must have a start.
        column: A column that the report has a table for by day: ``run_mode``, for example.
    """
    table = document["tables"][f"day_{column}"]
    unit = table["unit"]
    start_of, _, label_size = _UNITS[unit]
    days = {
        date.fromisoformat(str(row["day"])): int(row["starts"])
        for row in document["tables"]["day"]["rows"]
    }
    first, last = min(days), max(days)
    units = [*units_between(first, last, unit)]
    totals = Counter[date]()
    for day, starts in days.items():
        totals[start_of(day)] += starts
    parts = defaultdict[str, Counter[str]](Counter)
    for row in table["rows"]:
        parts[str(row[column])][str(row["day"])] = int(row["starts"])
    one_day = timedelta(1)
    if unit == "day":
        complete = [first < day < last for day in units]
    else:
        # The day before the next unit is the last one of this.
        ends = [start_of(day + timedelta(_UNITS[unit][1])) - one_day for day in units]
        complete = [first <= day and end <= last for day, end in zip(units, ends, strict=True)]
    return History(
        unit,
        [day.isoformat()[:label_size] for day in units],
        [totals[day] for day in units],
        {value: [counts[day.isoformat()] for day in units] for value, counts in parts.items()},
        complete if any(complete) else [True] * len(units),
    )


class Release(NamedTuple):
    """A release's way up.

    Attributes:
        name: Such as ``18.3.x``.
        since: The first week in which its starts are shown; None for the first one of all.
        majority_since: The first week in which it had more than half of the starts, or None.
        shares: Its share of each week's starts; None where its starts are not shown, or none.
    """

    name: str
    since: str | None
    majority_since: str | None
    shares: list[float | None]


def releases(document: Document) -> tuple[list[str], list[Release]]:
    """Return the weeks, and the most common releases, the newest first."""
    totals = Counter[str]()
    for row in document["tables"]["day"]["rows"]:
        day = date.fromisoformat(str(row["day"]))
        totals[start_of_week(day).isoformat()] += int(row["starts"])
    parts = defaultdict[str, dict[str, int]](dict)
    for row in document["tables"]["week_release"]["rows"]:
        if re.fullmatch(r"\d+\.\d+\.x", release := str(row["release"])):
            parts[release][str(row["week"])] = int(row["starts"])
    if not parts:
        return [], []
    first, last = (date.fromisoformat(week) for week in (min(totals), max(totals)))
    weeks = [week.isoformat() for week in units_between(first, last, "week")]
    common = sorted(parts, key=lambda name: -sum(parts[name].values()))[:MAX_VERSIONS]
    found = []
    for name in sorted(common, key=version_key, reverse=True):
        shares = [
            parts[name][week] / totals[week] if week in parts[name] else None for week in weeks
        ]
        since = min(parts[name])
        half = (week for week, share in zip(weeks, shares, strict=True) if (share or 0) > 1 / 2)
        found.append(Release(name, None if since == weeks[0] else since, next(half, None), shares))
    return weeks, found


def version_key(version: str) -> tuple[list[int], bool, str]:
    """Return a key that orders versions."""
    numbers, _, stage = version.partition("-")
    return [int(number) for number in re.findall(r"\d{1,9}", numbers)], not stage, stage


def side_by_side(document: Document, column: str) -> list[tuple[str, dict[str, int]]]:
    """Return the starts of each run mode with a value of a column, the most common value first."""
    rows = defaultdict[str, dict[str, int]](dict)
    for row in document["tables"][f"run_mode_{column}"]["rows"]:
        rows[str(row[column])][str(row["run_mode"])] = int(row["starts"])
    return sorted(rows.items(), key=lambda item: (-sum(item[1].values()), item[0]))
