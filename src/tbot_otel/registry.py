"""The registry: every event and attribute that can ever be collected.

Only what is listed here can be collected. `policy.decide` copies by this list, `StartEvent`
validates against it, ``tbot-otel events`` and ``docs/events.md`` print it, and a test compares it
with ``CHANGELOG.md``. Names, types and meanings of `tbot.start` are those of Teleport's anonymous
telemetry (https://goteleport.com/docs/reference/machine-workload-identity/machine-id/telemetry/).
"""

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Literal

OTHER = "_OTHER"
"""The value that replaces an unknown one (from OpenTelemetry's semantic conventions)."""

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
"""The version of the semantic conventions that the names from there follow."""

VERSIONS = {
    "0.1.0": "The first release. It collects what tbot itself reports of its starts.",
}
"""The releases that changed this registry, oldest first, each with the reason for its changes.

``registry/`` has a snapshot of each.
"""

MAX_COUNT = 999
"""The largest count that leaves. It stands for itself and every larger one."""

# At most two digits: more could be a part of an address, a date or a telephone number.
_NUMBER = "(?:0|[1-9][0-9]?)"
_STAGE = rf"-(?:alpha|beta|rc|dev)(?:\.{_NUMBER})?"
# No tbot before version 12 reports its starts.
_VERSION = rf"(?:1[2-9]|[2-9][0-9])\.{_NUMBER}\.{_NUMBER}(?:{_STAGE})?"
# The tail of a version can be a name, or a fourth number that makes an IP address.
_VERSION_TAIL = r"(?:[-+].*|(?<=[a-z])\..*)?"
# No dot or @ (host names, IP addresses, e-mail), at most three digits, fewer than 12 hexadecimal
# digits in a row (account numbers, UUIDs, hashes), no six pairs of them (MAC addresses).
_HELPER = (
    r"(?=.{1,64}$)(?!(?:[^0-9]*[0-9]){4})(?!.*[0-9A-Fa-f]{12})"
    r"(?!.*(?:[0-9A-Fa-f]{2}[-_]){5}[0-9A-Fa-f]{2})"
    r"(?:[a-z][a-z0-9-]*:)?[A-Za-z][A-Za-z0-9_-]*(?:/[A-Za-z][A-Za-z0-9_-]*)*"
)
_HELPER_VERSION = rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:{_STAGE})?"


class Attribute:
    """One attribute that can be collected.

    Args:
        name: Its name in the record.
        brief: What it means.
        question: The question that it answers.
        since: The version of this package that added it.
        type: ``string`` or ``int``. An int is a count, from 0 to `MAX_COUNT`.
        values: The known values, if they are a list. Any other value becomes ``_OTHER``.
        pattern: A regular expression of the allowed values, if they are not a list. Any other
            value becomes ``_OTHER``; if the attribute is optional, it is left out. If there is
            also a list, the owner of a pipeline can allow more values, which must match.
        dropped_before: A regular expression of what is dropped before the pattern.
        cut_off_after: A regular expression of what is cut off after the pattern.
        allowed: The allowed values in words, if they are not a list.
        examples: Three values that leave, if they are not a list.
        counterexamples: Three values that do not.
        optional: Whether a record may lack the attribute.
    """

    __slots__ = (
        "_compiled",
        "allowed",
        "brief",
        "counterexamples",
        "cut_off_after",
        "dropped_before",
        "examples",
        "name",
        "optional",
        "pattern",
        "question",
        "since",
        "type",
        "values",
    )

    def __init__(
        self,
        name: str,
        brief: str,
        *,
        question: str,
        since: str,
        type: "Literal['string', 'int']" = "string",
        values: tuple[str, ...] = (),
        pattern: str = "",
        dropped_before: str = "",
        cut_off_after: str = "",
        allowed: str = "",
        examples: tuple[str | int, ...] = (),
        counterexamples: tuple[str | int, ...] = (),
        optional: bool = False,
    ) -> None:
        self.name: str = name
        self.brief: str = brief
        self.question: str = question
        self.since: str = since
        self.type: Literal["string", "int"] = type
        self.values: tuple[str, ...] = values
        self.pattern: str = pattern
        self.dropped_before: str = dropped_before
        self.cut_off_after: str = cut_off_after
        self.allowed: str = allowed
        self.examples: tuple[str | int, ...] = examples or values
        self.counterexamples: tuple[str | int, ...] = counterexamples
        self.optional: bool = optional
        self._compiled: re.Pattern[str] | None = None

    @property
    def expected(self) -> str:
        """The allowed values, in words."""
        if self.type == "int":
            return "a whole number that is not negative"
        if self.values:
            return "one of " + ", ".join(value or "'' (none)" for value in self.values)
        return f"a value such as {self.examples[0]}"

    def admit(self, value: object, allowed: "Collection[str]" = ()) -> str | int | None:
        """Return the value that may leave for this one; None if no value may.

        Args:
            value: Any value.
            allowed: More values that may leave if they match the pattern, for an attribute with
                known values.
        """
        if self.type == "int":
            # In Python, a bool is an int.
            return min(value, MAX_COUNT) if type(value) is int and value >= 0 else None
        if type(value) is str:
            if value in self.values:
                return value
            if not self.values or value in allowed:
                match = self._match(value)
                if match:
                    return match[1]
        return None if self.optional and not self.values else OTHER

    def _match(self, value: str) -> "re.Match[str] | None":
        if self._compiled is None:
            # Compiled at first use: a start without consent needs few patterns.
            self._compiled = re.compile(
                f"{self.dropped_before}({self.pattern}){self.cut_off_after}"
            )
        return self._compiled.fullmatch(value) if self.pattern else None


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


