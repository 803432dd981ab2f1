"""The report as a document: its tables, its changes, and why records are not in them."""

from typing import Final, NotRequired, TypedDict

TABLES: Final[dict[str, tuple[str, ...]]] = {
    "day": ("day",),
    "day_run_mode": ("day", "run_mode"),
    "day_join_type": ("day", "join_type"),
    "day_version": ("day", "version"),
    "week_release": ("week", "release"),
    "run_mode": ("run_mode",),
    "join_type": ("join_type",),
    "version": ("version",),
    "helper": ("helper",),
    "helper_version": ("helper", "helper_version"),
    "destinations": ("destinations", "destination_count"),
    "os_type": ("os_type",),
    "host_arch": ("host_arch",),
    "run_mode_join_type": ("run_mode", "join_type"),
    "run_mode_destinations": ("run_mode", "destinations"),
    "use_case": ("run_mode", "join_type", "destinations"),
}
"""The columns of every table, by its name.

`day` is a UTC day, ``YYYY-MM-DD``; in a table with a `unit`, it is the first day of the unit.
`week` is a Monday. `destinations` has the kinds that a start has any of, joined with ``+``:
``application+kubernetes``. `destination_count` is how many it has of all kinds. It is the only
column with numbers. `release` is a version without its last number, ``18.3.x``. The others have a
record's values: an empty string is no join method, no helper, no version of it, or no destination.
"""

COMPARED: Final[dict[str, tuple[str, ...]]] = {
    **{name: (name,) for name in ("run_mode", "join_type", "version", "helper")},
    "destinations": ("destinations",),
    "os_type": ("os_type",),
    "use_case": TABLES["use_case"],
}
"""The columns that are compared between two periods, by the table that has them."""

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
    """Lines, messages or parts of a line that are not OTLP. They are not in `read`."""
    future: int
    """Starts of a day after today."""


class Folded(TypedDict):
    """The rows that are not shown: how many, and how many starts they have together."""

    groups: int
    starts: int


Row = dict[str, str | int]
"""A row: a value for each column of its table, and `starts`."""


class Table(TypedDict):
    """A table. In those with time, it ascends; within a time, and elsewhere, starts descend.

    `rows` and `folded` add up to all starts.
    """

    rows: list[Row]
    folded: Folded
    unit: NotRequired[str]
    """Of the tables of days with values: ``day``, ``week``, ``month`` or ``year``.

    A value has rows only if it can have all of them. The folded groups are the other values.
    """


class ComparedPeriod(TypedDict):
    """A period of whole days that is compared; None if there is no day."""

    first: str | None
    last: str | None
    starts: int


ChangedRow = dict[str, str | int | None]
"""`table`, the values of its columns, and `before` and `after`: starts; None if they are few."""


class Changes(TypedDict):
    """What differs between two periods by more than shuffled days do.

    `rows` has the largest changes of shares first, of `compared` rows. `smallest_visible` is the
    smallest change of a share that could be seen, for versions `smallest_visible_version`; None if
    there is too little to compare.
    """

    periods: list[ComparedPeriod]
    rows: list[ChangedRow]
    compared: int
    smallest_visible: float | None
    smallest_visible_version: float | None


class Document(TypedDict):
    """The document that ``--format json`` prints. `tables` has the names and order of `TABLES`."""

    starts: int
    period: Period
    records: Records
    changes: Changes
    tables: dict[str, Table]
