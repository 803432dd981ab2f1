"""The table of policy cases, and records that are derived from the registry."""

import inspect
from collections.abc import Container, Mapping
from typing import Any, NamedTuple

from tbot_otel.events import StartEvent
from tbot_otel.policy import Reason
from tbot_otel.registry import START, Attribute

OTHER = "_OTHER"


class Refusal(NamedTuple):
    """Expected for a record that may not leave."""

    reason: Reason
    attribute: str | None = None


class Case(NamedTuple):
    """A record, and the part of it that may leave."""

    id: str
    event_name: Any
    attributes: Mapping[str, Any] | None
    expected: dict[str, str | int] | Refusal
    changes: list[tuple[str | None, Reason]]


# The registry has no examples for lists of values. By default, the last value is used.
_EXAMPLES = {"tbot.join_type": "kubernetes", "tbot.helper": "gha:teleport-actions/auth"}


def _example(attribute: Attribute) -> str | int:
    if attribute.type == "int":
        names = [item.name for item in START.attributes if item.type == "int"]
        return names.index(attribute.name) + 1
    if attribute.values:
        return _EXAMPLES.get(attribute.name, attribute.values[-1])
    return attribute.examples[0]


def _default(attribute: Attribute) -> str | int:
    if attribute.type == "int":
        return 0
    return "" if "" in attribute.values else OTHER


FULL_ATTRIBUTES = {attribute.name: _example(attribute) for attribute in START.attributes}
"""Each attribute of the registry with an allowed value, in the registry's order."""
EMPTY_ATTRIBUTES = {
    attribute.name: _default(attribute) for attribute in START.attributes if not attribute.optional
}
"""The attributes that leave for a start without attributes."""
_EMPTY_LEFT_OUT: list[tuple[str | None, Reason]] = [
    (name, Reason.UNKNOWN_VALUE) for name, value in EMPTY_ATTRIBUTES.items() if value == OTHER
]
FULL_FIELDS: dict[str, Any] = {
    name.removeprefix("tbot."): value
    for name, value in FULL_ATTRIBUTES.items()
    if name.removeprefix("tbot.") in inspect.signature(StartEvent).parameters
}
"""The same values as parameters of StartEvent."""


def received_attributes(names: Container[str]) -> dict[str, str | int]:
    """The attributes that leave if only those with these names are given."""
    values = EMPTY_ATTRIBUTES | {
        name: value for name, value in FULL_ATTRIBUTES.items() if name in names
    }
    return {name: values[name] for name in FULL_ATTRIBUTES if name in values}


def _in_order(values: Mapping[str, str | int]) -> dict[str, str | int]:
    return {name: values[name] for name in FULL_ATTRIBUTES if name in values}


def _without(*names: str) -> dict[str, str | int]:
    return {name: value for name, value in FULL_ATTRIBUTES.items() if name not in names}


def _start(
    case_id: str,
    given: Mapping[str, object],
    expected: dict[str, str | int] | Refusal,
    *changes: tuple[str | None, Reason],
) -> Case:
    return Case(case_id, "tbot.start", given, expected, list(changes))


def ascii_id(value: object) -> str:
    """A value as a part of a test's id. pytest finds no test by an id with a backslash."""
    return ascii(value).replace("\\", "/")


def _case_id(name: str, value: object) -> str:
    text = ascii_id(value)
    if len(text) > 50:
        text = f"{text[:40]}... {len(text)}"
    return f"{name.removeprefix('tbot.')} {text}"


def _kept(name: str, *values: str | int) -> list[Case]:
    return [
        _start(
            _case_id(name, value), FULL_ATTRIBUTES | {name: value}, FULL_ATTRIBUTES | {name: value}
        )
        for value in values
    ]


def _replaced(name: str, *values: object) -> list[Case]:
    return [
        _start(
            _case_id(name, value),
            {**FULL_ATTRIBUTES, name: value},
            FULL_ATTRIBUTES | {name: OTHER},
            (name, Reason.UNKNOWN_VALUE),
        )
        for value in values
    ]


def _cut(name: str, values: Mapping[str, str]) -> list[Case]:
    return [
        _start(
            _case_id(name, value),
            FULL_ATTRIBUTES | {name: value},
            FULL_ATTRIBUTES | {name: kept},
            (name, Reason.CUT_OFF),
        )
        for value, kept in values.items()
    ]


