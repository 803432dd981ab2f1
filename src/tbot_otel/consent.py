"""Consent: read from the environment, each time that it matters.

`TELEPORT_ANONYMOUS_TELEMETRY` is read as tbot reads it, with Go's ``strconv.ParseBool``
(https://pkg.go.dev/strconv#ParseBool). `OTEL_SDK_DISABLED`
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/) and
`DO_NOT_TRACK` (https://consoledonottrack.com/) can only refuse what it allowed.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

OPT_IN = "TELEPORT_ANONYMOUS_TELEMETRY"

_YES = ("1", "t", "T", "TRUE", "true", "True")
_NO = ("0", "f", "F", "FALSE", "false", "False")


class Consent:
    """What the environment says to the telemetry.

    Attributes:
        granted: The decision: whether a record may leave.
        variable: The variable that decided.
        reason: A sentence that a person can read.
    """

    __slots__ = ("granted", "reason", "variable")

    def __init__(self, *, granted: bool, variable: str, reason: str) -> None:
        self.granted = granted
        self.variable = variable
        self.reason = reason

    def __repr__(self) -> str:
        return f"Consent({self.granted}, {self.variable!r}, {self.reason!r})"


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
            return _refused(OPT_IN, problem)
        if sdk_is_disabled(self._environ):
            return _refused("OTEL_SDK_DISABLED", "turns all telemetry off")
        if self._environ.get("DO_NOT_TRACK", "") not in ("", "0", "false"):
            return _refused("DO_NOT_TRACK", "asks not to be tracked")
        return Consent(granted=True, variable=OPT_IN, reason=f"{OPT_IN} opts in")


def sdk_is_disabled(environ: "Mapping[str, str]") -> bool:
    """Say whether `OTEL_SDK_DISABLED` turns OpenTelemetry off."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _refused(variable: str, problem: str) -> Consent:
    return Consent(granted=False, variable=variable, reason=f"{variable} {problem}")
