"""The policy: what may leave. It copies what is allowed into a new record."""

from enum import Enum

from tbot_otel.registry import ATTRIBUTES, EVENTS, MAX_COUNT, OTHER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

EXPECTED_HELPER = "expected a name of letters, digits, - _ / and one :, at most 64"
"""What a helper's name must be, so that it can be allowed."""

_HELPER = ATTRIBUTES["tbot.helper"]
_MISSING = object()


class Reason(Enum):
    """Why a value or a record did not leave as it came."""

    NOT_OURS = "the event is not in the registry"
    NOT_A_COUNT = "the value is not a whole number, or is negative"
    UNKNOWN_ATTRIBUTE = "the attribute is not in the registry"
    UNKNOWN_VALUE = "the value is not a known one and was replaced with _OTHER"
    CUT_OFF = "the text around the version was cut off"
    CAPPED = f"the count is over {MAX_COUNT} and was replaced with {MAX_COUNT}"
    DOES_NOT_FIT = "the value does not fit the pattern"
    NO_HELPER = "it belongs to a helper, and there is none"
    UNKNOWN_HELPER = "it belongs to a helper that is not known"
    CUT_BY_SDK = "an attribute limit of the SDK may have dropped or cut a value"


class Permitted:
    """What may leave of a record. Only `decide` creates it, and nothing else can be sent.

    Attributes:
        event_name: Its event.
        attributes: Its attributes, in the registry's order.
        changes: What was changed or left out: attribute and reason. The attribute is None if it
            is not in the registry, because its name could identify someone.
    """

    __slots__ = ("attributes", "changes", "event_name")

    def __init__(
        self,
        event_name: str,
        attributes: dict[str, str | int],
        changes: list[tuple[str | None, Reason]],
    ) -> None:
        self.event_name: str = event_name
        self.attributes: dict[str, str | int] = attributes
        self.changes: list[tuple[str | None, Reason]] = changes

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Permitted)
            and self.event_name == other.event_name
            and self.attributes == other.attributes
        )

    def __hash__(self) -> int:
        return hash(tuple(self.attributes.items()))


class Refused:
    """A record that may not leave.

    Attributes:
        reason: Why.
        attribute: The attribute at fault, if there is one.
    """

    __slots__ = ("attribute", "reason")

    def __init__(self, reason: Reason, attribute: str | None = None) -> None:
        self.reason: Reason = reason
        self.attribute: str | None = attribute


def decide(
    event_name: object,
    attributes: "Mapping[str, object] | None",
    allowed_helpers: "Collection[str]" = (),
) -> Permitted | Refused:
    """Decide which part of a record may leave.

    As in tbot's own report, a missing attribute is an empty string or 0, and an empty helper is no
    helper. An invalid count refuses the record, because 0 in its place would be false.

    Args:
        event_name: The name of the event.
        attributes: The attributes of the record.
        allowed_helpers: The helpers that may leave besides the known ones, if their names match
            the registry's pattern.

    Returns:
        A new record, or the reason for refusing it. Deciding on a permitted record again permits
        it unchanged.
    """
    event = EVENTS.get(event_name) if isinstance(event_name, str) else None
    if event is None:
        return Refused(Reason.NOT_OURS)
    given = attributes or {}
    permitted: dict[str, str | int] = {}
    changes: list[tuple[str | None, Reason]] = []
    known = 0
    for attribute in event.attributes:
        name = attribute.name
        # One lookup each: the SDK's mappings are slow.
        value = given.get(name, _MISSING)
        if value is _MISSING:
            value = 0 if attribute.type == "int" else ""
        else:
            known += 1
        if attribute.optional and value in (None, ""):
            continue
        if name == "tbot.helper_version" and permitted.get("tbot.helper", OTHER) == OTHER:
            unknown = "tbot.helper" in permitted
            changes.append((name, Reason.UNKNOWN_HELPER if unknown else Reason.NO_HELPER))
            continue
        admitted = attribute.admit(value, allowed_helpers if name == "tbot.helper" else ())
        if admitted is None:
            if not attribute.optional:
                return Refused(Reason.NOT_A_COUNT, name)
            changes.append((name, Reason.DOES_NOT_FIT))
            continue
        if admitted != value:
            changes.append((name, _reason_for(admitted)))
        permitted[name] = admitted
    changes.extend([(None, Reason.UNKNOWN_ATTRIBUTE)] * (len(given) - known))
    return Permitted(event.name, permitted, changes)


def is_allowable_helper(name: object) -> bool:
    """Return whether a helper of this name can leave, if the owner of a pipeline allows it."""
    return type(name) is str and _HELPER.admit(name, (name,)) == name


def _reason_for(admitted: str | int) -> Reason:
    if isinstance(admitted, int):
        return Reason.CAPPED
    return Reason.UNKNOWN_VALUE if admitted == OTHER else Reason.CUT_OFF
