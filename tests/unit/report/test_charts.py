"""The charts' rectangles."""

import itertools
import re
from typing import NamedTuple

import pytest

from tbot_otel.report.charts import SIZES, Drawing, curve, draw, round_numbers

LABELS = [f"2026-08-{day:02}" for day in range(1, 32)]


class Rectangle(NamedTuple):
    """A rectangle of a path."""

    x: float
    y: float
    width: float
    height: float


def rectangles(path: str) -> list[Rectangle]:
    """The rectangles of a path, which has nothing else."""
    pattern = r"M([\d.]+),([\d.]+)h([\d.]+)v([\d.]+)h-[\d.]+z"
    assert re.fullmatch(f"({pattern})*", path)
    return [Rectangle(*map(float, found)) for found in re.findall(pattern, path)]


def draw_numbers(
    *series: list[int], complete: list[bool] | None = None, shares: bool = False
) -> Drawing:
    """Draw numbers in the wide size."""
    count = len(series[0])
    named = [(f"var(--series-{n})", numbers) for n, numbers in enumerate(series)]
    return draw("wide", LABELS[:count], named, complete or [True] * count, shares=shares)


@pytest.mark.parametrize("shares", [False, True])
def test_heights_are_in_proportion(*, shares: bool) -> None:
    """A rectangle is as high as its number, or its share, and stands on the one below."""
    first, second = [4, 0, 10, 1], [4, 6, 0, 0]
    drawing = draw_numbers(first, second, shares=shares)
    totals = [a + b for a, b in zip(first, second, strict=True)]
    bottom = drawing.height - 26
    for part, numbers in zip(drawing.parts, (first, second), strict=True):
        expected = [
            220 * number / (total if shares else 10)
            for number, total in zip(numbers, totals, strict=True)
            if number
        ]
        found = rectangles(part.complete)
        assert [of.height for of in found] == pytest.approx(expected, abs=0.11)
    below, above = (rectangles(part.complete)[0] for part in drawing.parts)
    assert below.y + below.height == pytest.approx(bottom, abs=0.11)
    assert above.y + above.height == pytest.approx(below.y, abs=0.11)
    assert (above.x, above.width) == (below.x, below.width)


def test_incomplete_bars() -> None:
    """An incomplete bar is apart, does not set the scale, and does not leave the picture."""
    drawing = draw_numbers([5, 10, 40], [1, 0, 0], complete=[False, True, False])
    incomplete = rectangles(drawing.parts[0].incomplete)
    (whole,) = rectangles(drawing.parts[0].complete)
    assert [of.height for of in (incomplete[0], whole, incomplete[1])] == [110, 220, 220]
    assert {incomplete[1].y, whole.y} == {8}
    assert rectangles(drawing.parts[1].incomplete)[0].height == 22
    assert [text for _, text in drawing.ticks] == ["0", "5", "10"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 3, 13, 31, 292])
def test_everything_is_within_the_picture(size: str, count: int) -> None:
    """Bars and labels are in the picture, and labels do not overlap."""
    labels = [f"{1970 + n}-01-01" for n in range(count)]
    drawing = draw(size, labels, [("x", [10**6] * count)], [True] * count, shares=False)
    assert drawing.right <= drawing.left + SIZES[size][0]
    found = rectangles(drawing.parts[0].complete)
    assert len(found) == count
    assert found[0].x >= drawing.left
    assert found[-1].x + found[-1].width <= drawing.right + 0.2
    assert drawing.labels
    places = [x for x, _ in drawing.labels]
    assert all(b - a >= 70 for a, b in itertools.pairwise(places))
    assert count == 1 or places[-1] + 35 <= drawing.width
    # Few bars have a label each.
    assert count > 3 or len(places) == count


@pytest.mark.parametrize(
    ("highest", "numbers"),
    [
        (1, [0, 1]),
        (4, [0, 1, 2, 3, 4]),
        (5, [0, 2, 4]),
        (9, [0, 2, 4, 6, 8]),
        (10, [0, 5, 10]),
        (24, [0, 5, 10, 15, 20]),
        (2_784, [0, 1_000, 2_000]),
        (999_999, [0, 200_000, 400_000, 600_000, 800_000]),
    ],
)
def test_round_numbers(highest: int, numbers: list[int]) -> None:
    """The numbers beside the bars are round, few, and not higher than the bars."""
    assert round_numbers(highest) == numbers


def test_curve() -> None:
    """The small bars leave out what is not shown."""
    assert curve([None, 0.5, 0.0, 1.0]) == "M5,16v-8.0h4V16zM15,16v-16.0h4V16z"
