"""What is called a change, and what is called noise."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import date, timedelta

import pytest

from support.fuzzing import LONG_PROFILE
from support.report_data import Start, make_document, simulate
from tbot_otel.report import wording
from tbot_otel.report.changes import Comparison, Key, compare
from tbot_otel.report.document import Document

FIRST = date(2026, 8, 3)
SETS, MAX_FALSE, MIN_FOUND = (200, 16, 184) if LONG_PROFILE else (6, 1, 5)
"""How many sets of each kind; how many may have a false change, and must have the true one."""

DAYS, STARTS = 30, 2_143
"""2,000 starts on the 28 days that are compared: the first and the last day are not."""

METHODS = {
    "github": 0.3,
    "iam": 0.25,
    "kubernetes": 0.2,
    "token": 0.15,
    "gitlab": 0.07,
    "tpm": 0.03,
}
MODES = {"one-shot": 0.6, "daemon": 0.4}
KINDS = {"kubernetes": 0.4, "other": 0.35, "application": 0.15, "database": 0.1}

Drawn = list[tuple[date, dict[str, str]]]
Draw = Callable[[random.Random], Drawn]


def pick(chance: random.Random, weights: dict[str, float]) -> str:
    """A value, by its weight."""
    return chance.choices([*weights], [*weights.values()])[0]


def values(chance: random.Random, methods: dict[str, float] = METHODS) -> dict[str, str]:
    """The values of a start."""
    return {
        "join_type": pick(chance, methods),
        "run_mode": pick(chance, MODES),
        "destinations": pick(chance, KINDS),
    }


def constant(chance: random.Random) -> Drawn:
    """2,000 starts in 28 days, with constant odds."""
    return [(FIRST + timedelta(chance.randrange(28)), values(chance)) for _ in range(2_000)]


def clumps(chance: random.Random) -> Drawn:
    """40 customers, each with values of its own and a number of starts that differs by day."""
    customers = [(values(chance), chance.paretovariate(1)) for _ in range(40)]
    return [
        (FIRST + timedelta(day), of_customer)
        for day in range(28)
        for of_customer, size in customers
        for _ in range(min(100, int(size * chance.expovariate(1))))
    ]


def weekdays(chance: random.Random) -> Drawn:
    """On weekends, there are fewer starts, with other odds."""
    drawn = []
    for day in range(28):
        is_weekend = day % 7 > 4
        odds = {**METHODS, "github": 0.05} if is_weekend else METHODS
        drawn += [
            (FIRST + timedelta(day), values(chance, odds)) for _ in range(30 if is_weekend else 90)
        ]
    return drawn


def burst(chance: random.Random) -> Drawn:
    """One job that starts tbot 300 times on one day."""
    day = FIRST + timedelta(chance.randrange(28))
    return constant(chance) + [(day, values(chance))] * 300


def shift(chance: random.Random) -> Drawn:
    """A join method that rises from 20 % to 30 % in the second half."""
    drawn = []
    for _ in range(STARTS):
        day = chance.randrange(DAYS)
        share = 0.3 if day >= DAYS / 2 else 0.2
        rest = {name: odds * (1 - share) for name, odds in METHODS.items()}
        drawn.append((FIRST + timedelta(day), values(chance, {"oracle": share, **rest})))
    return drawn


def novelty(chance: random.Random) -> Drawn:
    """A join method that is new in the second half, with 3 %."""
    drawn = []
    for _ in range(STARTS):
        day = chance.randrange(DAYS)
        odds = {**METHODS, "oracle": 0.031} if day >= DAYS / 2 else METHODS
        drawn.append((FIRST + timedelta(day), values(chance, odds)))
    return drawn


def find(drawn: Drawn) -> set[Key]:
    """The changed rows."""
    days = Counter(day for day, _ in drawn)
    rows = defaultdict[Key, Counter[date]](Counter)
    for day, of_start in drawn:
        for name, value in of_start.items():
            rows[name, value][day] += 1
        rows["use_case", *of_start.values()][day] += 1
    return {*compare_rows(days, rows).changes}


def compare_rows(
    days: Counter[date], rows: dict[Key, Counter[date]], since: date | None = None
) -> Comparison:
    """Compare with all rows in one group."""
    return compare(days, rows, since, group_of=lambda key: key[0] == "version")


@pytest.mark.parametrize("draw", [constant, clumps, weekdays, burst])
def test_noise(draw: Draw) -> None:
    """Where nothing changes, no change is named, with few exceptions."""
    false = sum(bool(find(draw(random.Random(seed)))) for seed in range(SETS))  # noqa: S311
    assert false <= MAX_FALSE


@pytest.mark.parametrize("draw", [shift, novelty])
def test_changes_are_found(draw: Draw) -> None:
    """A true change is named, with few exceptions."""
    found = sum(
        ("join_type", "oracle") in find(draw(random.Random(seed)))  # noqa: S311
        for seed in range(SETS)
    )
    assert found >= MIN_FOUND


def two_halves(before: int, after: int, days: int = 16) -> list[Start]:
    """Starts with a join method that is in both halves, and as many others in each."""
    return [
        Start((FIRST + timedelta(day)).isoformat(), join_type=method)
        for day in range(days)
        for method, count in (("iam", before if day < days / 2 else after), ("token", 10))
        for _ in range(count)
    ]


def changes(document: Document) -> list[tuple[object, ...]]:
    """The changed join methods, with their starts."""
    return [
        (row["join_type"], row["before"], row["after"])
        for row in document["changes"]["rows"]
        if row["table"] == "join_type"
    ]


def test_document() -> None:
    """The document has both periods, without the first and the last day, and what changed."""
    document = make_document(two_halves(4, 16))
    found = document["changes"]
    assert found["periods"] == [
        {"first": "2026-08-04", "last": "2026-08-10", "starts": 98},
        {"first": "2026-08-11", "last": "2026-08-17", "starts": 182},
    ]
    assert changes(document) == [("iam", 28, 112), ("token", 70, 70)]
    assert found["compared"] == 4
    assert 0.01 <= (found["smallest_visible"] or 0) < 0.35
    words = [one for one in wording.list_changes(document, 5) if one.column == "Join method"]
    assert words[1] == ("Join method", "token", "fell", "70 (71%)", "70 (38%)")
    assert words[0] == ("Join method", "iam", "rose", "28 (29%)", "112 (62%)")
    assert wording.changes(document).startswith(
        "4 changes of 4 shares, comparing 2026-08-04 to 2026-08-10 (98 starts) with 2026-08-11"
    )


def test_new_and_gone_and_few() -> None:
    """A value can be new or gone; a small number of starts is not told."""
    for before, after, kind, counts in (
        (0, 6, "new", (0, 42)),
        (6, 0, "gone", (42, 0)),
    ):
        document = make_document(two_halves(before, after))
        assert ("iam", *counts) in changes(document)
        assert ("iam", kind) in {
            (change.value, change.kind) for change in wording.list_changes(document, 5)
        }
    few = [*two_halves(0, 8), Start("2026-08-05", join_type="iam")]
    document = make_document(few)
    assert ("iam", None, 56) in changes(document)
    (change,) = (one for one in wording.list_changes(document, 5) if one.value == "iam")
    assert (change.kind, change.before) == ("rose", "fewer than 5")


def test_no_change() -> None:
    """Without a change, the report says how large one would have to be."""
    document = make_document(two_halves(5, 5))
    assert document["changes"]["rows"] == []
    sentence = wording.changes(document)
    assert sentence.startswith("No clear change of 4 shares, comparing 2026-08-04 to")
    assert "A change of less than 1.0 percentage points (1.0 for versions)" in sentence


def test_compare_since() -> None:
    """Periods of different lengths are compared by shares."""
    starts = two_halves(4, 16, days=40)
    document = make_document(starts, compare_since=FIRST + timedelta(30))
    periods = document["changes"]["periods"]
    assert [(one["first"], one["last"]) for one in periods] == [
        ("2026-08-04", "2026-09-01"),
        ("2026-09-02", "2026-09-10"),
    ]


def test_whole_weeks() -> None:
    """From 12 weeks on, whole weeks next to the boundary are compared."""
    document = make_document(two_halves(4, 16, days=100))
    days = [
        date.fromisoformat(str(one["last"])) - date.fromisoformat(str(one["first"]))
        for one in document["changes"]["periods"]
    ]
    assert [of.days + 1 for of in days] == [49, 49]
    assert changes(document)


EACH = "7 days and 50 starts are needed in each period."


@pytest.mark.parametrize(
    ("starts", "since", "sentence"),
    [
        (
            [Start("2026-08-03")] * 200,
            None,
            "0 starts on 0 whole days; 14 days and 100 starts are needed.",
        ),
        (
            [Start("2026-08-03"), Start("2026-08-04")] * 200,
            None,
            "0 starts on 0 whole days; 14 days and 100 starts are needed.",
        ),
        (
            two_halves(5, 5, 15),
            None,
            "195 starts on 13 whole days; 14 days and 100 starts are needed.",
        ),
        (
            [Start((FIRST + timedelta(day)).isoformat()) for day in range(90)],
            None,
            "84 starts on 84 whole days; 14 days and 100 starts are needed.",
        ),
        (
            two_halves(5, 5),
            date(2027, 1, 1),
            f"210 starts on 14 whole days with 0 starts on 0 whole days; {EACH}",
        ),
        (
            two_halves(5, 5),
            date(2020, 1, 1),
            f"0 starts on 0 whole days with 210 starts on 14 whole days; {EACH}",
        ),
        # A start of the future.
        (
            [*two_halves(5, 5), Start("2028-08-01")],
            None,
            f"225 starts on 364 whole days with 0 starts on 364 whole days; {EACH}",
        ),
    ],
)
def test_too_little(starts: list[Start], since: date | None, sentence: str) -> None:
    """Too little is not compared, and the report says so."""
    document = make_document(starts, compare_since=since)
    assert wording.changes(document) == f"Too little to compare: {sentence}"
    assert document["changes"]["smallest_visible"] is None


def test_long_periods() -> None:
    """A period of many years, such as one with a start from 1970, is not compared."""
    document = make_document([*two_halves(5, 5), Start("1970-01-02")])
    assert wording.changes(document).startswith("Too long to compare: 20,")


def test_month_without_starts() -> None:
    """A month without starts between two full ones is no trend, and divides by nothing."""
    starts = [
        Start((FIRST + timedelta(day)).isoformat(), join_type=method)
        for day in (*range(30), *range(60, 90))
        for method in ("iam", "token")
        for _ in range(5)
    ]
    document = make_document(starts)
    assert document["changes"]["rows"] == []
    assert document["changes"]["smallest_visible"] is not None


def test_releases_hide_no_other_change() -> None:
    """Beside a release, which changes all versions, the change of a join method is found."""
    document = make_document(simulate(90, 40_000))
    assert "github" in {method for method, _, _ in changes(document)}
