"""The anonymous Resource, and the resource detector that offers the session id to a pipeline."""

import functools
import platform
import sys

from opentelemetry.sdk.resources import Resource, ResourceDetector
from opentelemetry.sdk.version import __version__ as sdk_version

from tbot_otel import session
from tbot_otel.consent import OptInSampler
from tbot_otel.registry import RESOURCE

# Python's names -> the semantic conventions' names, where they differ.
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
_CONSTANT_ATTRIBUTES = {
    "service.name": "tbot",
    "telemetry.sdk.language": "python",
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.version": sdk_version,
}


@functools.cache
def _host_attributes() -> dict[str, str]:
    system = sys.platform.rstrip("0123456789.")
    machine = platform.machine().lower()
    return {
        "os.type": _OS_TYPES.get(system, system),
        "host.arch": _HOST_ARCHS.get(machine, machine),
    }


# Cached: the SDK builds and compares a Resource slowly, and most batches have one session.
@functools.lru_cache(maxsize=16)
def anonymous_resource(session_id: str, *, include_host: bool = True) -> Resource:
    """Return a record's Resource: the registry's attributes, and no others.

    Environment variables and resource detectors are ignored.

    Args:
        session_id: The session that the record belongs to.
        include_host: Whether to include ``os.type`` and ``host.arch`` of this machine.
    """
    values = {
        **_CONSTANT_ATTRIBUTES,
        **(_host_attributes() if include_host else {}),
        "session.id": session_id,
    }
    return Resource(
        {item.name: str(item.admit(values[item.name])) for item in RESOURCE if item.name in values}
    )


class TbotResourceDetector(ResourceDetector):
    """Offers this process's `session.id` to a provider of the user's own.

    Without consent it offers nothing. It is the entry point ``tbot`` in
    ``opentelemetry_resource_detector``.
    """

    def detect(self) -> Resource:
        """Return a Resource with the session id, or an empty one."""
        if not OptInSampler().should_sample().granted:
            return Resource.get_empty()
        return Resource({"session.id": session.current().id})

    def is_process_dependent(self) -> bool:
        """Return True: a forked child has its own session. The newest SDKs ask."""
        return True
