"""The anonymous Resource, and the resource detector that offers the session id to a pipeline."""

import functools
import os
import platform
import sys

from opentelemetry.sdk.environment_variables import OTEL_EXPERIMENTAL_RESOURCE_DETECTORS
from opentelemetry.sdk.resources import Resource, ResourceDetector
from opentelemetry.sdk.version import __version__ as sdk_version

from tbot_otel.consent import OptInSampler
from tbot_otel.registry import RESOURCE, SCHEMA_URL
from tbot_otel.session import offer_id

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


def _find_host() -> dict[str, str]:
    system = sys.platform.rstrip("0123456789.")
    machine = platform.machine().lower()
    return {
        "os.type": _OS_TYPES.get(system, system),
        "host.arch": _HOST_ARCHS.get(machine, machine),
    }


@functools.cache
def _attributes(*, include_host: bool) -> dict[str, str]:
    """Return the attributes that every Resource of this process has, in the registry's order."""
    values = {
        "service.name": "tbot",
        # Replaced for each start.
        "session.id": "",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": sdk_version,
        **(_find_host() if include_host else {}),
    }
    return {
        item.name: str(item.admit(values[item.name])) for item in RESOURCE if item.name in values
    }


def anonymous_resource(session_id: str, *, include_host: bool = True) -> Resource:
    """Return a record's Resource: the registry's attributes, and no others.

    Environment variables and resource detectors are ignored.

    Args:
        session_id: The session that the record belongs to.
        include_host: Whether to include ``os.type`` and ``host.arch`` of this machine.
    """
    values = {**_attributes(include_host=include_host), "session.id": session_id}
    return Resource(values, SCHEMA_URL)


class TbotResourceDetector(ResourceDetector):
    """Offers this process's `session.id` to a provider of the user's own.

    Without consent it offers nothing. The first start that `record_start` emits into a provider
    has the same id.
    """

    def detect(self) -> Resource:
        """Return a Resource with the session id, or an empty one."""
        if not OptInSampler().should_sample():
            return Resource.get_empty()
        return Resource({"session.id": offer_id()})

    def is_process_dependent(self) -> bool:
        """Return True: a forked child has its own session. The newest SDKs ask."""
        return True


class EntryPointResourceDetector(TbotResourceDetector):
    """Offers the session id only if the detector was asked for by name. It is the entry point.

    ``OTEL_EXPERIMENTAL_RESOURCE_DETECTORS=*`` asks for every detector. Others of them name the
    machine, and a session id in the same Resource would link that machine to the start.
    """

    def detect(self) -> Resource:
        """Return a Resource with the session id, or an empty one."""
        variable = os.environ.get(OTEL_EXPERIMENTAL_RESOURCE_DETECTORS, "")
        names = [name.strip() for name in variable.split(",")]
        # With a configuration file, the SDK does not read the variable.
        if "*" in names and "tbot" not in names and not os.environ.get("OTEL_CONFIG_FILE"):
            return Resource.get_empty()
        return super().detect()
