"""Sums over the table of destinations, which both views show."""

from collections import Counter
from typing import NamedTuple

from tbot_otel.report.document import DESTINATION_KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tbot_otel.report.document import Document


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
