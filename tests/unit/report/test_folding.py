"""Small groups: what a reader can compute from a whole report."""

import random
from itertools import product
from typing import TYPE_CHECKING

import pytest

from support.report_data import Start, make_document, simulate
from tbot_otel.report.document import TABLES, Document
from tbot_otel.report.folding import Cells, Key, fold

if TYPE_CHECKING:
    from tbot_otel.report.folding import Margins

MIN_GROUP = 5


def cells(document: Document, table: str) -> Cells:
    """The rows of a table."""
    return {
        tuple(row[column] for column in TABLES[table]): int(row["starts"])
        for row in document["tables"][table]["rows"]
    }


# What else the report shows of the same starts: the table, and the positions of its columns.
MARGINS: dict[str, list[tuple[str, tuple[int, ...]]]] = {
    "helper_version": [("helper", (0,))],
    "run_mode_join_type": [("run_mode", (0,)), ("join_type", (1,))],
    "run_mode_destinations": [("run_mode", (0,))],
    "use_case": [
        *(("run_mode", (0,)), ("join_type", (1,))),
        *(("run_mode_join_type", (0, 1)), ("run_mode_destinations", (0, 2))),
    ],
}


def compute(shown: Document, whole: Document, table: str) -> list[Key]:
    """The small cells of a table whose starts follow from the sums that the report shows.

    The attacker takes each combination of names for a cell, and narrows its starts by intervals.
    """
    visible, true = cells(shown, table), cells(whole, table)
    names: list[set[object]] = [
        {row[column] for row in whole["tables"][table]["rows"]} | {None} for column in TABLES[table]
    ]
    for margin, positions in MARGINS[table]:
        if len(positions) == 1:
            names[positions[0]] = {value for (value,) in cells(shown, margin)}
            if shown["tables"][margin]["folded"]["groups"]:
                names[positions[0]].add(None)
    unknown = {*product(*names)} - visible.keys()
    lines = [(unknown, shown["starts"] - sum(visible.values()))]
    for margin, positions in MARGINS[table]:
        for values, total in cells(shown, margin).items():
            line = {key for key in unknown if tuple(key[n] for n in positions) == values}
            known = [key for key in visible if tuple(key[n] for n in positions) == values]
            lines.append((line, total - sum(visible[key] for key in known)))
    low, high = dict.fromkeys(unknown, 0), dict.fromkeys(unknown, shown["starts"])
    for _ in range(20):
        for line, total in lines:
            least, most = sum(low[key] for key in line), sum(high[key] for key in line)
            for key in line:
                highest = min(high[key], total - least + low[key])
                lowest = max(low[key], total - most + high[key])
                least, most = least + lowest - low[key], most + highest - high[key]
                low[key], high[key] = lowest, highest
    assert all(low[key] <= true.get(key, 0) <= high[key] for key in unknown if None not in key)
    return [key for key in unknown if low[key] == high[key] and 0 < true.get(key, 0) < MIN_GROUP]


@pytest.mark.parametrize("count", [60, 300, 1_000, 8_000])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_folded_cell_can_be_computed(count: int, seed: int) -> None:
    """An interval attack on a report recovers no folded cell of two or three columns."""
    starts = simulate(30, count, seed=seed)
    shown, whole = make_document(starts), make_document(starts, min_group=1)
    for table in MARGINS:
        assert not compute(shown, whole, table)
        assert all(row >= MIN_GROUP for row in cells(shown, table).values())


def test_attack_recovers_without_folding_more() -> None:
    """If only the small cells were folded, the same attack would recover some."""
    table = {("daemon", "token"): 20, ("one-shot", "token"): 3, ("one-shot", "gitlab"): 9}
    starts = [
        Start("2026-08-03", run_mode=mode, join_type=method)
        for (mode, method), count in table.items()
        for _ in range(count)
    ]
    shown, whole = make_document(starts), make_document(starts, min_group=1)
    assert not compute(shown, whole, "run_mode_join_type")
    rows = whole["tables"]["run_mode_join_type"]["rows"]
    shown["tables"]["run_mode_join_type"]["rows"] = rows[:2]
    assert compute(shown, whole, "run_mode_join_type") == [("one-shot", "token")]


@pytest.mark.parametrize("column", ["run_mode", "join_type", "version"])
def test_no_folded_cell_of_a_day_can_be_computed(column: str) -> None:
    """In a table by time, whole values are folded, at least two, so that no cell is exact."""
    for count in (40, 300, 1_000):
        document = make_document(simulate(40, count))
        table = document["tables"][f"day_{column}"]
        assert table["folded"]["groups"] != 1
        assert all(int(row["starts"]) >= MIN_GROUP for row in table["rows"])


def test_smallest_shown_cell_of_the_line_is_folded() -> None:
    """Not more is folded than is needed, and the smallest."""
    table = {("a", "x"): 3, ("a", "y"): 20, ("a", "z"): 10, ("b", "x"): 40, ("b", "y"): 30}
    known: Margins = {(0,): {("a",), ("b",)}}
    assert fold(table, MIN_GROUP, known) == {
        key: starts for key, starts in table.items() if key not in (("a", "x"), ("a", "z"))
    }
    assert fold(table, MIN_GROUP, {}) == fold(table, MIN_GROUP, known)
    assert fold(table, 1, known) == table


def test_folding_ends() -> None:
    """Whatever the table, folding ends, and shows no small cell."""
    chance = random.Random(1)  # noqa: S311 - not a secret
    for _ in range(100):
        size = chance.randrange(1, 6)
        table = {
            key: starts
            for key in product(range(size), repeat=2)
            if (starts := chance.choice((0, 1, 4, 5, 9)))
        }
        margins: Margins = {
            (0,): {(n,) for n in range(size)},
            (1,): {(n,) for n in range(size - 1)},
        }
        assert all(starts >= MIN_GROUP for starts in fold(table, MIN_GROUP, margins).values())
