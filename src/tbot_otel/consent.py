"""Consent, read from the environment each time it matters.

`TELEPORT_ANONYMOUS_TELEMETRY` is read as tbot reads it, with Go's ``strconv.ParseBool``
(https://pkg.go.dev/strconv#ParseBool). `OTEL_SDK_DISABLED`
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/) and
`DO_NOT_TRACK` (https://consoledonottrack.com/) can only refuse.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

OPT_IN = "TELEPORT_ANONYMOUS_TELEMETRY"

_TRUE_VALUES = ("1", "t", "T", "TRUE", "true", "True")
_FALSE_VALUES = ("0", "f", "F", "FALSE", "false", "False")


class Consent:
    """A decision about consent, and the reason for it. It is true only if consent is granted.

    Attributes:
        granted: Whether a record may leave.
        variable: The variable that decided.
        reason: One sentence for people.
    """

    __slots__ = ("granted", "reason", "variable")

    def __init__(self, *, granted: bool, variable: str, reason: str) -> None:
        self.granted: bool = granted
        self.variable: str = variable
        self.reason: str = reason

    def __bool__(self) -> bool:
        return self.granted

    def __repr__(self) -> str:
        return f"Consent({self.granted}, {self.variable!r}, {self.reason!r})"


class OptInSampler:
    """Samples every record with consent, and no record without it.

    It is our own class, because OpenTelemetry has samplers for traces alone. In a pipeline,
    `OptInLogRecordProcessor` and `TbotLogExporter` ask it for each record.

    Args:
        environ: The variables to read; `os.environ` by default.
    """

    def __init__(self, environ: "Mapping[str, str] | None" = None) -> None:
        self._environ = os.environ if environ is None else environ

    def should_sample(self) -> Consent:
        """Read the variables as they are now. A value that is not understood refuses."""
        value = self._environ.get(OPT_IN)
        if value not in _TRUE_VALUES:
            if not value:
                problem = "is not set"
            elif value in _FALSE_VALUES:
                problem = "opts out"
            else:
                problem = "is neither true (1, t, true) nor false (0, f, false)"
            return _refuse(OPT_IN, problem)
        if is_sdk_disabled(self._environ):
            return _refuse("OTEL_SDK_DISABLED", "turns all telemetry off")
        if self._environ.get("DO_NOT_TRACK", "") not in ("", "0", "false"):
            return _refuse("DO_NOT_TRACK", "asks not to be tracked")
        return Consent(granted=True, variable=OPT_IN, reason=f"{OPT_IN} opts in")


def is_sdk_disabled(environ: "Mapping[str, str]") -> bool:
    """Return whether `OTEL_SDK_DISABLED` turns OpenTelemetry off."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _refuse(variable: str, problem: str) -> Consent:
    return Consent(granted=False, variable=variable, reason=f"{variable} {problem}")
