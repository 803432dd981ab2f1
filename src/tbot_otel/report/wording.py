"""The report's words: what the terminal view and the page say alike."""

import unicodedata
from datetime import date
from typing import NamedTuple

from tbot_otel.report.changes import MAX_DAYS, MIN_DAYS, MIN_STARTS
from tbot_otel.report.document import COMPARED, REASONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tbot_otel.report.document import Changes, ComparedPeriod, Document, Folded, Records

COLUMNS = {
    "day": "Day",
    "release": "Release",
    "run_mode": "Run mode",
    "join_type": "Join method",
    "version": "Version",
    "helper": "Helper",
    "helper_version": "Its version",
    "destinations": "Kinds of destinations",
    "destination_count": "Destinations",
    "os_type": "Operating system",
    "host_arch": "Architecture",
}
"""The headings of the tables' columns."""

QUESTIONS = {
    "changes": "Is it changing?",
    "use_case": "What is tbot used for?",
    "run_mode": "How often does it start?",
    "join_type": "How does it join?",
    "version": "Which versions run, and how fast is a release taken up?",
    "destinations": "What does it give access to?",
    "helper": "Which programs run it?",
    "os_type": "Where does it run?",
    "records": "What is counted?",
}
"""The questions, by the table that answers first."""


def limits(min_group: int) -> list[str]:
    """What the numbers mean, and what they do not."""
    text = (
        "A start is one process of tbot. It is not a person, a machine or an agent: a job starts "
        "tbot at each run, and a daemon can run for weeks after one start. Nothing ties two starts "
        "together, so agents cannot be counted.\n"
        "Starts without consent are not sent, so they are not here. Days are UTC. _OTHER stands "
        "for every value that is not a known one.\n"
    )
    if min_group > 1:
        text += (
            f"Not shown are groups of fewer than {min_group} starts, and those from which one "
            "could be computed. This hides names, not counts, and only within one report: two "
            "reports of overlapping periods can differ by a small group."
        )
    return text.splitlines()


NOTHING = "There is no start in what was read."
"""What a report without any start says. `records` says why."""


def describe(value: str | int) -> str:
    """A value as readers see it: without characters that control a terminal or reorder text."""
    text = str(value).replace("+", " + ")
    visible = ("\ufffd" if unicodedata.category(c).startswith("C") else c for c in text)
    return "".join(visible) or "none"


