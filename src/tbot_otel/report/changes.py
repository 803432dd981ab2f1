"""Compares two periods: what changed by more than shuffled days would."""

import math
import random
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final, NamedTuple

MIN_DAYS: Final = 7
"""The fewest days of each period."""
MIN_STARTS: Final = 50
"""The fewest starts of each period."""
MAX_DAYS: Final = 1_100
"""The most days, of both together."""

_MIN_ROW_STARTS = 20
_MIN_DAYS_OF_WEEKS = 84
_SHUFFLES = 999
_MAX_FALSE = 0.05
_MIN_CHANGE = 0.01
_SEED = 1
_ONE_DAY = timedelta(1)

Key = tuple[Any, ...]


class Comparison(NamedTuple):
    """Two periods, and the rows whose shares differ.

    Attributes:
        periods: The days of each.
        starts: The starts of each.
        changes: The starts before and after of each changed row, the largest change first.
        compared: How many rows were compared.
        smallest_visible: The smallest change of a share that could be seen in any row of each
            group; None if there is too little to compare.
    """

    periods: tuple[Sequence[date], Sequence[date]]
    starts: tuple[int, int]
    changes: dict[Key, tuple[int, int]]
    compared: int = 0
    smallest_visible: tuple[float, float] | None = None


def compare(
    days: Mapping[date, int],
    rows: Mapping[Key, Mapping[date, int]],
    since: date | None = None,
    *,
    group_of: Callable[[Key], bool],
) -> Comparison:
    """Compare two periods.

    Starts are not independent: one job starts tbot a thousand times. So the days, from 12 weeks on
    whole weeks, are shuffled between the periods. A change is one that, in standard errors, is
    larger than the largest of any row of its group in 97.5 % of the shuffles: the largest of either
    group in 95 %. If all rows are of one group, 95 % are enough.

    Args:
        days: The starts of each day.
        rows: The starts of each row, by day.
        since: The first day of the second period; by default, both have the same length.
        group_of: The group of a row. A release changes the shares of all versions, next to which no
            other change would be seen.
    """
    before, after = _split(days, since)
    starts = tuple(sum(days.get(day, 0) for day in period) for period in (before, after))
    comparison = Comparison((before, after), (starts[0], starts[1]), {})
    size = len(before) + len(after)
    if min(len(before), len(after)) < MIN_DAYS or min(starts) < MIN_STARTS or size > MAX_DAYS:
        return comparison
    counts = {
        key: (sum(row.get(day, 0) for day in before), sum(row.get(day, 0) for day in after))
        for key, row in rows.items()
    }
    least, most = _MIN_ROW_STARTS, sum(starts) - _MIN_ROW_STARTS
    compared = [key for key, pair in counts.items() if least <= sum(pair) <= most]
    length = 7 if size >= _MIN_DAYS_OF_WEEKS and not (len(before) % 7 or len(after) % 7) else 1
    groups = [[key for key in compared if group_of(key) == group] for group in (False, True)]
    quantile = 1 - _MAX_FALSE / max(1, sum(map(bool, groups)))
    visible = []
    changed: dict[Key, float] = {}
    for keys in groups:
        blocks = [
            [
                sum(row.get(day, 0) for day in period[n : n + length])
                for row in (days, *(rows[key] for key in keys))
            ]
            for period in (before, after)
            for n in range(0, len(period), length)
        ]
        noise = _measure_noise(blocks, len(after) // length, quantile)
        needed = {
            key: max(_MIN_CHANGE, noise * _standard_error(sum(counts[key]), starts)) for key in keys
        }
        shares = {key: counts[key][1] / starts[1] - counts[key][0] / starts[0] for key in keys}
        changed |= {key: abs(shares[key]) for key in keys if abs(shares[key]) > needed[key]}
        visible.append(min(needed.values(), default=_MIN_CHANGE))
    return comparison._replace(
        changes={key: counts[key] for key in sorted(changed, key=lambda key: -changed[key])},
        compared=len(compared),
        smallest_visible=(visible[0], visible[1]),
    )


def _split(days: Mapping[date, int], since: date | None) -> tuple[list[date], list[date]]:
    """Return the days of each period: all but the first and the last, which can be incomplete."""
    if not days:
        return [], []
    first, last = min(days) + _ONE_DAY, max(days) - _ONE_DAY
    whole = [first + timedelta(n) for n in range((last - first).days + 1)]
    middle = len(whole) // 2 if since is None else (since - first).days
    middle = min(max(middle, 0), len(whole))
    before, after = whole[:middle], whole[middle:]
    # Of a few weeks, days are shuffled; of many, whole weeks next to the boundary.
    if len(whole) >= _MIN_DAYS_OF_WEEKS and min(len(before), len(after)) >= 2 * 7:
        before, after = before[len(before) % 7 :], after[: len(after) - len(after) % 7]
    return before, after


def _standard_error(count: int, starts: tuple[int, ...]) -> float:
    """Return the standard error of the difference of a row's shares, if starts were independent."""
    share = count / sum(starts)
    return math.sqrt(share * (1 - share) * sum(1 / of_period for of_period in starts))


def _measure_noise(blocks: Sequence[Sequence[int]], count: int, quantile: float) -> float:
    """Return how many standard errors the largest change of any row exceeds in few shuffles.

    Args:
        blocks: The starts of each block of days: of all rows, and of each.
        count: How many blocks the second period has.
        quantile: The share of shuffles that do not exceed it.
    """
    chance = random.Random(_SEED)  # noqa: S311 - not a secret
    # All counts of a block are digits of one number, so that a sum is one addition.
    numbers = [int.from_bytes(array("Q", block).tobytes(), sys.byteorder) for block in blocks]
    total, *counts = (sum(column) for column in zip(*blocks, strict=True))
    weights = [1 / math.sqrt(of_row * (total - of_row)) * total for of_row in counts]
    size = 8 * len(blocks[0])
    largest = []
    for _ in range(_SHUFFLES):
        part = sum(chance.sample(numbers, count))
        after, *starts = array("Q", part.to_bytes(size, sys.byteorder))
        before = total - after
        if not after or not before:
            largest.append(math.inf)
            continue
        # The difference of the shares, in standard errors.
        one, other = 1 / after + 1 / before, 1 / before
        highest = max(
            (
                weight * abs(of_row * one - whole * other)
                for of_row, whole, weight in zip(starts, counts, weights, strict=True)
            ),
            default=0.0,
        )
        largest.append(highest / math.sqrt(one))
    return sorted(largest)[round(quantile * (_SHUFFLES + 1)) - 1]
