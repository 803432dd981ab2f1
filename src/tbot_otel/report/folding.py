"""Folds small groups, so that none can be computed from the rest of the report."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from typing import Any

Key = tuple[Any, ...]
Cells = dict[Key, int]
"""The starts of each row of a table, by its values."""
Margins = Mapping[tuple[int, ...], Collection[Key]]
"""Positions of columns whose totals the report has, and the values for which it shows them."""

# More would only find what readers find with much patience.
_MAX_ROUNDS = 50


def fold(cells: Cells, min_group: int, margins: Margins) -> Cells:
    """Return the cells that are shown: those of at least `min_group` starts, less some.

    Where the starts of a smaller cell follow from the rest, the smallest shown cell in a line with
    it is folded as well. A line is the cells with the same values in the columns of a margin.

    Args:
        cells: The table.
        min_group: The fewest starts of a cell that is shown.
        margins: What else the report shows of the same starts.
    """
    shown = {key: starts for key, starts in cells.items() if starts >= min_group}
    lines_of = {key: _lines_of(key, margins) for key in cells}
    keys_of = defaultdict[Key, list[Key]](list)
    for key, lines in lines_of.items():
        for line in lines:
            keys_of[line].append(key)
    while True:
        hidden = {key: starts for key, starts in cells.items() if key not in shown}
        smallest = set()
        for key in _compute(hidden, lines_of):
            # What has an unknown value anyway has no name.
            columns = (line for line in lines_of[key] if len(line[0]) == 1)
            if cells[key] >= min_group or any(values is None for _, values in columns):
                continue
            # It follows most directly from the shortest line.
            for line in sorted(lines_of[key], key=lambda line: len(keys_of[line])):
                if others := [other for other in keys_of[line] if other in shown]:
                    smallest.add(min(others, key=lambda other: (shown[other], other)))
                    break
        if not smallest:
            return shown
        for key in smallest:
            del shown[key]


def _lines_of(key: Key, margins: Margins) -> list[Key]:
    """Return the names of a cell's lines. Values that are not shown are in one line together."""
    lines: list[Key] = []
    for columns, known in margins.items():
        values = tuple(key[column] for column in columns)
        lines.append((columns, values if values in known else None))
    return [*lines, ((), ())]


def _compute(hidden: Cells, lines_of: Mapping[Key, list[Key]]) -> list[Key]:
    """Return the hidden cells whose starts follow from the sum of each line's hidden cells.

    A reader is assumed to know which cells are hidden.
    """
    sums = Counter[Key]()
    for key, starts in hidden.items():
        for line in lines_of[key]:
            sums[line] += starts
    low = dict.fromkeys(hidden, 0)
    high = {key: min(sums[line] for line in lines_of[key]) for key in hidden}
    for _ in range(_MAX_ROUNDS):
        lowest, highest = Counter[Key](), Counter[Key]()
        for key in hidden:
            for line in lines_of[key]:
                lowest[line] += low[key]
                highest[line] += high[key]
        before = low, high
        low = {
            key: max(0, *(sums[line] - highest[line] + most for line in lines_of[key]))
            for key, most in high.items()
        }
        high = {
            key: min(sums[line] - lowest[line] + least for line in lines_of[key])
            for key, least in before[0].items()
        }
        if (low, high) == before:
            break
    return [key for key, least in low.items() if least == high[key]]
