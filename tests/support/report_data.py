"""Generated starts, and the report of them by the plainest counting."""

import functools
import random
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from tbot_otel.report.build import Counts, build
from tbot_otel.report.count import StartCounter
from tbot_otel.report.document import NOT_REPORTED, TABLES, Document
from tbot_otel.report.folding import Cells, Key
from tbot_otel.report.inputs import find_files
from tbot_otel.report.parse import Parser
from tbot_otel.report.reader import read_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tbot_otel.report.document import Records

HELPER = "acme-deploy"
"""A helper that is allowed."""

FIRST_DAY = date(2026, 8, 3)
RELEASES = (
    *(
        "17.5.4",
        "17.7.1",
        "18.0.0",
        "18.1.2",
        "18.1.5",
        "18.2.0",
        "18.2.1",
        "18.3.0",
        "18.4.0",
    ),
)


def count(*words: Path, folder: Path, min_group: int = 5) -> Document:
    """Count the starts in files, without a process."""
    parser = Parser(0, 10**6, (HELPER,))
    counter = StartCounter(folder)
    for file in find_files([str(word) for word in words]):
        for block in read_blocks(file):
            chunk = parser.parse(block.content, is_protobuf=block.is_protobuf)
            counter.add(chunk, block.skipped)
    counter.finish()
    report = counter.document(min_group)
    counter.close()
    return report


class Start(NamedTuple):
    """One start: the columns of every table."""

    day: str
    run_mode: str = "daemon"
    join_type: str = "token"
    version: str = "18.3.0"
    helper: str = ""
    helper_version: str = ""
    destinations: str = "other"
    destination_count: int = 1
    os_type: str = "linux"
    host_arch: str = "amd64"


def make_document(
    starts: Iterable[Start],
    *,
    min_group: int = 5,
    duplicate: int = 0,
    unreadable: int = 0,
    future: int = 0,
    refused: dict[str, int] | None = None,
    compare_since: date | None = None,
) -> Document:
    """The report of these starts."""
    rows = Counter(starts)
    records: Records = {
        "read": rows.total() + duplicate + sum((refused or {}).values()),
        "duplicate": duplicate,
        "refused": refused or {},
        "unreadable": unreadable,
        "future": future,
    }
    columns = ("version", "helper", "os_type")
    tables = ("helper_version", "destinations", "host_arch")
    counts = Counts(
        days={day: starts for (day,), starts in _count(rows, "day").items()},
        use_cases=_count(rows, "day", *TABLES["use_case"]),
        values={column: _count(rows, "day", column) for column in columns},
        distinct={name: len(_count(rows, *TABLES[name])) for name in (*columns, *tables)},
        tables={name: _count(rows, *TABLES[name]) for name in tables},
    )
    return build(counts, records, min_group, compare_since)


def _count(starts: Counter[Start], *columns: str) -> Cells:
    cells = Counter[Key]()
    positions = [Start._fields.index(column) for column in columns]
    for start, number in starts.items():
        values: list[object] = [start[position] for position in positions]
        if columns[0] == "day":
            values[0] = date.fromisoformat(start.day)
        cells[tuple(values)] += number
    return cells


# How common each value is: of one-shot starts (CI jobs) and of daemons. A pair grows from the first
# to the second number over the period.
_JOIN_TYPES: dict[str, dict[str, tuple[float, float]]] = {
    "one-shot": {
        "github": (30, 70),
        "gitlab": (12, 12),
        "token": (4, 4),
        "circleci": (2.5, 2.5),
        "bitbucket": (0.03, 0.03),
    },
    "daemon": {
        "iam": (20, 20),
        "kubernetes": (15, 25),
        "token": (16, 6),
        "tpm": (4, 4),
        "gcp": (3, 3),
        "azure": (2, 2),
        "bound_keypair": (0, 6),
        "": (0.4, 0.4),
    },
}
_DESTINATIONS: dict[str, dict[str, float]] = {
    "one-shot": {
        "kubernetes": 34,
        "other": 20,
        "application": 8,
        "application+kubernetes": 3,
        "": 0.5,
    },
    "daemon": {
        "other": 50,
        "application": 14,
        "database": 9,
        "kubernetes": 9,
        "database+other": 2,
        "application+database": 4,
        "application+other": 1.5,
        "application+database+kubernetes+other": 0.05,
    },
}
_HELPERS: dict[str, float] = {
    "gha:teleport-actions/auth-k8s": 5,
    "gha:teleport-actions/auth": 4,
    "gha:teleport-actions/auth-application": 1,
}
_HELPER_VERSIONS: dict[str, float] = {"2.1.2": 5, "2.0.3": 3, "1.0.0": 0.5}
_OS_TYPES: dict[str, float] = {"linux": 93, "darwin": 3, "windows": 3, "freebsd": 0.01}
_ARCHITECTURES: dict[str, float] = {"amd64": 78, "arm64": 21}


