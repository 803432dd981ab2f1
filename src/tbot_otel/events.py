"""The registry: every event and attribute that can ever be collected.

What is not listed here is not collected. `policy.decide` copies by this list, `StartEvent` is
checked against it, ``tbot-otel events`` and ``docs/events.md`` print it, and a test holds it
against ``CHANGELOG.md``. Names, types and meanings of `tbot.start` are those of Teleport's
anonymous telemetry (https://goteleport.com/docs/reference/machine-id/telemetry/).
"""

import re

from tbot_otel.errors import InvalidEventError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal, NoReturn

OTHER = "_OTHER"
"""What stands for a value outside the known ones (OpenTelemetry's semantic conventions)."""

INT32_MAX = 2**31 - 1

# A number of at most three digits: more would have room for an account, a date or a telephone.
_NUMBER = "(?:0|[1-9][0-9]{0,2})"
_STAGE = rf"-(?:alpha|beta|rc|dev)(?:\.{_NUMBER})?"
_VERSION = rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:{_STAGE})?"
# What may follow a version, and name a person. A fourth number makes an address, not a version.
_VERSION_TAIL = r"(?:[-+].*|(?<=[a-z])\..*)?"
# No dot and no @ (host names, addresses, e-mail), at most three digits, fewer than twelve
# hexadecimal digits in a row (account numbers, UUIDs, hashes), and no six pairs of them (hardware
# addresses).
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
        type: ``string`` or ``int``; an int is from 0 to 2147483647.
        values: The known values, where they are a list. Any other leaves as ``_OTHER``.
        pattern: A regular expression of the values that may leave, where they are no list. Any
            other leaves as ``_OTHER``, or not at all where the attribute is optional.
        tail: A regular expression of what is cut off behind the pattern.
        example: A value that fits the pattern.
        optional: Whether a record may be without it.
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
        self.name = name
        self.brief = brief
        self.since = since
        self.type = type
        self.values = values
        self.pattern = pattern
        self.tail = tail
        self.example = example
        self.optional = optional
        self._compiled: re.Pattern[str] | None = None

    @property
    def expected(self) -> str:
        """What it takes, in words."""
        if self.type == "int":
            return f"a whole number from 0 to {INT32_MAX}"
        if self.values:
            return "one of " + ", ".join(value or "'' (none)" for value in self.values)
        return f"a value such as {self.example}"

    def admit(self, value: object) -> str | int | None:
        """The value as it may leave, or None where nothing may."""
        if self.type == "int":
            # A bool is an int to Python, and no count.
            return value if type(value) is int and 0 <= value <= INT32_MAX else None
        if type(value) is str:
            if self.values:
                return value if value in self.values else OTHER
            if self._compiled is None:
                # At its first use, as a start without consent needs hardly any of them.
                self._compiled = re.compile(f"({self.pattern}){self.tail}")
            if match := self._compiled.fullmatch(value):
                return match[1]
        return None if self.optional else OTHER


class Event:
    """One event that can be collected, with its attributes in the order of the record."""

    __slots__ = ("attributes", "brief", "name", "since")

    def __init__(
        self, name: str, brief: str, *, since: str, attributes: tuple[Attribute, ...]
    ) -> None:
        self.name = name
        self.brief = brief
        self.since = since
        self.attributes = attributes


START = Event(
    "tbot.start",
    "tbot was started.",
    since="0.1.0",
    attributes=(
        Attribute(
            "tbot.run_mode",
            "Whether tbot runs once or until it is stopped.",
            since="0.1.0",
            values=("one-shot", "daemon"),
        ),
        Attribute(
            "tbot.version",
            "The version of tbot. Of what follows X.Y.Z, only alpha, beta, rc or dev with its "
            "number is kept.",
            since="0.1.0",
            pattern=_VERSION,
            tail=_VERSION_TAIL,
            example="18.3.0",
        ),
        Attribute(
            "tbot.join_type",
            "The join method that tbot is configured with; empty if none is.",
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
            "How many destinations of any other kind are configured.",
            since="0.1.0",
            type="int",
        ),
        Attribute(
            "tbot.destinations_database",
            "How many database destinations are configured.",
            since="0.1.0",
            type="int",
        ),
        Attribute(
            "tbot.destinations_kubernetes",
            "How many Kubernetes destinations are configured.",
            since="0.1.0",
            type="int",
        ),
        Attribute(
            "tbot.destinations_application",
            "How many application destinations are configured.",
            since="0.1.0",
            type="int",
        ),
    ),
)

