"""The report's words."""

import pytest

from tbot_otel.report import wording


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 7, "0%"), (1, 1_000, "<1%"), (1, 3, "33%"), (999, 1_000, ">99%"), (7, 7, "100%")],
)
def test_percent(part: int, whole: int, text: str) -> None:
    """A share is not rounded to none or to all."""
    assert wording.percent(part, whole) == text


def test_limits() -> None:
    """The report says which groups it hides, if it hides any."""
    sentences = wording.limits(5)
    assert sentences[-1].startswith("Not shown are groups of fewer than 5 starts")
    assert wording.limits(1) == sentences[:-1]
