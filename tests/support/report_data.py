"""Generated starts, and the report of them by the plainest counting."""

import random
from collections import Counter
from collections.abc import Iterable
from datetime import date, timedelta
from typing import NamedTuple

from tbot_otel.report.tables import TABLES, Records, Report, Row, Table

FIRST_DAY = date(2026, 8, 3)
RELEASES = (
    *("17.5.4", "17.7.1", "18.0.0", "18.1.2", "18.1.5", "18.2.0", "18.2.1", "18.3.0", "18.4.0-rc.1"),
)


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


def make_report(
    starts: Iterable[Start],
    *,
    min_group: int = 5,
    duplicate: int = 0,
    unreadable: int = 0,
    refused: dict[str, int] | None = None,
) -> Report:
    """The report of these starts."""
    rows = list(starts)
    days = sorted({start.day for start in rows})
    records: Records = {
        "read": len(rows) + duplicate + sum((refused or {}).values()),
        "duplicate": duplicate,
        "refused": refused or {},
        "unreadable": unreadable,
    }
    return {
        "starts": len(rows),
        "period": {"first": days[0] if days else None, "last": days[-1] if days else None},
        "records": records,
        "tables": {
            name: _count(rows, columns, 1 if name == "day" else min_group)
            for name, columns in TABLES.items()
        },
    }


def _count(starts: list[Start], columns: tuple[str, ...], min_group: int) -> Table:
    groups = Counter(tuple(getattr(start, column) for column in columns) for start in starts)
    ordered = sorted(groups.items(), key=lambda item: (-item[1], item[0]))
    if columns[0] == "day":
        ordered.sort(key=lambda item: item[0][0])
    rows: list[Row] = []
    for values, count in ordered:
        if count >= min_group:
            row: Row = dict(zip(columns, values, strict=True))
            rows.append({**row, "starts": count})
    small = [count for _, count in ordered if count < min_group]
    return {"rows": rows, "folded": {"groups": len(small), "starts": sum(small)}}


def simulate(days: int, count: int, *, seed: int = 1, releases: Iterable[str] = RELEASES) -> list[Start]:
    """Starts of a fleet: fewer on weekends, GitHub Actions that grow, releases that are taken up.

    Args:
        days: How many days, from `FIRST_DAY`.
        count: How many starts.
        seed: Of the random choices.
        releases: The versions. The first two are there at the start; the others come out evenly.
    """
    chance = random.Random(seed)  # noqa: S311 - not a secret
    releases = list(releases)
    released = [max(0, (n - 1) * days // len(releases)) for n in range(len(releases))]
    calendar = [FIRST_DAY + timedelta(n) for n in range(days)]
    traffic = [(0.35 if day.weekday() > 4 else 1) * (1 + n / days) for n, day in enumerate(calendar)]
    starts = []
    for n in sorted(chance.choices(range(days), traffic, k=count)):
        progress = n / days
        job = chance.random() < 0.55 + 0.15 * progress
        join_type = _pick(
            chance,
            {"github": 30 + 40 * progress, "gitlab": 12, "circleci": 2.5, "token": 4, "bitbucket": 0.03}
            if job
            else {
                **{"iam": 20, "kubernetes": 15 + 10 * progress, "token": 16 - 10 * progress},
                **{"tpm": 4, "gcp": 3, "azure": 2, "bound_keypair": 6 * progress, "": 0.4},
            },
        )
        by_action = job and join_type == "github" and chance.random() < 0.6
        kinds = _pick(
            chance,
            {"kubernetes": 34, "other": 20, "application": 8, "application+kubernetes": 3, "": 0.5}
            if job
            else {
                **{"other": 50, "application": 14, "database": 9, "kubernetes": 9},
                **{"application+database": 4, "database+other": 2, "application+other": 1.5},
                "application+database+kubernetes+other": 0.05,
            },
        )
        least = len(kinds.split("+")) if kinds else 0
        adoption = {
            # Half of a fleet has moved about 12 days after a release.
            version: (1 / (1 + 2 ** (-(n - released[index] - 12) / 4))) * 6.0**index
            for index, version in enumerate(releases)
            if n >= released[index] and not ("-" in version and chance.random() > 0.00001)
        }
        relayed = chance.random() < 0.12
        starts.append(
            Start(
                day=calendar[n].isoformat(),
                run_mode="one-shot" if job else "daemon",
                join_type=join_type,
                version=_pick(chance, adoption),
                helper=_pick(
                    chance,
                    {
                        "gha:teleport-actions/auth-k8s": 5,
                        "gha:teleport-actions/auth": 4,
                        "gha:teleport-actions/auth-application": 1,
                    },
                )
                if by_action
                else "",
                helper_version=_pick(chance, {"2.1.2": 5, "2.0.3": 3, "1.0.0": 0.5})
                if by_action
                else "",
                destinations=kinds,
                destination_count=least + (int(chance.expovariate(1)) if kinds else 0),
                os_type="not reported"
                if relayed
                else _pick(chance, {"linux": 93, "darwin": 3, "windows": 3, "freebsd": 0.01}),
                host_arch="not reported" if relayed else _pick(chance, {"amd64": 78, "arm64": 21}),
            )
        )
    return starts


def _pick(chance: random.Random, weights: dict[str, float]) -> str:
    return chance.choices([*weights], [*weights.values()])[0]


def example_report() -> Report:
    """90 days, 40,000 starts, nine versions: the report of the pictures."""
    return make_report(
        simulate(90, 40_000),
        duplicate=212,
        unreadable=1,
        refused={"other_signal": 3, "other_event": 1_904, "invalid_session_id": 17},
    )