def _capped(name: str, *values: int) -> list[Case]:
    return [
        _start(
            _case_id(name, value),
            FULL_ATTRIBUTES | {name: value},
            FULL_ATTRIBUTES | {name: 999},
            (name, Reason.CAPPED),
        )
        for value in values
    ]


def _refused(name: str, *values: object) -> list[Case]:
    return [
        _start(
            _case_id(name, value),
            {**FULL_ATTRIBUTES, name: value},
            Refusal(Reason.NOT_A_COUNT, name),
        )
        for value in values
    ]


def _helper_replaced(*values: object) -> list[Case]:
    return [
        _start(
            _case_id("tbot.helper", value),
            {**FULL_ATTRIBUTES, "tbot.helper": value},
            _in_order(_without("tbot.helper_version") | {"tbot.helper": OTHER}),
            ("tbot.helper", Reason.UNKNOWN_VALUE),
            ("tbot.helper_version", Reason.UNKNOWN_HELPER),
        )
        for value in values
    ]


def _helper_version_left_out(*values: object) -> list[Case]:
    return [
        _start(
            _case_id("tbot.helper_version", value),
            {**FULL_ATTRIBUTES, "tbot.helper_version": value},
            _without("tbot.helper_version"),
            ("tbot.helper_version", Reason.DOES_NOT_FIT),
        )
        for value in values
    ]


# Each type other than a string that an attribute of a log record can have.
_NOT_STRINGS = (None, 18, 1.5, True, b"18.3.0", ("18.3.0",), {"18.3.0": "18.3.0"})

_INVALID_ATTRIBUTES = {
    "tbot.run_mode": "web01",
    "tbot.version": "18.3.0-web01",
    "tbot.join_type": "web01",
    "tbot.helper": "web01.example.com",
    "tbot.helper_version": "web01",
    "web01": "web01",
}
_INVALID_REASONS = {
    "tbot.run_mode": Reason.UNKNOWN_VALUE,
    "tbot.version": Reason.CUT_OFF,
    "tbot.join_type": Reason.UNKNOWN_VALUE,
    "tbot.helper": Reason.UNKNOWN_VALUE,
    "tbot.helper_version": Reason.UNKNOWN_HELPER,
}

_EVENTS = [
    Case("all attributes", "tbot.start", FULL_ATTRIBUTES, FULL_ATTRIBUTES, []),
    Case(
        "the registry's order",
        "tbot.start",
        dict(reversed(FULL_ATTRIBUTES.items())),
        FULL_ATTRIBUTES,
        [],
    ),
    *(
        Case(f"event {ascii_id(name)}", name, FULL_ATTRIBUTES, Refusal(Reason.NOT_OURS), [])
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
            EMPTY_ATTRIBUTES,
            _EMPTY_LEFT_OUT,
        )
        for attributes in (None, dict[str, object]())
    ),
    _start(
        "unknown attributes",
        {
            **FULL_ATTRIBUTES,
            "host.name": "web01",
            "tbot.token": "x",
            "tbot.helper ": 1,
            "TBOT.HELPER": None,
        },
        FULL_ATTRIBUTES,
        *[(None, Reason.UNKNOWN_ATTRIBUTE)] * 4,
    ),
    _start(
        "all invalid except the counts",
        _INVALID_ATTRIBUTES,
        _in_order(
            EMPTY_ATTRIBUTES
            | {"tbot.version": "18.3.0", "tbot.join_type": OTHER, "tbot.helper": OTHER}
        ),
        *(
            (name, _INVALID_REASONS.get(name, Reason.UNKNOWN_VALUE))
            for name in FULL_ATTRIBUTES
            if name in _INVALID_REASONS or EMPTY_ATTRIBUTES.get(name) == OTHER
        ),
        (None, Reason.UNKNOWN_ATTRIBUTE),
    ),
]