EVENTS: "Mapping[str, Event]" = {START.name: START}
"""Every event, by its name."""

RESOURCE = (
    Attribute("service.name", "The service: tbot.", since="0.1.0", pattern="tbot", example="tbot"),
    Attribute(
        "session.id",
        "A random UUID (version 4), new at every start: it ties the records of one start together.",
        since="0.1.0",
        pattern="[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
        example="0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20",
    ),
    Attribute(
        "os.type",
        "The operating system; only if the event is from this machine.",
        since="0.1.0",
        values=("aix", "darwin", "freebsd", "linux", "netbsd", "openbsd", "solaris", "windows"),
        optional=True,
    ),
    Attribute(
        "host.arch",
        "The processor architecture; only if the event is from this machine.",
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
"""All that the Resource of a record carries."""


class StartEvent:
    """A start of tbot: checked when it is made, and never changed.

    Of a version, what may not leave is cut off here already.

    Args:
        run_mode: ``one-shot`` or ``daemon``.
        version: The version of tbot, such as ``18.3.0``.
        join_type: Its join method; empty if none is configured.
        helper: The program that runs tbot, if it names itself.
        helper_version: The version of that program.
        destinations_other: Configured destinations of any other kind.
        destinations_database: Configured database destinations.
        destinations_kubernetes: Configured Kubernetes destinations.
        destinations_application: Configured application destinations.

    Raises:
        InvalidEventError: A value is not one that the registry allows (``_OTHER`` is allowed
            where the value is not optional), or a helper's version comes without a helper.
    """

    __slots__ = tuple(attribute.name.removeprefix("tbot.") for attribute in START.attributes)

    run_mode: str
    version: str
    join_type: str
    helper: str | None
    helper_version: str | None
    destinations_other: int
    destinations_database: int
    destinations_kubernetes: int
    destinations_application: int

    def __init__(
        self,
        *,
        run_mode: str,
        version: str,
        join_type: str = "",
        helper: str | None = None,
        helper_version: str | None = None,
        destinations_other: int = 0,
        destinations_database: int = 0,
        destinations_kubernetes: int = 0,
        destinations_application: int = 0,
    ) -> None:
        given = (
            run_mode,
            version,
            join_type,
            helper,
            helper_version,
            destinations_other,
            destinations_database,
            destinations_kubernetes,
            destinations_application,
        )
        for field, attribute, value in zip(self.__slots__, START.attributes, given, strict=True):
            admitted = None
            if value is not None or not attribute.optional:
                admitted = attribute.admit(value)
                if admitted is None or (admitted == OTHER and value != OTHER):
                    raise InvalidEventError(attribute.name, attribute.expected)
            object.__setattr__(self, field, admitted)
        if helper_version is not None and helper is None:
            raise InvalidEventError("tbot.helper_version", "a tbot.helper beside it")

    @classmethod
    def of(cls, attributes: "Mapping[str, str | int]") -> "StartEvent":
        """Return the start with these attributes, by their names in the registry."""
        fields: dict[str, Any] = {
            name.removeprefix("tbot."): value for name, value in attributes.items()
        }
        return cls(**fields)

    @property
    def attributes(self) -> dict[str, str | int]:
        """The attributes of its record, by their names; a new dict each time."""
        fields = zip(self.__slots__, START.attributes, strict=True)
        values = {attribute.name: getattr(self, field) for field, attribute in fields}
        return {name: value for name, value in values.items() if value is not None}

    def __setattr__(self, name: str, value: object) -> "NoReturn":
        raise AttributeError(f"a StartEvent is not changed: {name}")

    def __delattr__(self, name: str) -> "NoReturn":
        raise AttributeError(f"a StartEvent is not changed: {name}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StartEvent):
            return NotImplemented
        return self.attributes == other.attributes

    def __hash__(self) -> int:
        return hash(tuple(self.attributes.items()))

    def __reduce__(self) -> "tuple[Any, ...]":
        # Copies and pickles are made anew, as nothing may be set on them.
        from functools import partial

        return partial(StartEvent, **{field: getattr(self, field) for field in self.__slots__}), ()

    def __repr__(self) -> str:
        fields = ", ".join(f"{field}={getattr(self, field)!r}" for field in self.__slots__)
        return f"StartEvent({fields})"