def _count(name: str, brief: str) -> Attribute:
    return Attribute(
        name,
        brief,
        question="Which kinds of destinations are in use, and how many does one tbot have?",
        since="0.1.0",
        type="int",
        allowed=f"A whole number from 0 to {MAX_COUNT}, which stands for {MAX_COUNT} or more.",
        examples=(0, 3, MAX_COUNT),
        counterexamples=(MAX_COUNT + 1, 2125551234, -1),
    )


START = Event(
    "tbot.start",
    "tbot was started.",
    since="0.1.0",
    attributes=(
        Attribute(
            "tbot.run_mode",
            "Whether tbot runs once, or until it is stopped.",
            question="How many tbots run once, as in a CI job, and how many run all the time?",
            since="0.1.0",
            values=("one-shot", "daemon"),
            counterexamples=("in-process", "Daemon", "web-prod-01"),
        ),
        Attribute(
            "tbot.version",
            "The version of tbot.",
            question="Which versions of tbot are in use, and so need support?",
            since="0.1.0",
            pattern=_VERSION,
            dropped_before="v?",
            cut_off_after=_VERSION_TAIL,
            allowed="Three numbers of at most two digits each, the first of them 12 or more. After "
            "them, only `alpha`, `beta`, `rc` or `dev` can follow, with one number of at most two "
            "digits. A `v` before the version is dropped. Anything after it is cut off, because "
            "it can name the person who built that version.",
            examples=("18.3.0", "18.0.0-rc.2", "19.0.0-dev"),
            counterexamples=("18.0.0-dev.alice.1", "203.0.113.77", "my-build-of-monday"),
        ),
        Attribute(
            "tbot.join_type",
            "The join method that is configured; empty if there is none.",
            question="Which join methods are in use, and so deserve work?",
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
            counterexamples=("acme-sso", "Token", "0b7f1f2e5d0c4c398a543f1d9e6b7a20"),
        ),
        Attribute(
            "tbot.helper",
            "The program that runs tbot, if it names itself.",
            question="Which integrations start tbot?",
            since="0.1.0",
            values=(
                "gha:teleport-actions/application-proxy",
                "gha:teleport-actions/application-tunnel",
                "gha:teleport-actions/auth",
                "gha:teleport-actions/auth-application",
                "gha:teleport-actions/auth-k8s",
                "gha:teleport-actions/database-tunnel",
            ),
            pattern=_HELPER,
            allowed="The owner of a Collector can allow more names, such as `acme-deploy`, with "
            "`--allow-helper` or `allowed_helpers`. Such a name has at most 64 characters: "
            "letters, `-`, `_`, `/`, one `:` and at most three digits. It has no dot or space.",
            counterexamples=("web-prod-acme-corp", "alice-laptop", "jenkins.example.com"),
            optional=True,
        ),
        Attribute(
            "tbot.helper_version",
            "The version of that program; only with a helper that is known or allowed.",
            question="How fast do users of an integration upgrade it?",
            since="0.1.0",
            pattern=_HELPER_VERSION,
            dropped_before="v?",
            allowed="Three numbers of at most two digits each. After them, only `alpha`, `beta`, "
            "`rc` or `dev` can follow, with one number of at most two digits. A `v` before the "
            "version is dropped.",
            examples=("2.1.2", "1.0.0-beta", "3.0.0-rc.1"),
            counterexamples=("2.1.2-acme", "203.0.113.77", "build-4711"),
            optional=True,
        ),
        _count(
            "tbot.destinations_other",
            "How many other destinations are configured. As in tbot, these include "
            "`kubernetes/v2`, `kubernetes/argo-cd`, `application-tunnel`, `application-proxy`, "
            "`database-tunnel` and every identity.",
        ),
        _count("tbot.destinations_database", "How many database destinations are configured."),
        _count(
            "tbot.destinations_kubernetes",
            "How many destinations of the type `kubernetes` are configured. `kubernetes/v2` is not "
            "one of them.",
        ),
        _count(
            "tbot.destinations_application", "How many application destinations are configured."
        ),
    ),
)

