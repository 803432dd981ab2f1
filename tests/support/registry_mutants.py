"""Changes of the registry, and what must leave, in plain Python instead of expressions."""

import copy
import random
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from tbot_otel.registry import OTHER, Attribute

_HEX = "0123456789abcdef"
_LOWER = "abcdefghijklmnopqrstuvwxyz"
_WORD = f"{_LOWER}{_LOWER.upper()}0123456789_-"
_NUMBERS = {str(number) for number in range(100)}


def _is_release(text: str) -> bool:
    numbers, dash, stage = text.partition("-")
    word, dot, number = stage.partition(".")
    return (
        len(numbers.split(".")) == 3
        and {*numbers.split(".")} <= _NUMBERS
        and (not dash or word in ("alpha", "beta", "rc", "dev"))
        and (not dot or number in _NUMBERS)
    )


def _version(text: str) -> str | None:
    text = text.removeprefix("v")
    for end in range(len(text), 0, -1):
        version, rest = text[:end], text[end:]
        is_cut = rest[:1] in ("-", "+") or (rest[:1] == "." and version[-1] in _LOWER)
        if (
            _is_release(version)
            and int(version.split(".")[0]) >= 12
            and (not rest or (is_cut and "\n" not in rest))
        ):
            return version
    return OTHER


def _helper(text: str) -> str | None:
    kind, colon, path = text.rpartition(":")
    hexadecimal = "".join("h" if char.lower() in _HEX else char for char in text)
    is_valid = (
        len(text) <= 64
        and sum(char in "0123456789" for char in text) <= 3
        and "h" * 12 not in hexadecimal
        and "hh-hh-hh-hh-hh-hh" not in hexadecimal.replace("_", "-")
        and (not colon or (kind[:1] in [*_LOWER] and {*kind} <= {*_LOWER, *"0123456789-"}))
        and all(
            part[:1] in [*_LOWER, *_LOWER.upper()] and {*part} <= {*_WORD}
            for part in path.split("/")
        )
    )
    return text if is_valid else OTHER


def _helper_version(text: str) -> str | None:
    text = text.removeprefix("v")
    return text if _is_release(text) else None


def _session_id(text: str) -> str | None:
    parts = text.split("-")
    is_valid = (
        [len(part) for part in parts] == [8, 4, 4, 4, 12]
        and {*"".join(parts)} <= {*_HEX}
        and parts[2][0] == "4"
        and parts[3][0] in "89ab"
    )
    return text if is_valid else OTHER


def _sdk_version(text: str) -> str | None:
    ends = [text]
    for mark in ("a", "b", "rc", ".dev", ".post"):
        before, found, number = text.partition(mark)
        if found and len(number) <= 2 and {*number} <= {*"0123456789"}:
            ends.append(before)
    for end in ends:
        numbers = end.split(".")
        if len(numbers) == 3 and all(
            1 <= len(number) <= 2 and {*number} <= {*"0123456789"} for number in numbers
        ):
            return text
    return OTHER


PLAIN_RULES: dict[str, Callable[[str], str | None]] = {
    "tbot.version": _version,
    "tbot.helper": _helper,
    "tbot.helper_version": _helper_version,
    "session.id": _session_id,
    "telemetry.sdk.version": _sdk_version,
}
"""What leaves for a text, by attribute; for a helper's name, if its owner allows it."""

_VERSIONS = (
    *("18.3.0", "v18.3.0", "12.10.90", "99.99.99", "29.0.0", "90.9.19", "18.0.0-rc", "20.0.10"),
    *("18.0.0-alpha.2", "18.0.0-beta.11", "18.0.0-dev.90", "18.0.0-dev.0", "18.0.0-rc.99.x"),
    *("18.0.0-dev.someone", "18.0.0-z.1", "18.0.0-alpha.x", "18.0.0+b.1", "18.0.0-x\n"),
    *("18.0.0-rc-rc", "18.0.0-dev-dev.1", "18.0.0-dev.1-dev"),
)
_SEEDS = {
    "tbot.version": _VERSIONS,
    "tbot.helper": (
        *("a", "Jenkins", "gitlab-ci:org/group/step_2", "z9-:Z/A_z-9", "a0z:zZ/aA", "x:y:z"),
        *("w" * 64, "w" * 65, "a1b2c3", "a10_9", "a-0-9-8", "x0199", "a/b/c/d", "k8s:x"),
        *("xabcdefABCDEF", "wA0aFfB9bEex", "w_abcdefABCDE", "afafafafafa", "x0aaaaaaaaaa9"),
        *("fa-ce-ba-ac-ca-fe", "fa_ce_ba_ac_ca_fe", "w-FA-CE-BA-AC-CA-FE", "fa-ce-ba-ac-ca-x"),
        *("a0-af-fa-AF-FA-f9", "0a-fa-fa-fa-fa-fa", "x-0a-f9-FA-af-aa-aa", "x-AA-FF-aa-ff-00-aa"),
        *("a9-aa-aa-aa-aa-aa", "fa-ce-ba-ac-ca-0e", "fa-ce-ba-ac-ca-e9"),
    ),
    "tbot.helper_version": (
        *("2.1.2", "v2.1.2", "0.0.0", "99.10.90", "1.0.0-beta", "3.0.0-rc.1", "1.0.0-dev.99"),
        *("1.0.0-alpha.0", "10.90.19", "1.0.0-dev-dev", "1.0.0-rc.90", "vv1.0.0"),
    ),
    "session.id": (
        *("0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20", "00000000-0000-4000-8000-000000000000"),
        *("ffffffff-ffff-4fff-bfff-ffffffffffff", "99999999-9999-4999-9999-999999999999"),
        "aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa",
    ),
    "telemetry.sdk.version": (
        *("1.45.2", "00.00.00", "99.99.99", "1.0.0a", "1.0.0b9", "2.0.0rc1", "1.46.0.dev"),
        *("1.46.0.post10", "1.0.0.dev99", "1.0.0a00", "1.0.0a1b1", "1.0.0aa"),
    ),
}
# Both ends of each range of the expressions, what is beside them, and what could start a new part.
_CHARACTERS = "/0123489:@ABEFGYZ[_`abefgyz{-.+v \n\N{ARABIC-INDIC DIGIT ONE}"


