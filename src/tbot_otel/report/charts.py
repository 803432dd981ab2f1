"""Stacked bars, as rectangles.

No value of a record reaches a chart: it has days and numbers, and colors of its series.
"""

import math
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = {"wide": (670, 220), "narrow": (290, 180)}
"""The width and height in pixels of a chart's bars, at most."""

_MAX_BAR_PIXELS = 50
_BAR_SHARE = 0.88
_CHARACTER_PIXELS = 8
_TICK_CHARACTER_PIXELS = 9
_LABEL_GAP = 8
_TOP, _RIGHT, _BOTTOM, _GAP = 8, 16, 26, 6
_MAX_TICKS = 5


class Part(NamedTuple):
    """The rectangles of a series, as the data of an SVG path.

    Attributes:
        color: Their color.
        complete: Those of complete bars.
        incomplete: Those of others.
    """

    color: str
    complete: str
    incomplete: str


class Drawing(NamedTuple):
    """A chart in one size.

    Attributes:
        width: Its width in pixels.
        height: Its height.
        left: The left end of the bars.
        right: The right end of the bars.
        parts: The rectangles of each series.
        ticks: The place and the text of the numbers beside the bars.
        labels: The place and the text of the labels below the bars.
    """

    width: int
    height: int
    left: int
    right: int
    parts: list[Part]
    ticks: list[tuple[float, str]]
    labels: list[tuple[float, str]]


def draw(
    size: str,
    labels: "Sequence[str]",
    series: "Sequence[tuple[str, Sequence[int]]]",
    complete: "Sequence[bool]",
    *,
    shares: bool,
) -> Drawing:
    """Draw stacked bars.

    Args:
        size: A key of `SIZES`.
        labels: The label of each bar.
        series: The color and the numbers of each series, from the bottom to the top.
        complete: Whether each bar's number is final. The others do not set the scale.
        shares: Whether all bars are equally high.
    """
    max_width, height = SIZES[size]
    totals = [sum(numbers) for numbers in zip(*(numbers for _, numbers in series), strict=True)]
    highest = max(total for total, final in zip(totals, complete, strict=True) if final) or max(
        totals
    )
    texts = (
        [(share / 4, f"{25 * share}%") for share in range(5)]
        if shares
        else [(number / highest, f"{number:,}") for number in round_numbers(highest)]
    )
    left = _GAP + _TICK_CHARACTER_PIXELS * max(len(text) for _, text in texts)
    label_pixels = max(map(len, labels)) * _CHARACTER_PIXELS + _LABEL_GAP
    # Few bars are as wide as their labels, so that each has one.
    step = min(max_width / len(labels), max(_MAX_BAR_PIXELS, label_pixels))
    bars = _Bars(left, step, height)
    right = round(left + step * len(labels))
    scales = [height / (total or 1) if shares else height / highest for total in totals]
    parts = []
    tops = [0.0] * len(labels)
    for color, numbers in series:
        paths = ["", ""]
        for n, number in enumerate(numbers):
            if number:
                bottom, tops[n] = tops[n], tops[n] + number * scales[n]
                paths[not complete[n]] += bars.rectangle(n, bottom, tops[n])
        parts.append(Part(color, *paths))
    return Drawing(
        width=right + _RIGHT,
        height=_TOP + height + _BOTTOM,
        left=left,
        right=right,
        parts=parts,
        ticks=[(_TOP + height * (1 - place), text) for place, text in texts],
        labels=_place_labels(labels, bars, math.ceil(label_pixels / step), right + _RIGHT),
    )


class _Bars(NamedTuple):
    """Where the bars are.

    Attributes:
        left: The left end of the first one.
        step: How far the next one is.
        height: The greatest height.
    """

    left: int
    step: float
    height: int

    def rectangle(self, n: int, bottom: float, top: float) -> str:
        """Return a rectangle of a bar, as the data of a path, from one height to another."""
        # A bar that does not set the scale can be higher than it.
        y, end = (_TOP + self.height - min(place, self.height) for place in (top, bottom))
        x, width = self.left + self.step * (n + (1 - _BAR_SHARE) / 2), self.step * _BAR_SHARE
        return f"M{x:.1f},{y:.1f}h{width:.1f}v{end - y:.1f}h-{width:.1f}z"


def _place_labels(
    labels: "Sequence[str]", bars: _Bars, every: int, end: float
) -> list[tuple[float, str]]:
    """Return the place and the text of every n-th label, without a last one that does not fit."""
    centers = [(bars.left + bars.step * (n + 0.5), label) for n, label in enumerate(labels)]
    return [
        (x, label)
        for x, label in centers[::every]
        if x + len(label) * _CHARACTER_PIXELS / 2 <= end or len(labels) == 1
    ]


def round_numbers(highest: int) -> list[int]:
    """Return a few round numbers from 0 to the highest."""
    step = 1
    while highest / step >= _MAX_TICKS:
        # 1, 2, 5, 10, 20, …
        step = step * 5 // 2 if str(step).startswith("2") else step * 2
    return [*range(0, highest + 1, step)]


def curve(shares: "Sequence[float | None]") -> str:
    """Return small bars of shares as the data of an SVG path, 16 pixels high, 5 for each share."""
    return "".join(
        f"M{5 * n},16v-{16 * share:.1f}h4V16z" for n, share in enumerate(shares) if share
    )
