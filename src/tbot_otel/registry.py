"""The registry: every event and attribute that can ever be collected.

Only what is listed here can be collected. `policy.decide` copies by this list, `StartEvent`
validates against it, ``tbot-otel events`` and ``docs/events.md`` print it, and a test compares it
with ``CHANGELOG.md``. Names, types and meanings of `tbot.start` are those of Teleport's anonymous
telemetry (https://goteleport.com/docs/reference/machine-id/telemetry/).
"""

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

OTHER = "_OTHER"
"""The value that replaces an unknown one (from OpenTelemetry's semantic conventions)."""

INT32_MAX = 2**31 - 1

# At most three digits: more could hold an account number, a date or a telephone number.
_NUMBER = "(?:0|[1-9][0-9]{0,2})"
_STAGE = rf"-(?:alpha|beta|rc|dev)(?:\.{_NUMBER})?"
_VERSION = rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:{_STAGE})?"
# A version's tail can name a person. A fourth number would make an IP address of it.
_VERSION_TAIL = r"(?:[-+].*|(?<=[a-z])\..*)?"
# No dot or @ (host names, IP addresses, e-mail), at most three digits, fewer than 12 hexadecimal
# digits in a row (account numbers, UUIDs, hashes), no six pairs of them (MAC addresses).
_HELPER = (
    r"(?=.{1,64}$)(?!(?:[^0-9]*[0-9]){4})(?!.*[0-9A-Fa-f]{12})"
    r"(?!.*(?:[0-9A-Fa-f]{2}[-_]){5}[0-9A-Fa-f]{2})"
    r"(?:[a-z][a-z0-9-]*:)?[A-Za-z][A-Za-z0-9_-]*(?:/[A-Za-z][A-Za-z0-9_-]*)*"
)
_HELPER_VERSION = rf"v?{_NUMBER}(?:\.{_NUMBER}){{0,2}}(?:{_STAGE})?"


class Attribute:
    """One attribute that can be collected.

    Args:
        name: Its name in the record.
        brief: What it means.
        since: The version of this package that added it.
        type: ``string`` or ``int``. An int is from 0 to 2147483647.
        values: The known values, if they are a list. Any other value becomes ``_OTHER``.
        pattern: A regular expression of the allowed values, if they are not a list. Any other
            value becomes ``_OTHER``; if the attribute is optional, it is left out.
        tail: A regular expression of what is cut off after the pattern.
        example: A value that is allowed.
        optional: Whether a record may lack the attribute.
    """

    __slots__ = (
        "_compiled",
        "brief",
        "example",
        "name",
        "optional",
        "pattern",
        "since",
        "tail",
        "type",
        "values",
    )

    def __init__(
        self,
        name: str,
        brief: str,
        *,
        since: str,
        type: "Literal['string', 'int']" = "string",
        values: tuple[str, ...] = (),
        pattern: str = "",
        tail: str = "",
        example: str = "",
        optional: bool = False,
    ) -> None:
        self.name: str = name
        self.brief: str = brief
        self.since: str = since
        self.type: Literal["string", "int"] = type
        self.values: tuple[str, ...] = values
        self.pattern: str = pattern
        self.tail: str = tail
        self.example: str = example
        self.optional: bool = optional
        self._compiled: re.Pattern[str] | None = None

    @property
    def expected(self) -> str:
        """The allowed values, in words."""
        if self.type == "int":
            return f"a whole number from 0 to {INT32_MAX}"
        if self.values:
            return "one of " + ", ".join(value or "'' (none)" for value in self.values)
        return f"a value such as {self.example}"

    def admit(self, value: object) -> str | int | None:
        """Return the value that may leave for this one; None if no value may."""
        if self.type == "int":
            # In Python, a bool is an int.
            return value if type(value) is int and 0 <= value <= INT32_MAX else None
        if type(value) is str:
            if self.values:
                return value if value in self.values else OTHER
            if self._compiled is None:
                # Compiled at first use: a start without consent needs few patterns.
                self._compiled = re.compile(f"({self.pattern}){self.tail}")
            if match := self._compiled.fullmatch(value):
                return match[1]
        return None if self.optional else OTHER