EVENTS: "Mapping[str, Event]" = {START.name: START}
"""Every event, by name."""

RESOURCE = (
    Attribute(
        "service.name",
        "The service, which is always tbot.",
        question="Which records in a shared Collector are about tbot?",
        since="0.1.0",
        values=("tbot",),
        counterexamples=("billing-api", "alice-laptop", "web01.example.com"),
    ),
    Attribute(
        "session.id",
        "A random UUID (version 4), new at every start. It ties the records of one start together.",
        question="Do two records come from one start?",
        since="0.1.0",
        pattern="[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
        allowed="32 random hexadecimal digits in five groups, created for this start alone.",
        examples=(
            "0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20",
            "c1d4f8a2-97b3-4e60-b8c5-2a7e9f013d46",
            "6e02ab91-c4d7-4f18-9350-7b8ad2e6c1f4",
        ),
        counterexamples=(
            "alice-laptop",
            "4711",
            "0b7f1f2e-5d0c-11ee-8a54-3f1d9e6b7a20",
        ),
    ),
    Attribute(
        "os.type",
        "The operating system; only for an event of this machine.",
        question="Which operating systems does tbot run on?",
        since="0.1.0",
        values=("aix", "darwin", "freebsd", "linux", "netbsd", "openbsd", "solaris", "windows"),
        counterexamples=("linux-6.1.0-acme", "Ubuntu 24.04", "web01"),
        optional=True,
    ),
    Attribute(
        "host.arch",
        "The processor architecture; only for an event of this machine.",
        question="Which processor architectures does tbot run on?",
        since="0.1.0",
        values=("amd64", "arm32", "arm64", "ia64", "ppc32", "ppc64", "s390x", "x86"),
        counterexamples=("Intel Xeon E5-2690", "armv7l-acme", "web01"),
        optional=True,
    ),
    Attribute(
        "telemetry.sdk.language",
        "The language of the OpenTelemetry SDK.",
        question="Which language's SDK created this record, if its encoding has a fault?",
        since="0.1.0",
        values=("python",),
        counterexamples=("go", "Python 3.11", "web01"),
    ),
    Attribute(
        "telemetry.sdk.name",
        "The name of the OpenTelemetry SDK.",
        question="Which SDK created this record, if its encoding has a fault?",
        since="0.1.0",
        values=("opentelemetry",),
        counterexamples=("acme-sdk", "OpenTelemetry", "web01"),
    ),
    Attribute(
        "telemetry.sdk.version",
        "The version of the OpenTelemetry SDK.",
        question="Which versions of the SDK does tbot-otel have to support?",
        since="0.1.0",
        pattern=r"[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,2}(?:(?:a|b|rc|\.dev|\.post)[0-9]{0,2})?",
        allowed="Three numbers of at most two digits each. After them, only `a`, `b`, `rc`, `.dev` "
        "or `.post` can follow, with one number of at most two digits.",
        examples=("1.45.2", "1.46.0.dev", "2.0.0rc1"),
        counterexamples=("1.45.2+acme", "203.0.113.77", "build-4711"),
    ),
)
"""Every attribute of a record's Resource."""

ATTRIBUTES: "Mapping[str, Attribute]" = {
    attribute.name: attribute for attribute in (*START.attributes, *RESOURCE)
}
"""Every attribute, by name."""
