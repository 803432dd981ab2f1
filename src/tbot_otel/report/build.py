"""Builds the document from the numbers of starts."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from tbot_otel.report.changes import compare
from tbot_otel.report.document import COMPARED, TABLES, Changes, Document, Folded, Records, Table
from tbot_otel.report.folding import Cells, Key, fold
from tbot_otel.report.history import group_versions, make_table, release_of, start_of_week

if TYPE_CHECKING:
    from tbot_otel.report.document import ChangedRow, Row
    from tbot_otel.report.folding import Margins


class Counts(NamedTuple):
    """The numbers of starts, by some of their values.

    Attributes:
        days: By day.
        use_cases: By day, run mode, join method and kinds of destinations.
        values: By day and value, of other columns. The value None stands for rare ones.
        distinct: How many values such a column has.
        tables: Of tables without days.
        has_days: Whether the days of all but `days` are days, and not the first ones of years.
    """

    days: dict[date, int]
    use_cases: Cells
    values: dict[str, Cells]
    distinct: dict[str, int]
    tables: dict[str, Cells]
    has_days: bool = True


def build(
    counts: Counts, records: Records, min_group: int, compare_since: date | None = None
) -> Document:
    """Build the document.

    Args:
        counts: The numbers of starts.
        records: What was read.
        min_group: A row that stands for fewer starts is folded, except in `day`.
        compare_since: See `compare`.
    """
    total = sum(counts.days.values())
    by_day = {name: _project(counts.use_cases, (0, n)) for n, name in enumerate(_USE_CASE, 1)}
    by_day |= counts.values
    cells = {name: _project(of_days, (1,)) for name, of_days in by_day.items()}
    cells |= counts.tables
    cells["run_mode_join_type"] = _project(counts.use_cases, (1, 2))
    cells["run_mode_destinations"] = _project(counts.use_cases, (1, 3))
    cells["use_case"] = _project(counts.use_cases, (1, 2, 3))
    cells["week_release"] = Counter()
    for (day, version), starts in by_day["version"].items() if counts.has_days else ():
        key = start_of_week(day).isoformat(), version and release_of(version)
        cells["week_release"][key] += starts
    shown = _fold(cells, min_group)
    tables: dict[str, Table] = {}
    for name, columns in TABLES.items():
        if columns == ("day",):
            days = {(day.isoformat(),): starts for day, starts in sorted(counts.days.items())}
            tables[name] = _make_table(columns, days, {"groups": 0, "starts": 0})
        elif columns[0] == "day":
            column = columns[1]
            of_days = by_day[column]
            if column == "version":
                of_days = group_versions(of_days, min_group)
            tables[name] = make_table(column, of_days, min_group)
        else:
            rows = shown[name]
            groups = counts.distinct.get(name, len(cells[name])) - len(rows)
            folded: Folded = {"groups": groups, "starts": total - sum(rows.values())}
            is_by_time = columns[0] == "week"
            order = sorted(rows, key=lambda key: (key[:is_by_time], -rows[key], key))
            tables[name] = _make_table(columns, {key: rows[key] for key in order}, folded)
    # The rows that are compared have no number of destinations.
    shown["destinations"] = shown["destination_kinds"]
    first, last = (min(counts.days), max(counts.days)) if total else (None, None)
    return {
        "starts": total,
        "period": {"first": _text(first), "last": _text(last)},
        "records": records,
        "changes": _find_changes(counts, by_day, shown, min_group, compare_since),
        "tables": tables,
    }


_USE_CASE = TABLES["use_case"]


def _text(day: date | None) -> str | None:
    return day.isoformat() if day else None


def _project(cells: Cells, positions: Iterable[int]) -> Cells:
    """Add up cells with the same values at some positions."""
    sums = Counter[Key]()
    kept = tuple(positions)
    for key, starts in cells.items():
        sums[tuple([key[position] for position in kept])] += starts
    return sums


def _fold_values(cells: Cells, min_group: int) -> Cells:
    return {
        key: starts for key, starts in cells.items() if starts >= min_group and key[0] is not None
    }


def _fold(cells: Mapping[str, Cells], min_group: int) -> dict[str, Cells]:
    """Return the cells of each table that are shown."""
    shown = {
        name: _fold_values(of_table, min_group)
        for name, of_table in cells.items()
        if name in ("run_mode", "join_type", "version", "helper", "os_type", "host_arch")
    }
    modes, joins = shown["run_mode"], shown["join_type"]
    kinds = _fold_values(_project(cells["use_case"], (2,)), min_group)
    releases = _fold_values(_project(cells["week_release"], (1,)), min_group)
    weeks = _project(cells["week_release"], (0,))
    margins: dict[str, Margins] = {
        "helper_version": {(0,): shown["helper"]},
        "destinations": {(0,): kinds},
        "week_release": {(0,): weeks, (1,): releases},
        "run_mode_join_type": {(0,): modes, (1,): joins},
        "run_mode_destinations": {(0,): modes, (1,): kinds},
        "use_case": {(0,): modes, (1,): joins, (2,): kinds},
    }
    for name, known in margins.items():
        pairs: Margins = {}
        if name == "use_case":
            pairs = {
                (0, 1): shown["run_mode_join_type"],
                (0, 2): shown["run_mode_destinations"],
            }
        rows = fold(cells[name], min_group, {**known, **pairs})
        shown[name] = {key: starts for key, starts in rows.items() if None not in key}
    shown["destination_kinds"] = kinds
    return shown


def _make_table(columns: Collection[str], rows: Cells, folded: Folded) -> Table:
    named: list[Row] = [
        {**dict(zip(columns, key, strict=True)), "starts": starts} for key, starts in rows.items()
    ]
    return {"rows": named, "folded": folded}


def _find_changes(
    counts: Counts,
    by_day: Mapping[str, Cells],
    shown: Mapping[str, Cells],
    min_group: int,
    since: date | None,
) -> Changes:
    rows = defaultdict[Key, Counter[date]](Counter)
    for name in COMPARED:
        of_days = counts.use_cases if name == "use_case" else by_day[name]
        for (day, *values), starts in of_days.items():
            if tuple(values) in shown[name]:
                rows[name, *values][day] += starts
    comparison = compare(counts.days, rows, since, group_of=lambda key: key[0] == "version")
    visible, visible_version = comparison.smallest_visible or (None, None)
    changed: list[ChangedRow] = []
    for (name, *values), pair in comparison.changes.items():
        before, after = (None if 0 < starts < min_group else starts for starts in pair)
        named = dict(zip(COMPARED[name], values, strict=True))
        changed.append({"table": name, **named, "before": before, "after": after})
    return {
        "periods": [
            {
                "first": _text(period[0] if period else None),
                "last": _text(period[-1] if period else None),
                "starts": starts,
            }
            for period, starts in zip(comparison.periods, comparison.starts, strict=True)
        ],
        "rows": changed,
        "compared": comparison.compared,
        "smallest_visible": visible,
        "smallest_visible_version": visible_version,
    }
