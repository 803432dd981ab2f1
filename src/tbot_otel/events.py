"""The events that a program can record."""

from tbot_otel.errors import InvalidEventError
from tbot_otel.registry import OTHER, START

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

_ATTRIBUTES = {attribute.name: attribute for attribute in START.attributes}


class StartEvent:
    """A start of tbot. It is validated when it is created, and immutable.

    The part of a version that may not leave is cut off here.

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
        InvalidEventError: The registry does not allow a value (it allows ``_OTHER`` for an
            attribute that is not optional), or a helper's version has no helper.
    """

    __slots__ = (
        "destinations_application",
        "destinations_database",
        "destinations_kubernetes",
        "destinations_other",
        "helper",
        "helper_version",
        "join_type",
        "run_mode",
        "version",
    )

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
        values = {
            "run_mode": run_mode,
            "version": version,
            "join_type": join_type,
            "helper": helper,
            "helper_version": helper_version,
            "destinations_other": destinations_other,
            "destinations_database": destinations_database,
            "destinations_kubernetes": destinations_kubernetes,
            "destinations_application": destinations_application,
        }
        for field, value in values.items():
            attribute = _ATTRIBUTES[f"tbot.{field}"]
            admitted = None
            if value is not None or not attribute.optional:
                admitted = attribute.admit(value)
                if admitted is None or (admitted == OTHER and value != OTHER):
                    raise InvalidEventError(attribute.name, attribute.expected)
            object.__setattr__(self, field, admitted)
        if helper_version is not None and helper is None:
            raise InvalidEventError("tbot.helper_version", "a tbot.helper beside it")

    @classmethod
    def from_attributes(cls, attributes: "Mapping[str, str | int]") -> "StartEvent":
        """Return the start with these attributes, which are named as in the registry."""
        fields: dict[str, Any] = {
            name.removeprefix("tbot."): value for name, value in attributes.items()
        }
        return cls(**{field: value for field, value in fields.items() if field in cls.__slots__})

    @property
    def attributes(self) -> dict[str, str | int]:
        """The attributes of the record, by name, in the registry's order; a new dict each time."""
        values = {name: getattr(self, name.removeprefix("tbot."), None) for name in _ATTRIBUTES}
        return {name: value for name, value in values.items() if value is not None}

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

    def __reduce__(self) -> "tuple[Any, ...]":
        # Copies and pickles call the constructor, because __setattr__ raises.
        from functools import partial

        return partial(StartEvent, **{field: getattr(self, field) for field in self.__slots__}), ()

    def __repr__(self) -> str:
        names = (attribute.name.removeprefix("tbot.") for attribute in START.attributes)
        fields = ", ".join(
            f"{name}={getattr(self, name)!r}" for name in names if name in self.__slots__
        )
        return f"StartEvent({fields})"
