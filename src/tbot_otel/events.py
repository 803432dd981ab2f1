"""The events that a program can record."""

from tbot_otel.errors import InvalidEventError
from tbot_otel.policy import Reason, Refused, decide
from tbot_otel.registry import START

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, NoReturn

    from tbot_otel.registry import Attribute

# The fields of `StartEvent`, by the names of its arguments.
_FIELDS = {attribute.name.removeprefix("tbot."): attribute for attribute in START.attributes}


class StartEvent:
    """A start of tbot, as policy permits it. It is immutable.

    A value that may not leave is changed here, as everywhere: an unknown one becomes ``_OTHER``,
    the text around a version is cut off, a large count is capped. The name of a helper that is not
    known is kept if the owner of a pipeline could allow it; the pipeline decides.

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

    Attributes:
        changes: What was changed or left out: the attribute's name, and the reason.

    Raises:
        TypeError: An argument is missing or has the wrong type.
        InvalidEventError: A count is negative.
    """

    __slots__ = (*_FIELDS, "changes")

    run_mode: str
    version: str
    join_type: str
    helper: str | None
    helper_version: str | None
    destinations_other: int
    destinations_database: int
    destinations_kubernetes: int
    destinations_application: int
    changes: tuple[tuple[str | None, Reason], ...]

    def __init__(
        self,
        *,
        run_mode: "Literal['one-shot', 'daemon']",
        version: str,
        join_type: str = "",
        helper: str | None = None,
        helper_version: str | None = None,
        destinations_other: int = 0,
        destinations_database: int = 0,
        destinations_kubernetes: int = 0,
        destinations_application: int = 0,
    ) -> None:
        arguments = locals()
        given = {attribute.name: arguments[field] for field, attribute in _FIELDS.items()}
        for attribute in START.attributes:
            _check_type(attribute, given[attribute.name])
        decision = decide(START.name, given, allowed_helpers=(helper,) if helper else ())
        if isinstance(decision, Refused):
            name = str(decision.attribute)
            raise InvalidEventError(name, _FIELDS[name.removeprefix("tbot.")].expected)
        for field, attribute in _FIELDS.items():
            object.__setattr__(self, field, decision.attributes.get(attribute.name))
        object.__setattr__(self, "changes", tuple(decision.changes))

    @property
    def attributes(self) -> dict[str, str | int]:
        """The attributes of the record, by name, in the registry's order; a new dict each time."""
        return {
            attribute.name: value
            for field, attribute in _FIELDS.items()
            if (value := getattr(self, field)) is not None
        }

    def __setattr__(self, name: str, value: object) -> "NoReturn":
        raise AttributeError(f"a StartEvent is immutable: {name}")

    def __delattr__(self, name: str) -> "NoReturn":
        raise AttributeError(f"a StartEvent is immutable: {name}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StartEvent):
            return NotImplemented
        return self.attributes == other.attributes

    def __hash__(self) -> int:
        return hash(tuple(self.attributes.items()))

    def __setstate__(self, state: "tuple[None, dict[str, Any]]") -> None:
        # For copies and pickles, because __setattr__ raises.
        for name, value in state[1].items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        fields = ", ".join(f"{field}={getattr(self, field)!r}" for field in _FIELDS)
        return f"StartEvent({fields})"


def _check_type(attribute: "Attribute", value: object) -> None:
    expected = int if attribute.type == "int" else str
    # In Python, a bool is an int.
    if type(value) is not expected and not (value is None and attribute.optional):
        raise TypeError(f"{attribute.name}: expected {expected.__name__}")
