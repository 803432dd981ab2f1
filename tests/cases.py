"""The one table of policy cases, which the tests of every caller of the policy use; and a tbot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tbot_otel.policy import Reason

OTHER = "_OTHER"


class Refusal(NamedTuple):
    """What is expected of a record that may not leave."""

    reason: Reason
    attribute: str | None = None


class Case(NamedTuple):
    """A record, and what is expected to leave of it."""

    id: str
    event_name: Any
    attributes: Mapping[str, Any] | None
    expected: dict[str, str | int] | Refusal
    left_out: list[tuple[str | None, Reason]]


# A record that may leave as it is, in the registry's order.
WHOLE: dict[str, str | int] = {
    "tbot.run_mode": "daemon",
    "tbot.version": "18.3.0",
    "tbot.join_type": "kubernetes",
    "tbot.helper": "gha:teleport-actions/auth",
    "tbot.helper_version": "v1.2.0",
    "tbot.destinations_other": 1,
    "tbot.destinations_database": 2,
    "tbot.destinations_kubernetes": 3,
    "tbot.destinations_application": 4,
}
EMPTY: dict[str, str | int] = {
    "tbot.run_mode": OTHER,
    "tbot.version": OTHER,
    "tbot.join_type": "",
    "tbot.destinations_other": 0,
    "tbot.destinations_database": 0,
    "tbot.destinations_kubernetes": 0,
    "tbot.destinations_application": 0,
}


def without(*names: str) -> dict[str, str | int]:
    """The whole record without some attributes."""
    return {name: value for name, value in WHOLE.items() if name not in names}


def _start(
    title: str,
    given: Mapping[str, object],
    expected: dict[str, str | int] | Refusal,
    *left_out: tuple[str | None, Reason],
) -> Case:
    return Case(title, "tbot.start", given, expected, list(left_out))


def _title(name: str, value: object) -> str:
    text = ascii(value)
    return (
        f"{name.removeprefix('tbot.')} {text if len(text) <= 50 else f'{text[:40]}… {len(text)}'}"
    )


def _kept(name: str, *values: str | int) -> list[Case]:
    return [
        _start(_title(name, value), WHOLE | {name: value}, WHOLE | {name: value})
        for value in values
    ]


def _other(name: str, *values: object) -> list[Case]:
    return [
        _start(
            _title(name, value),
            {**WHOLE, name: value},
            WHOLE | {name: OTHER},
            (name, Reason.UNKNOWN_VALUE),
        )
        for value in values
    ]


def _cut(name: str, values: Mapping[str, str]) -> list[Case]:
    return [
        _start(
            _title(name, value), WHOLE | {name: value}, WHOLE | {name: left}, (name, Reason.CUT_OFF)
        )
        for value, left in values.items()
    ]


def _refused(name: str, *values: object) -> list[Case]:
    return [
        _start(_title(name, value), {**WHOLE, name: value}, Refusal(Reason.NOT_A_COUNT, name))
        for value in values
    ]


def _no_helper(*values: object) -> list[Case]:
    return [
        _start(
            _title("tbot.helper", value),
            {**WHOLE, "tbot.helper": value},
            without("tbot.helper", "tbot.helper_version"),
            ("tbot.helper", Reason.DOES_NOT_FIT),
            ("tbot.helper_version", Reason.NO_HELPER),
        )
        for value in values
    ]


def _no_helper_version(*values: object) -> list[Case]:
    return [
        _start(
            _title("tbot.helper_version", value),
            {**WHOLE, "tbot.helper_version": value},
            without("tbot.helper_version"),
            ("tbot.helper_version", Reason.DOES_NOT_FIT),
        )
        for value in values
    ]


# What is no text, in every shape that the attributes of a log record can have.
_NO_TEXT = (None, 18, 1.5, True, b"18.3.0", ("18.3.0",), {"18.3.0": "18.3.0"})

_EVENTS = [
    Case("the whole record", "tbot.start", WHOLE, WHOLE, []),
    Case(
        "the registry's order",
        "tbot.start",
        dict(reversed(WHOLE.items())),
        WHOLE,
        [],
    ),
    *(
        Case(f"event {name!r}", name, WHOLE, Refusal(Reason.NOT_OURS), [])
        for name in (
            *(None, "", "tbot", "tbot.stop", "TBOT.START", "tbot.start ", "tbot.start\n", OTHER),
            *(3, b"tbot.start", ["tbot.start"], {"tbot.start": 1}),
        )
    ),
    *(
        Case(
            f"attributes {attributes!r}",
            "tbot.start",
            attributes,
            EMPTY,
            [("tbot.run_mode", Reason.UNKNOWN_VALUE), ("tbot.version", Reason.UNKNOWN_VALUE)],
        )
        for attributes in (None, dict[str, object]())
    ),
    _start(
        "unknown attributes",
        {**WHOLE, "host.name": "web01", "tbot.token": "x", "tbot.helper ": 1, "TBOT.HELPER": None},
        WHOLE,
        *[(None, Reason.UNKNOWN_ATTRIBUTE)] * 4,
    ),
    _start(
        "everything is wrong, but for the counts",
        {
            "tbot.run_mode": "web01",
            "tbot.version": "18.3.0-web01",
            "tbot.join_type": "web01",
            "tbot.helper": "web01.example.com",
            "tbot.helper_version": "web01",
            "web01": "web01",
        },
        EMPTY | {"tbot.version": "18.3.0", "tbot.join_type": OTHER},
        ("tbot.run_mode", Reason.UNKNOWN_VALUE),
        ("tbot.version", Reason.CUT_OFF),
        ("tbot.join_type", Reason.UNKNOWN_VALUE),
        ("tbot.helper", Reason.DOES_NOT_FIT),
        ("tbot.helper_version", Reason.NO_HELPER),
        (None, Reason.UNKNOWN_ATTRIBUTE),
    ),
]

_RUN_MODES = [
    *_kept("tbot.run_mode", "one-shot", "daemon", OTHER),
    *_other(
        "tbot.run_mode",
        *("", "in-process", "oneshot", "Daemon", "daemon ", "daemon\n", "ONE-SHOT", "_other"),
        *_NO_TEXT,
    ),
    _start(
        "run_mode missing",
        without("tbot.run_mode"),
        WHOLE | {"tbot.run_mode": OTHER},
        ("tbot.run_mode", Reason.UNKNOWN_VALUE),
    ),
]

_JOIN_TYPES = [
    *_kept(
        "tbot.join_type",
        *("azure", "azure_devops", "bitbucket", "bound_keypair", "circleci", "ec2", "gcp"),
        *("generic_oidc", "github", "gitlab", "iam", "kubernetes", "oracle", "spacelift"),
        *("terraform_cloud", "token", "tpm", "env0", "", OTHER),
    ),
    *_other(
        "tbot.join_type",
        *(
            "delegated",
            "Token",
            "azure-devops",
            " iam",
            "iam\n",
            "0b7f1f2e5d0c4c398a543f1d9e6b7a20",
        ),
        *_NO_TEXT,
    ),
    _start("join_type missing", without("tbot.join_type"), WHOLE | {"tbot.join_type": ""}),
]

_VERSIONS = [
    *_kept(
        "tbot.version",
        *("18.3.0", "0.0.0", "999.999.999", "19.0.0-dev", "18.0.0-dev.4", "18.0.0-alpha.2"),
        *("18.0.0-alpha", "18.0.0-beta.11", "18.0.0-beta", "18.0.0-rc.999", "18.0.0-rc", OTHER),
    ),
    *_cut(
        "tbot.version",
        {
            "18.0.0-dev.someone.1+x": "18.0.0-dev",
            "18.0.0-dev.1.someone": "18.0.0-dev",
            "18.0.0-dev+someone": "18.0.0-dev",
            "18.0.0-dev.2+someone": "18.0.0-dev.2",
            "18.0.0-alpha.2-someone": "18.0.0-alpha.2",
            "18.0.0-alpha.2026": "18.0.0-alpha",
            "18.0.0-alpha.02": "18.0.0-alpha",
            "18.0.0-alpha.2.3": "18.0.0-alpha",
            "18.0.0-alpha.": "18.0.0-alpha",
            "18.0.0-rc-1": "18.0.0-rc",
            "18.0.0-rc1": "18.0.0",
            "18.0.0-RC.1": "18.0.0",
            "18.0.0-development": "18.0.0",
            "18.0.0-someone.1": "18.0.0",
            "18.0.0-someone@example.com": "18.0.0",
            "18.0.0-cloud.1.abcdef1": "18.0.0",
            "18.0.0+build": "18.0.0",
            "18.0.0+build.192.0.2.1": "18.0.0",
            "18.0.0-dev.\N{ARABIC-INDIC DIGIT ONE}": "18.0.0-dev",
            "18.0.0-": "18.0.0",
            "18.0.0+": "18.0.0",
            "18.0.0-someone of example": "18.0.0",
        },
    ),
    *_other(
        "tbot.version",
        *("", "18", "18.3", "18.3.0.1", "192.0.2.1", "18.3.0.1-dev", "1.2.3.4.5.6"),
        *("018.3.0", "18.03.0", "18.3.00", "1000.0.0", "18.3.20261123", "123456789.0.0"),
        *("v18.3.0", "V18.3.0", " 18.3.0", "18.3.0 ", "18.3.0\n", "18.3.0\r\n", "18.3.0\0"),
        *("18.3.0-dev\n", "18.3.0-dev\nsomeone", "18.3.0+x\nsomeone", "18.3.0-dev.someone\n"),
        *("18.3.0dev", "18.3.0_dev", "18.3.0/dev", "18.3.x", "18.-3.0", "18..0", "18,3,0"),
        *(
            "\N{ARABIC-INDIC DIGIT ONE}8.3.0",
            "18.3.\N{FULLWIDTH DIGIT ZERO}",
            "18.3.\N{SUPERSCRIPT TWO}",
        ),
        *("18\N{FULLWIDTH FULL STOP}3\N{FULLWIDTH FULL STOP}0", "18.3.0\N{LINE SEPARATOR}"),
        *("web01.example.com", "0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20", "_OTHER ", "latest"),
        *_NO_TEXT,
    ),
    _start(
        "version missing",
        without("tbot.version"),
        WHOLE | {"tbot.version": OTHER},
        ("tbot.version", Reason.UNKNOWN_VALUE),
    ),
]

_HELPERS = [
    *_kept(
        "tbot.helper",
        *("gha:teleport-actions/auth", "gha:teleport-actions/auth-k8s", "terraform", "Jenkins"),
        *("gitlab-ci:org/group/step_2", "a", "k8s:x", "a" * 11 + "-" + "f" * 11, "w" * 64),
        *("ci1:a2/b3", "deadbeef-feedbee"),
    ),
    *_no_helper(
        # Hosts, addresses, people.
        *("web01.example.com", "example.com", "localhost.localdomain", "ip-10-0-0-17", "192.0.2.1"),
        *(
            "host:8080",
            "a:192.0.2.1",
            "https://example.com/x",
            "//example/x",
            "2001:db8::1",
            "fe80::a",
        ),
        *(
            "::1",
            "[::1]",
            "00:1b:44:11:3a:b7",
            "00-1b-44-11-3a-b7",
            "001b.4411.3ab7",
            "a01b44113ab7",
        ),
        # One such address in a hundred has so few digits that counting them does not show it.
        *("fa:ce:b0:0c:ca:fe", "fa-ce-b0-0c-ca-fe", "helper-fa-ce-b0-0c-ca-fe"),
        *("someone@example.com", "someone@host", "user+tag@example.com", "x:someone@host"),
        # Identifiers.
        *("0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20", "f47ac10b-58cc-4372-a567-0e02b2c3d479"),
        *("0b7f1f2e5d0c4c398a543f1d9e6b7a20", "f47ac10b58cc4372a5670e02b2c3d479"),
        *("abcdefab-cdef-abcd-efab-cdefabcdefab", "gha:F47AC10B58CC4372A5670E02B2C3D479"),
        *("d41d8cd98f00b204e9800998ecf8427e", "sha-da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        *("abcdefabcdef", "x/ABCDEFabcdef", "account-123456789012", "build-2026", "tel-4-4-2-0"),
        # Of no such form.
        *(
            "w" * 65,
            "x:" + "w" * 63,
            "1password",
            "-x",
            "_x",
            "/x",
            "x/",
            "x//y",
            ":x",
            "x:",
            "x:y:z",
        ),
        *("GHA:x", "1a:x", "x_y:z", "x/1", "x/-y", OTHER),
        *(" ", " x", "x ", "x y", "x\n", "x\t", "x\0", "x\x1b[31m", "x\x7f", "x\ny"),
        *(
            "h\N{LATIN SMALL LETTER E WITH ACUTE}lper",
            "\N{CYRILLIC SMALL LETTER A}",
            "x\N{ZERO WIDTH SPACE}",
        ),
        *(
            "x\N{FULLWIDTH DIGIT ONE}",
            "x\N{LINE SEPARATOR}",
            "x$HOME",
            "x;y",
            "x=y",
            "x\\y",
            "<x>",
            "x%00",
        ),
        *(value for value in _NO_TEXT if value is not None),
    ),
    *(
        _start(
            _title("tbot.helper", value),
            {**WHOLE, "tbot.helper": value},
            without("tbot.helper", "tbot.helper_version"),
            ("tbot.helper_version", Reason.NO_HELPER),
        )
        for value in ("", None)
    ),
    _start(
        "helper missing",
        without("tbot.helper"),
        without("tbot.helper", "tbot.helper_version"),
        ("tbot.helper_version", Reason.NO_HELPER),
    ),
    _start(
        "no helper and no version of it",
        without("tbot.helper", "tbot.helper_version"),
        without("tbot.helper", "tbot.helper_version"),
    ),
    _start(
        "an empty helper and an empty version of it",
        WHOLE | {"tbot.helper": "", "tbot.helper_version": ""},
        without("tbot.helper", "tbot.helper_version"),
    ),
]

_HELPER_VERSIONS = [
    *_kept(
        "tbot.helper_version",
        *("v1.2.0", "1.2.0", "v1", "1", "1.2", "v0.0.0", "999.999.999", "1.2.0-rc.1", "v2-beta"),
        *("1.2.0-dev",),
    ),
    *_no_helper_version(
        *(
            "1.2.3.4",
            "192.0.2.1",
            "v1.2.0-dev.someone",
            "1.2.0+build",
            "1.2.0-someone",
            "V1",
            "vv1",
        ),
        *("v", "01", "1.02", "1000", "2026.11.23", "20261123", "main", "abcdef1", "1.2.0 ", " 1"),
        *("1.2.0\n", "1\n2", "1.\N{ARABIC-INDIC DIGIT ONE}", "1..2", ".1", "1.", "1,2", OTHER),
        *("d41d8cd98f00b204e9800998ecf8427e", "someone@example.com", "web01.example.com", " "),
        *(value for value in _NO_TEXT if value is not None),
    ),
    *(
        _start(
            _title("tbot.helper_version", value),
            {**WHOLE, "tbot.helper_version": value},
            without("tbot.helper_version"),
        )
        for value in ("", None)
    ),
    _start(
        "helper_version missing",
        without("tbot.helper_version"),
        without("tbot.helper_version"),
    ),
]

_COUNTS = [
    case
    for name in WHOLE
    if name.startswith("tbot.destinations_")
    for case in (
        *_kept(name, 0, 1, 2**31 - 1),
        *_refused(
            name,
            *(2**31, 2**63, -1, -(2**31), 0.0, 1.0, float("nan"), float("inf"), True, False),
            *("", "0", "1", "1 or 2", OTHER, None, b"1", (1,), (), {"1": 1}),
        ),
        _start(f"{name.removeprefix('tbot.')} missing", without(name), WHOLE | {name: 0}),
    )
]

CASES = [
    *_EVENTS,
    *_RUN_MODES,
    *_JOIN_TYPES,
    *_VERSIONS,
    *_HELPERS,
    *_HELPER_VERSIONS,
    *_COUNTS,
]


def tbot_that(folder: Path, script: str) -> str:
    """Put a stand-in for tbot, a shell script, into a folder, and return what PATH must be."""
    tbot = folder / "tbot"
    tbot.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    tbot.chmod(0o755)
    return str(folder)