def expected_values(name: str) -> dict[str, str | None]:
    """Return what leaves for many texts, by an attribute's plain rule.

    They are examples, and those that differ from one in a character.
    """
    texts = {""}
    for seed in _SEEDS.get(name, ()):
        texts.add(seed)
        # Long ones are about their length.
        for index in range(len(seed) + 1) if len(seed) < 40 else ():
            before, here, after = seed[:index], seed[index : index + 1], seed[index + 1 :]
            texts.add(before + after)
            for char in _CHARACTERS:
                texts |= {before + char + after, before + char + here + after}
    # An empty text is no value.
    shuffled = sorted(texts - {""})
    # Most mutants then differ early.
    random.Random(1).shuffle(shuffled)  # noqa: S311 - not a secret
    return {text: PLAIN_RULES[name](text) for text in shuffled}


def mutate(attribute: Attribute) -> Iterator[tuple[str, Attribute]]:
    """Yield each changed copy of an attribute, after what is changed."""
    values = attribute.values
    changes: list[tuple[str, Any, str]] = []
    for index, value in enumerate(values):
        before, after = values[:index], values[index + 1 :]
        changes.append(("values", before + after, f"without {value!r}"))
        changes.append(("values", (*before, f"{value}x", *after), f"not {value!r}"))
    for field in ("pattern", "dropped_before", "cut_off_after"):
        text = getattr(attribute, field)
        changes += [(field, changed, what) for what, changed in mutate_pattern(text)]
        if text:
            changes.append((field, "", "removed"))
            changes.append((field, f"(?:{text})|.*", "anything"))
    for field, changed, what in changes:
        mutant = copy.copy(attribute)
        mutant._compiled = None
        setattr(mutant, field, changed)
        yield f"{field}: {what}", mutant


_TOKEN = re.compile(r"\(\?(?:[:=!]|<=)|\\.|[0-9]+(?=[,}])|.", re.DOTALL)
_REPLACEMENTS = {
    "(?=": ["(?!"],
    "(?!": ["(?="],
    "(?<=": ["(?<!"],
    "?": ["*"],
    "*": ["+", "?"],
    "+": ["*"],
    ".": [r"\."],
}


def mutate_pattern(pattern: str) -> Iterator[tuple[str, str]]:
    """Yield the expression with each of its parts changed or removed in turn, after the change."""
    seen = {pattern}
    for match in _TOKEN.finditer(pattern):
        before, token, after = pattern[: match.start()], match[0], pattern[match.end() :]
        for replacement in ["", *_REPLACEMENTS.get(token, _neighbors(token))]:
            changed = before + replacement + after
            if changed not in seen and _is_valid(changed):
                seen.add(changed)
                yield f"{token} -> {replacement or 'nothing'} at {match.start()}", changed


def _neighbors(token: str) -> Iterator[str]:
    if token.isdigit():
        # A bound, or an end of a range.
        yield str(int(token) + 1)
        yield str(max(0, int(token) - 1))
    elif token.startswith("\\"):
        yield token[1:]
    elif token.isalpha():
        yield chr(ord(token) + 1)
        yield chr(ord(token) - 1)


def _is_valid(pattern: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            re.compile(f"(?:{pattern})")
        except (re.error, FutureWarning):
            return False
    return True


_ENDS = "A version ends with a digit, or with a letter of alpha, beta, rc or dev."
_REST = "The tail takes all of the rest at once."
_NOT_EMPTY = "The name has at least one character anyway."
_SKIPPED = "The engine tries each way to skip characters, so that any four digits are found."
_NOT_ALLOWED = "The character is not allowed in a name anyway."
EQUIVALENT_MUTANTS = {
    "tbot.version": {
        "cut_off_after: a -> ` at 15": _ENDS,
        "cut_off_after: z -> { at 17": _ENDS,
        "cut_off_after: z -> y at 17": _ENDS,
        "cut_off_after: ? -> * at 25": _REST,
    },
    "tbot.helper": {
        "pattern: 1 -> nothing at 5": _NOT_EMPTY,
        "pattern: 1 -> 0 at 5": _NOT_EMPTY,
        "pattern: 0 -> 1 at 20": _SKIPPED,
        "pattern: - -> nothing at 21": _SKIPPED,
        "pattern: 9 -> 10 at 22": _SKIPPED,
        "pattern: 9 -> 8 at 22": _SKIPPED,
        **{
            f"pattern: {change}": _NOT_ALLOWED
            for change in (
                *("A -> @ at 44", "a -> ` at 47", "A -> @ at 68", "a -> ` at 71"),
                *("A -> @ at 90", "a -> ` at 93"),
            )
        },
    },
    "telemetry.sdk.version": {"pattern: 0 -> nothing at 66": "No lower bound is a bound of 0."},
}
"""The mutants that admit the same, by attribute, each with the reason."""