class Event:
    """One event that can be collected. Records have its attributes in this order."""

    __slots__ = ("attributes", "brief", "name", "since")

    def __init__(
        self, name: str, brief: str, *, since: str, attributes: tuple[Attribute, ...]
    ) -> None:
        self.name: str = name
        self.brief: str = brief
        self.since: str = since
        self.attributes: tuple[Attribute, ...] = attributes


START = Event(
    "tbot.start",
    "tbot was started.",
    since="0.1.0",
    attributes=(
        Attribute(
            "tbot.run_mode",
            "Whether tbot runs once, or until it is stopped.",
            since="0.1.0",
            values=("one-shot", "daemon"),
        ),
        Attribute(
            "tbot.version",
            "The version of tbot. After X.Y.Z, only alpha, beta, rc or dev and a number are kept.",
            since="0.1.0",
            pattern=_VERSION,
            tail=_VERSION_TAIL,
            example="18.3.0",
        ),
        Attribute(
            "tbot.join_type",
            "The configured join method; empty if there is none.",
            since="0.1.0",
            values=(
                "",
                "azure",
                "azure_devops",
                "bitbucket",
                "bound_keypair",
                "circleci",
                "ec2",
                "env0",
                "gcp",
                "generic_oidc",
                "github",
                "gitlab",
                "iam",
                "kubernetes",
                "oracle",
                "spacelift",
                "terraform_cloud",
                "token",
                "tpm",
            ),
        ),
        Attribute(
            "tbot.helper",
            "The program that runs tbot, if it names itself.",
            since="0.1.0",
            pattern=_HELPER,
            example="gha:teleport-actions/auth",
            optional=True,
        ),
        Attribute(
            "tbot.helper_version",
            "The version of that program; only with a helper.",
            since="0.1.0",
            pattern=_HELPER_VERSION,
            example="v1.2.0",
            optional=True,
        ),
        Attribute(
            "tbot.destinations_other",
            "The number of configured destinations of any other kind.",
            since="0.1.0",
            type="int",
        ),
        Attribute(
            "tbot.destinations_database",
            "The number of configured database destinations.",
            since="0.1.0",
            type="int",
        ),
        Attribute(
            "tbot.destinations_kubernetes",
            "The number of configured Kubernetes destinations.",
            since="0.1.0",
            type="int",
        ),
        Attribute(
            "tbot.destinations_application",
            "The number of configured application destinations.",
            since="0.1.0",
            type="int",
        ),
    ),
)

EVENTS: "Mapping[str, Event]" = {START.name: START}
"""Every event, by name."""

RESOURCE = (
    Attribute("service.name", "The service: tbot.", since="0.1.0", pattern="tbot", example="tbot"),
    Attribute(
        "session.id",
        "A random UUID (version 4), new at every start. It ties the records of one start together.",
        since="0.1.0",
        pattern="[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
        example="0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20",
    ),
    Attribute(
        "os.type",
        "The operating system; only for an event of this machine.",
        since="0.1.0",
        values=("aix", "darwin", "freebsd", "linux", "netbsd", "openbsd", "solaris", "windows"),
        optional=True,
    ),
    Attribute(
        "host.arch",
        "The processor architecture; only for an event of this machine.",
        since="0.1.0",
        values=("amd64", "arm32", "arm64", "ia64", "ppc32", "ppc64", "s390x", "x86"),
        optional=True,
    ),
    Attribute(
        "telemetry.sdk.language",
        "The language of the OpenTelemetry SDK.",
        since="0.1.0",
        pattern="python",
        example="python",
    ),
    Attribute(
        "telemetry.sdk.name",
        "The name of the OpenTelemetry SDK.",
        since="0.1.0",
        pattern="opentelemetry",
        example="opentelemetry",
    ),
    Attribute(
        "telemetry.sdk.version",
        "The version of the OpenTelemetry SDK.",
        since="0.1.0",
        pattern=r"[0-9]+\.[0-9]+\.[0-9]+[0-9a-z.]*",
        example="1.45.2",
    ),
)
"""Every attribute of a record's Resource."""