def simulate(
    days: int, count: int, *, seed: int = 1, releases: tuple[str, ...] = RELEASES
) -> list[Start]:
    """Starts of a fleet: fewer on weekends, more with time, and releases that are taken up.

    Args:
        days: How many days, from `FIRST_DAY`.
        count: How many starts.
        seed: Of the random choices.
        releases: The versions. The first two are there at the start; the others come out evenly.
    """
    chance = random.Random(seed)  # noqa: S311 - not a secret
    calendar = [FIRST_DAY + timedelta(n) for n in range(days)]
    traffic = [
        (0.35 if day.weekday() > 4 else 1) * (1 + n / days) for n, day in enumerate(calendar)
    ]
    return [
        _simulate_start(chance, calendar[n].isoformat(), n, days, releases)
        for n in sorted(chance.choices(range(days), traffic, k=count))
    ]


def _simulate_start(
    chance: random.Random, day: str, n: int, days: int, releases: tuple[str, ...]
) -> Start:
    progress = n / days
    run_mode = "one-shot" if chance.random() < 0.55 + 0.15 * progress else "daemon"
    join_type = _pick(
        chance,
        {
            name: first + (last - first) * progress
            for name, (first, last) in _JOIN_TYPES[run_mode].items()
        },
    )
    helped = run_mode == "one-shot" and join_type == "github" and chance.random() < 0.6
    destinations = _pick(chance, _DESTINATIONS[run_mode])
    kinds = destinations.split("+") if destinations else []
    relayed = chance.random() < 0.12
    return Start(
        day=day,
        run_mode=run_mode,
        join_type=join_type,
        version=_pick(chance, _adoption(n, days, releases)),
        helper=_pick(chance, _HELPERS) if helped else "",
        helper_version=_pick(chance, _HELPER_VERSIONS) if helped else "",
        destinations=destinations,
        destination_count=len(kinds) + (int(chance.expovariate(1)) if kinds else 0),
        os_type=NOT_REPORTED if relayed else _pick(chance, _OS_TYPES),
        host_arch=NOT_REPORTED if relayed else _pick(chance, _ARCHITECTURES),
    )


@functools.cache
def _adoption(n: int, days: int, releases: tuple[str, ...]) -> dict[str, float]:
    """How common each release is on a day: half of a fleet has moved after about 12 days."""
    released = [max(0, (index - 1) * days // len(releases)) for index in range(len(releases))]
    return {
        version: 6.0**index / (1 + 2 ** ((released[index] + 12 - n) / 4))
        for index, version in enumerate(releases)
        if n >= released[index]
    }


def _pick(chance: random.Random, weights: dict[str, float]) -> str:
    return chance.choices([*weights], [*weights.values()])[0]


def example_report() -> Document:
    """90 days, 40,000 starts, nine versions: the report of the pictures."""
    return make_document(
        simulate(90, 40_000),
        duplicate=212,
        unreadable=1,
        refused={"other_signal": 3, "other_event": 1_904, "invalid_session_id": 17},
    )


HOSTILE_VALUES = (
    "</script><img src=x onerror=alert(1)>",
    "\" onmouseover='alert(1)' style=\"position:fixed",
    "}</style><script>alert(1)</script>",
    "{{ report }}{% include 'page.css' %}&lt;b&gt;",
    "\x1b[31mred\x07\x00\r\n",
    "abc\u202edef\u200f",
    "\u062e\u0627\u062f\u0645 \u0627\u0644\u0627\u062e\u062a\u0628\u0627\u0631",
    "x" * 300,
    "[bold]9[/bold]:warning:",
)
"""Values that policy would refuse, but that must never act if they come through."""


def _hostile_report() -> Document:
    # The value with quotes grows, so that the page's sentences name it too.
    return make_document(
        Start(f"2026-08-{day:02}", value, value, value, value, value, value, day, value, value)
        for value in HOSTILE_VALUES
        for day in range(1, 19)
        for _ in range(6 * day if value == HOSTILE_VALUES[1] else 6)
    )


def _years_report() -> Document:
    releases = tuple(f"{14 + n // 6}.{n % 6}.{n * 7 % 4}" for n in range(36))
    return make_document(simulate(1_095, 30_000, releases=releases))


_REPORTS: dict[str, Callable[[], Document]] = {
    "example": example_report,
    "empty": lambda: make_document([], refused={"other_event": 3}, unreadable=2),
    "one": lambda: make_document([Start("2026-08-03")], min_group=1),
    "one-folded": lambda: make_document([Start("2026-08-03")]),
    "day": lambda: make_document(simulate(1, 400)),
    "week": lambda: make_document(simulate(6, 40)),
    "years": _years_report,
    "hostile": _hostile_report,
}
REPORT_NAMES = (*_REPORTS,)
"""The names of reports of every size."""


@functools.cache
def report_of(name: str) -> Document:
    """One of the reports. It must not be changed."""
    return _REPORTS[name]()
