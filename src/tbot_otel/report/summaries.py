"""Sums of a report's rows that both views show."""

from collections import Counter, defaultdict
from datetime import date
from typing import NamedTuple

from tbot_otel.report.document import DESTINATION_KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tbot_otel.report.document import Document


class Unit(NamedTuple):
    """A length of time.

    Attributes:
        name: Its name.
        number_of: The number of the unit that a day is in; consecutive units have consecutive
            numbers.
        label: The start of the unit with a number, as far as it is needed.
    """

    name: str
    number_of: "Callable[[date], int]"
    label: "Callable[[int], str]"


UNITS = (
    Unit("day", date.toordinal, lambda n: date.fromordinal(n).isoformat()),
    # 0001-01-01, the day with the number 1, is a Monday.
    Unit(
        "week",
        lambda day: (day.toordinal() - 1) // 7,
        lambda n: date.fromordinal(7 * n + 1).isoformat(),
    ),
    Unit(
        "month",
        lambda day: 12 * day.year + day.month - 1,
        lambda n: f"{n // 12:04}-{n % 12 + 1:02}",
    ),
    Unit("year", lambda day: day.year, lambda n: f"{n:04}"),
    Unit("decade", lambda day: day.year // 10, lambda n: f"{10 * n:04}"),
    Unit("century", lambda day: day.year // 100, lambda n: f"{100 * n:04}"),
    Unit("millennium", lambda day: day.year // 1000, lambda n: f"{1000 * n:04}"),
)


class History(NamedTuple):
    """The starts in each unit of a period, also in those without any.

    Attributes:
        unit: The name of the unit.
        labels: The start of each unit.
        totals: The starts in each.
        parts: The starts in each with a value, by the value. A day's small groups are in none.
    """

    unit: str
    labels: list[str]
    totals: list[int]
    parts: dict[str, list[int]]


def history(report: "Document", column: str, max_units: int) -> History:
    """The history of a column, in the shortest units of which there are few enough.

    Args:
        report: The report. It must have a start.
        column: A column that the report has a table for by day: ``run_mode``, for example.
        max_units: The most units, at least 10.
    """
    days = {date.fromisoformat(str(row["day"])): row for row in report["tables"]["day"]["rows"]}
    first, last = min(days), max(days)
    unit = next(unit for unit in UNITS if unit.number_of(last) - unit.number_of(first) < max_units)
    units = range(unit.number_of(first), unit.number_of(last) + 1)
    totals = Counter[int]()
    for day, row in days.items():
        totals[unit.number_of(day)] += int(row["starts"])
    parts = defaultdict[str, Counter[int]](Counter)
    for row in report["tables"][f"day_{column}"]["rows"]:
        index = unit.number_of(date.fromisoformat(str(row["day"])))
        parts[str(row[column])][index] += int(row["starts"])
    return History(
        unit.name,
        [unit.label(index) for index in units],
        [totals[index] for index in units],
        {value: [counts[index] for index in units] for value, counts in parts.items()},
    )


class Destinations(NamedTuple):
    """The starts by their destinations, in the order in which they are shown.

    Attributes:
        by_kind: By kind, whatever the other kinds are.
        by_combination: By all kinds that a start has.
        counts: By the number of destinations.
    """

    by_kind: dict[str, int]
    by_combination: dict[str, int]
    counts: dict[int, int]


def destinations(report: "Document") -> Destinations:
    """Add up the rows of the table of destinations."""
    by_kind, by_combination, counts = Counter[str](), Counter[str](), Counter[int]()
    for row in report["tables"]["destinations"]["rows"]:
        kinds, starts = str(row["destinations"]), int(row["starts"])
        by_combination[kinds] += starts
        counts[int(row["destination_count"])] += starts
        for kind in kinds.split("+"):
            if kind in DESTINATION_KINDS:
                by_kind[kind] += starts
    return Destinations(
        dict(by_kind.most_common()),
        dict(by_combination.most_common()),
        dict(sorted(counts.items())),
    )
