"""Sums over the table of destinations."""

from support.report_data import Start, make_document
from tbot_otel.report.destinations import destinations


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
