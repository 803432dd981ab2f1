"""Consent: read from the environment, each time that it matters.

`TELEPORT_ANONYMOUS_TELEMETRY` is read as tbot reads it, with Go's ``strconv.ParseBool``
(https://pkg.go.dev/strconv#ParseBool). `OTEL_SDK_DISABLED`
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/) and
`DO_NOT_TRACK` (https://consoledonottrack.com/) can only refuse what it allowed.
"""

import os
from enum import Enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

OPT_IN = "TELEPORT_ANONYMOUS_TELEMETRY"

_YES = ("1", "t", "T", "TRUE", "true", "True")
_NO = ("0", "f", "F", "FALSE", "false", "False")


class Decision(Enum):
    """The decision, under the names of OpenTelemetry's samplers."""

    DROP = "drop"
    RECORD_AND_SAMPLE = "record and sample"


class Consent:
    """What the environment says to the telemetry.

    Attributes:
        decision: Whether a record may leave.
        variable: The variable that decided.
        reason: A sentence that a person can read.
    """

    __slots__ = ("decision", "reason", "variable")

    def __init__(self, decision: Decision, variable: str, reason: str) -> None:
        self.decision = decision
        self.variable = variable
        self.reason = reason

    @property
    def granted(self) -> bool:
        """Whether a record may leave."""
        return self.decision is Decision.RECORD_AND_SAMPLE

    def __repr__(self) -> str:
        return f"Consent({self.decision}, {self.variable!r}, {self.reason!r})"


class OptInSampler:
    """Samples everything with consent, and nothing without.

    Args:
        environ: The variables to read; `os.environ` unless given.
    """

    def __init__(self, environ: "Mapping[str, str] | None" = None) -> None:
        self._environ = os.environ if environ is None else environ

    def should_sample(self) -> Consent:
        """Read the environment as it is now. Whatever cannot be understood is a no."""
        value = self._environ.get(OPT_IN, "")
        if value not in _YES:
            if not value:
                problem = "is not set"
            elif value in _NO:
                problem = "opts out"
            else:
                problem = "is set to neither yes (1, t, true) nor no (0, f, false)"
            return Consent(Decision.DROP, OPT_IN, f"{OPT_IN} {problem}")
        if self._environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return Consent(
                Decision.DROP, "OTEL_SDK_DISABLED", "OTEL_SDK_DISABLED turns all telemetry off"
            )
        if self._environ.get("DO_NOT_TRACK", "") not in ("", "0", "false"):
            return Consent(Decision.DROP, "DO_NOT_TRACK", "DO_NOT_TRACK asks not to be tracked")
        return Consent(Decision.RECORD_AND_SAMPLE, OPT_IN, f"{OPT_IN} opts in")