_RUN_MODES = [
    *_kept("tbot.run_mode", "one-shot", "daemon", OTHER),
    *_replaced(
        "tbot.run_mode",
        *("", "in-process", "oneshot", "Daemon", "daemon ", "daemon\n", "ONE-SHOT", "_other"),
        *_NOT_STRINGS,
    ),
    _start(
        "run_mode missing",
        _without("tbot.run_mode"),
        FULL_ATTRIBUTES | {"tbot.run_mode": OTHER},
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
    *_replaced(
        "tbot.join_type",
        *(
            "delegated",
            "Token",
            "azure-devops",
            " iam",
            "iam\n",
            "0b7f1f2e5d0c4c398a543f1d9e6b7a20",
        ),
        *_NOT_STRINGS,
    ),
    _start(
        "join_type missing", _without("tbot.join_type"), FULL_ATTRIBUTES | {"tbot.join_type": ""}
    ),
]

_VERSIONS = [
    *_kept(
        "tbot.version",
        *("18.3.0", "12.0.0", "99.99.99", "19.0.0-dev", "18.0.0-dev.4", "18.0.0-alpha.2"),
        *("18.0.0-alpha", "18.0.0-beta.11", "18.0.0-beta", "18.0.0-rc.99", "18.0.0-rc", OTHER),
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
            "18.0.0-alpha.100": "18.0.0-alpha",
            "v18.3.0": "18.3.0",
            "v18.0.0-dev.someone.1+x": "18.0.0-dev",
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
    *_replaced(
        "tbot.version",
        *("", "18", "18.3", "18.3.0.1", "192.0.2.1", "18.3.0.1-dev", "1.2.3.4.5.6"),
        *("018.3.0", "18.03.0", "18.3.00", "1000.0.0", "18.3.20261123", "123456789.0.0"),
        *("11.3.27", "0.0.0", "1.2.3", "100.0.0", "18.100.0", "18.3.100", "18.0.999"),
        *("203.0.113-rc.77", "203.0.113-rc.7", "10.0.17-rc.4", "192.168.10-dev", "172.16.0-rc.1"),
        *(
            "vv18.3.0",
            "v 18.3.0",
            "V18.3.0",
            " 18.3.0",
            "18.3.0 ",
            "18.3.0\n",
            "18.3.0\r\n",
            "18.3.0\0",
        ),
        *("18.3.0-dev\n", "18.3.0-dev\nsomeone", "18.3.0+x\nsomeone", "18.3.0-dev.someone\n"),
        *("18.3.0dev", "18.3.0_dev", "18.3.0/dev", "18.3.x", "18.-3.0", "18..0", "18,3,0"),
        *(
            "\N{ARABIC-INDIC DIGIT ONE}8.3.0",
            "18.3.\N{FULLWIDTH DIGIT ZERO}",
            "18.3.\N{SUPERSCRIPT TWO}",
        ),
        *("18\N{FULLWIDTH FULL STOP}3\N{FULLWIDTH FULL STOP}0", "18.3.0\N{LINE SEPARATOR}"),
        *("web01.example.com", "0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20", "_OTHER ", "latest"),
        *_NOT_STRINGS,
    ),
    _start(
        "version missing",
        _without("tbot.version"),
        FULL_ATTRIBUTES | {"tbot.version": OTHER},
        ("tbot.version", Reason.UNKNOWN_VALUE),
    ),
]

_HELPERS = [
    *_kept(
        "tbot.helper",
        *("gha:teleport-actions/auth", "gha:teleport-actions/auth-k8s"),
        *("gha:teleport-actions/auth-application", "gha:teleport-actions/application-proxy"),
        *("gha:teleport-actions/application-tunnel", "gha:teleport-actions/database-tunnel"),
    ),
    _start(
        "helper _OTHER",
        FULL_ATTRIBUTES | {"tbot.helper": OTHER},
        _in_order(_without("tbot.helper_version") | {"tbot.helper": OTHER}),
        ("tbot.helper_version", Reason.UNKNOWN_HELPER),
    ),
    *_helper_replaced(
        # Names that can be allowed.
        *("terraform", "Jenkins", "gitlab-ci:org/group/step_2", "a", "k8s:x", "w" * 64),
        *("a" * 11 + "-" + "f" * 11, "ci1:a2/b3", "deadbeef-feedbee"),
        # Close to a known name.
        *("GHA:teleport-actions/auth", "gha:teleport-actions/auth ", "gha:teleport-actions/auth\n"),
        *("gha:teleport-actions/auth-", "gha:teleport-actions/", "teleport-actions/auth"),
        # Names that identify by what they mean.
        *("web-prod-acme-corp", "alice-laptop-acme-com", "alice", "acme-corp", "db-primary"),
        *("sk-live_abcdefgh", "MFRGGZDFMZTWQ", "jbswy-dpehpk", "arn-aws-iam-role-admin"),
    ),
    *_helper_replaced(
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
        # One MAC address in a hundred has so few digits that the limit on digits permits it.
        *("fa:ce:b0:0c:ca:fe", "fa-ce-b0-0c-ca-fe", "helper-fa-ce-b0-0c-ca-fe"),
        *("someone@example.com", "someone@host", "user+tag@example.com", "x:someone@host"),
        # Identifiers.
        *("0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20", "f47ac10b-58cc-4372-a567-0e02b2c3d479"),
        *("0b7f1f2e5d0c4c398a543f1d9e6b7a20", "f47ac10b58cc4372a5670e02b2c3d479"),
        *("abcdefab-cdef-abcd-efab-cdefabcdefab", "gha:F47AC10B58CC4372A5670E02B2C3D479"),
        *("d41d8cd98f00b204e9800998ecf8427e", "sha-da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        *("abcdefabcdef", "x/ABCDEFabcdef", "account-123456789012", "build-2026", "tel-4-4-2-0"),
        # Not of the pattern's form.
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
        *("GHA:x", "1a:x", "x_y:z", "x/1", "x/-y"),
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
        *(value for value in _NOT_STRINGS if value is not None),
    ),
    *(
        _start(
            _case_id("tbot.helper", value),
            {**FULL_ATTRIBUTES, "tbot.helper": value},
            _without("tbot.helper", "tbot.helper_version"),
            ("tbot.helper_version", Reason.NO_HELPER),
        )
        for value in ("", None)
    ),
    _start(
        "helper missing",
        _without("tbot.helper"),
        _without("tbot.helper", "tbot.helper_version"),
        ("tbot.helper_version", Reason.NO_HELPER),
    ),
    _start(
        "helper and helper_version missing",
        _without("tbot.helper", "tbot.helper_version"),
        _without("tbot.helper", "tbot.helper_version"),
    ),
    _start(
        "helper and helper_version empty",
        FULL_ATTRIBUTES | {"tbot.helper": "", "tbot.helper_version": ""},
        _without("tbot.helper", "tbot.helper_version"),
    ),
]

_HELPER_VERSIONS = [
    *_kept(
        "tbot.helper_version",
        *("1.2.0", "0.0.0", "99.99.99", "1.2.0-rc.1", "1.2.0-dev", "2.0.0-beta", "1.0.0-alpha.99"),
    ),
    *_cut("tbot.helper_version", {"v1.2.0": "1.2.0", "v2.0.0-beta": "2.0.0-beta"}),
    *_helper_version_left_out(
        *(
            "1.2.3.4",
            "192.0.2.1",
            "v1.2.0-dev.someone",
            "1.2.0+build",
            "1.2.0-someone",
            "V1.2.0",
            "vv1.2.0",
        ),
        *("v1", "1", "1.2", "v2-beta", "100.2.0", "1.200.0", "1.2.300", "1.2.0-rc.100"),
        *(
            "v",
            "01",
            "1.02",
            "1000",
            "2026.11.23",
            "203.0.113-rc.77",
            "20261123",
            "main",
            "abcdef1",
            "1.2.0 ",
            " 1",
        ),
        *("1.2.0\n", "1\n2", "1.\N{ARABIC-INDIC DIGIT ONE}", "1..2", ".1", "1.", "1,2", OTHER),
        *("d41d8cd98f00b204e9800998ecf8427e", "someone@example.com", "web01.example.com", " "),
        *(value for value in _NOT_STRINGS if value is not None),
    ),
    *(
        _start(
            _case_id("tbot.helper_version", value),
            {**FULL_ATTRIBUTES, "tbot.helper_version": value},
            _without("tbot.helper_version"),
        )
        for value in ("", None)
    ),
    _start(
        "helper_version missing",
        _without("tbot.helper_version"),
        _without("tbot.helper_version"),
    ),
]

_COUNTS = [
    case
    for name, default in EMPTY_ATTRIBUTES.items()
    if default == 0
    for case in (
        *_kept(name, 0, 1, 999),
        *_capped(name, 1000, 2125551234, 2**31, 2**63, 10**30),
        *_refused(
            name,
            *(-1, -(2**31), 0.0, 1.0, float("nan"), float("inf"), True, False),
            *("", "0", "1", "1 or 2", OTHER, None, b"1", (1,), (), {"1": 1}),
        ),
        _start(
            f"{name.removeprefix('tbot.')} missing", _without(name), FULL_ATTRIBUTES | {name: 0}
        ),
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
