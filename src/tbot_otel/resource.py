"""The anonymous Resource, and the resource detector that offers the session to a pipeline."""

import functools
import platform
import sys

from opentelemetry.sdk.resources import Resource, ResourceDetector
from opentelemetry.sdk.version import __version__ as sdk_version

from tbot_otel import session
from tbot_otel.consent import OptInSampler
from tbot_otel.events import RESOURCE

# What Python says -> what the semantic conventions say, where they differ.
_OS_TYPES = {"sunos": "solaris", "win": "windows"}
_HOST_ARCHS = {
    "aarch64": "arm64",
    "armv6l": "arm32",
    "armv7l": "arm32",
    "armv8l": "arm32",
    "i386": "x86",
    "i586": "x86",
    "i686": "x86",
    "powerpc": "ppc32",
    "ppc": "ppc32",
    "ppc64le": "ppc64",
    "x86_64": "amd64",
}


_PROCESS = {
    "service.name": "tbot",
    "telemetry.sdk.language": "python",
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.version": sdk_version,
}


@functools.cache
def _machine() -> dict[str, str]:
    system = sys.platform.rstrip("0123456789.")
    machine = platform.machine().lower()
    return {
        "os.type": _OS_TYPES.get(system, system),
        "host.arch": _HOST_ARCHS.get(machine, machine),
    }


# The SDK is slow to build and to compare a Resource, and a batch mostly is of one session.
@functools.lru_cache(maxsize=16)
def anonymous(session_id: str, *, here: bool = True) -> Resource:
    """Return the Resource of a record: the registry's attributes, and no others.

    Neither the environment nor any detector is asked.

    Args:
        session_id: The session that the record belongs to.
        here: Whether the record is of this machine.
    """
    values = {**_PROCESS, **(_machine() if here else {}), "session.id": session_id}
    return Resource(
        {item.name: str(item.admit(values[item.name])) for item in RESOURCE if item.name in values}
    )


class TbotResourceDetector(ResourceDetector):
    """Offers this process's `session.id`, for people who build a provider of their own.

    With no consent it offers nothing. It is the entry point ``tbot`` of
    ``opentelemetry_resource_detector``.
    """

    def detect(self) -> Resource:
        """Return the session's Resource, or an empty one."""
        if not OptInSampler().should_sample().granted:
            return Resource.get_empty()
        return Resource({"session.id": session.current().id})

    def is_process_dependent(self) -> bool:
        """Say that a forked child has a session of its own (asked by the newest SDKs)."""
        return True
