"""The credential providers of this SDK: installed callables that variables name."""

from typing import TYPE_CHECKING, TypeVar

from tbot_otel.errors import ExporterConfigurationError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Provided = TypeVar("Provided")


def find(provider: tuple[str, str]) -> "EntryPoint":
    """Find a credential provider.

    Args:
        provider: The variable that names it, and its name.

    Raises:
        ExporterConfigurationError: It is not installed.
    """
    from importlib.metadata import entry_points

    place, name = provider
    for entry_point in entry_points(group="opentelemetry_otlp_credential_provider", name=name):
        return entry_point
    raise ExporterConfigurationError(f"{place}: expected an installed credential provider")


def provide(provider: tuple[str, str], expected: type[Provided]) -> Provided:
    """Return the credentials of a provider.

    Args:
        provider: The variable that names it, and its name.
        expected: The type of the credentials.

    Raises:
        ExporterConfigurationError: It is not installed, or does not return them.
    """
    place, _ = provider
    entry_point = find(provider)
    try:
        provided = entry_point.load()()
    except Exception as error:
        raise ExporterConfigurationError(
            f"{place}: the credential provider failed ({type(error).__name__})"
        ) from error
    if not isinstance(provided, expected):
        raise ExporterConfigurationError(f"{place}: expected a provider of a {expected.__name__}")
    return provided
