"""The report's words: what the terminal view and the page say alike."""

import unicodedata

from tbot_otel.report.document import REASONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tbot_otel.report.document import Document, Folded, Records

COLUMNS = {
    "day": "Day",
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

LIMITS = (
    "A start is one process of tbot. It is not a person, a machine or an agent: a job starts tbot "
    "at each run, and a daemon can run for weeks after one start. Nothing ties two starts "
    "together, so agents cannot be counted.\n"
    "Starts without consent are not sent, so they are not here. Days are UTC. _OTHER stands for "
    "every value that is not a known one.\n"
).splitlines()
"""What the numbers mean, and what they do not."""

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


def folded(table: "Folded", min_group: int) -> str:
    """The line for the small groups of a table; empty if there are none."""
    if not table["groups"]:
        return ""
    groups = count(table["groups"], "group")
    return f"{groups} with fewer than {min_group} starts each: {count(table['starts'], 'start')}"


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
        sentences.append(f"{count(read['unreadable'], 'line')} could not be read as OTLP/JSON.")
    return sentences