def count(value: int, noun: str) -> str:
    """A number and its noun, in the plural unless it is 1."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def percent(part: int, whole: int) -> str:
    """A share. Neither none nor all is claimed by rounding."""
    share = 100 * part / whole if whole else 0
    if 0 < share < 1:
        return "<1%"
    if 99 < share < 100:
        return ">99%"
    return f"{share:.0f}%"


def part(some: int, whole: int) -> str:
    """A number of starts, as a part of others."""
    return f"{some:,} of {count(whole, 'start')} ({percent(some, whole)})"


def period(report: "Document") -> str:
    """The first and the last day."""
    first, last = report["period"]["first"], report["period"]["last"]
    if first is None or last is None:
        return "no days"
    return first if first == last else f"{first} to {last}"


def busiest_day(report: "Document") -> str:
    """A sentence on the starts a day. The report must have a start."""
    rows = report["tables"]["day"]["rows"]
    busiest = max(rows, key=lambda row: int(row["starts"]))
    return (
        f"{count(report['starts'], 'start')} on {count(len(rows), 'day')}. "
        f"The busiest day: {busiest['day']}, {count(int(busiest['starts']), 'start')}."
    )


def folded(table: "Folded") -> str:
    """The line for the small groups of a table; empty if there are none."""
    if not table["groups"]:
        return ""
    return f"Not shown: {count(table['groups'], 'group')}, {count(table['starts'], 'start')}"


def all_folded(document: "Document", min_group: int) -> str:
    """The sentence that is in place of all tables if no row of them is shown; empty if one is."""
    tables = document["tables"].items()
    if any(table["rows"] for name, table in tables if not name.startswith("day")):
        return ""
    return (
        f"All groups have fewer than {min_group} starts, so none is shown. To see them, use "
        "--min-group 1."
    )


def changes(document: "Document") -> str:
    """The sentence that answers whether something changes."""
    found = document["changes"]
    starts = sum(one["starts"] for one in found["periods"])
    days = sum(map(_days, found["periods"]))
    if days > MAX_DAYS:
        return f"Too long to compare: {count(days, 'day')}. --since and --until choose fewer."
    if found["smallest_visible"] is None:
        if days < 2 * MIN_DAYS or starts < 2 * MIN_STARTS:
            return (
                f"Too little to compare: {count(starts, 'start')} on {count(days, 'whole day')}; "
                f"{2 * MIN_DAYS} days and {2 * MIN_STARTS} starts are needed."
            )
        before, after = (
            f"{count(one['starts'], 'start')} on {count(_days(one), 'whole day')}"
            for one in found["periods"]
        )
        return (
            f"Too little to compare: {before} with {after}; "
            f"{MIN_DAYS} days and {MIN_STARTS} starts are needed in each period."
        )
    before, after = (
        f"{one['first']} to {one['last']} ({count(one['starts'], 'start')})"
        for one in found["periods"]
    )
    smallest, of_versions = (
        f"{100 * (found[name] or 0):.1f}"
        for name in ("smallest_visible", "smallest_visible_version")
    )
    changes = count(len(found["rows"]), "change") if found["rows"] else "No clear change"
    return (
        f"{changes} of {count(found['compared'], 'share')}, comparing {before} with {after}. "
        f"A change of less than {smallest} percentage points ({of_versions} for versions) cannot "
        "be told from noise."
    )


def _days(one: "ComparedPeriod") -> int:
    if one["first"] is None or one["last"] is None:
        return 0
    return (date.fromisoformat(one["last"]) - date.fromisoformat(one["first"])).days + 1


CHANGES_NOTE = (
    "A change is larger than shuffled days would give. One customer who arrives, leaves or runs "
    "for two weeks can be the reason."
)
"""What a change means."""


class Change(NamedTuple):
    """A change in words: which, of what, how, and the starts before and after with their shares."""

    column: str
    value: str
    kind: str
    before: str
    after: str


FIRST_WEEK = "the first week read"
NEVER = "never"
SMALL_NOTE = "A group that is too small to be shown is blank."


def mode_totals(document: "Document") -> dict[str, int]:
    """The starts of each run mode that is shown."""
    rows = document["tables"]["run_mode"]["rows"]
    return {str(row["run_mode"]): int(row["starts"]) for row in rows}


def of_modes(counts: "Mapping[str, int]", modes: "Mapping[str, int]") -> list[str]:
    """The starts of each run mode, with their share of its starts; empty if they are not shown."""
    return [
        f"{counts[mode]:,} ({percent(counts[mode], total)})" if mode in counts else ""
        for mode, total in modes.items()
    ]


def list_shares(shares: "Iterable[float | None]") -> str:
    """Shares in words, for those who do not see a picture."""
    return ", ".join("none shown" if share is None else f"{share:.0%}" for share in shares)


def list_changes(document: "Document", min_group: int) -> list[Change]:
    """The changes in words, the largest first."""
    found = document["changes"]
    listed = []
    for row in found["rows"]:
        columns = COMPARED[str(row["table"])]
        names = [COLUMNS[column] for column in columns]
        value = " · ".join(describe(row[column] or "") for column in columns)
        before, after = (row[side] for side in ("before", "after"))
        kind = (
            "new"
            if before == 0
            else "gone"
            if after == 0
            else "rose"
            if before is None or (after is not None and _rises(found, int(before), int(after)))
            else "fell"
        )
        texts = [
            f"fewer than {min_group}"
            if starts is None
            else f"{starts:,} ({percent(int(starts), one['starts'])})"
            for starts, one in zip((before, after), found["periods"], strict=True)
        ]
        column = names[0] if len(names) == 1 else "Use case"
        listed.append(Change(column, value, kind, *texts))
    return listed


def _rises(found: "Changes", before: int, after: int) -> bool:
    first, second = (one["starts"] for one in found["periods"])
    return after * first > before * second


def records(report: "Document") -> list[str]:
    """What was read, in sentences."""
    read: Records = report["records"]
    refused = sum(read["refused"].values())
    starts, duplicates = count(report["starts"], "start"), count(read["duplicate"], "duplicate")
    sentences = [
        f"{count(read['read'], 'record')} read: {starts}, {duplicates}, {refused:,} refused."
    ]
    if read["duplicate"]:
        sentences.append("A duplicate has the session id of a start that is counted already.")
    if refused:
        reasons = [
            f"{REASONS.get(reason, reason)}: {records:,}"
            for reason, records in read["refused"].items()
        ]
        sentences.append(f"Refused are {'; '.join(reasons)}.")
    if read["unreadable"]:
        parts = count(read["unreadable"], "part")
        sentences.append(f"Of the input, {parts} could not be understood.")
    if read["future"]:
        starts = count(read["future"], "start")
        sentences.append(f"In the future: {starts}. A clock was wrong, or they never happened.")
    return sentences
