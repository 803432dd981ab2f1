"""The report as a document: its tables, and the reasons for which records are not in them."""

from typing import Final, TypedDict

TABLES: Final[dict[str, tuple[str, ...]]] = {
    "day": ("day",),
    "day_run_mode": ("day", "run_mode"),
    "day_join_type": ("day", "join_type"),
    "day_version": ("day", "version"),
    "run_mode": ("run_mode",),
    "join_type": ("join_type",),
    "version": ("version",),
    "helper": ("helper",),
    "helper_version": ("helper", "helper_version"),
    "destinations": ("destinations", "destination_count"),
    "os_type": ("os_type",),
    "host_arch": ("host_arch",),
    "use_case": ("run_mode", "join_type", "destinations"),
}
"""The columns of every table, by its name.

`day` is a UTC day, ``YYYY-MM-DD``. `destinations` has the kinds that a start has any of, joined
with ``+``: ``application+kubernetes``. `destination_count` is how many it has of all kinds. It is
the only column with numbers. The others have a record's values: an empty string is no join method,
no helper, no version of it, or no destination.
"""

DESTINATION_KINDS: Final = ("application", "database", "kubernetes", "other")
"""The kinds in `destinations`, in the order in which they are joined."""

NOT_REPORTED: Final = "not reported"
"""`os_type` and `host_arch` of starts whose records do not have them, such as those of a relay."""

REASONS: Final[dict[str, str]] = {
    "other_signal": "lines of another signal",
    "other_event": "records of another event",
    "invalid_attributes": "records with an invalid count, or attributes that are not OTLP/JSON",
    "invalid_session_id": "records without a valid session id",
    "invalid_time": "records without a valid time",
    "outside_period": "records outside --since and --until",
}
"""Why a record was refused: the keys of `Records.refused`, and what they count, in words."""


class Period(TypedDict):
    """The first and the last day with a start, ``YYYY-MM-DD``; None if there is no start."""

    first: str | None
    last: str | None


class Records(TypedDict):
    """What was read. `read` is the number of starts, plus `duplicate`, plus all of `refused`."""

    read: int
    duplicate: int
    refused: dict[str, int]
    """The records of each reason that occurred; see `REASONS`."""
    unreadable: int
    """Lines that are not OTLP/JSON. They are not in `read`."""


class Folded(TypedDict):
    """The rows that stand for too few starts: how many, and how many starts they have together."""

    groups: int
    starts: int


Row = dict[str, str | int]
"""A row: a value for each column of its table, and `starts`."""


class Table(TypedDict):
    """A table. In those with a day, the days ascend; within a day, and elsewhere, starts descend.

    `rows` and `folded` add up to all starts.
    """

    rows: list[Row]
    folded: Folded


class Document(TypedDict):
    """The document that ``--format json`` prints. `tables` has the names and order of `TABLES`."""

    starts: int
    period: Period
    records: Records
    tables: dict[str, Table]
