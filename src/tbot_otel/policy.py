"""The policy: what may leave. It copies what is allowed, and deletes nothing."""

from enum import Enum

from tbot_otel.events import EVENTS, OTHER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_ABSENT = object()


class Reason(Enum):
    """Why something did not leave as it came."""

    NOT_OURS = "the event is not in the registry"
    NOT_A_COUNT = "the value is not a whole number from 0 to 2147483647"
    UNKNOWN_ATTRIBUTE = "the attribute is not in the registry"
    UNKNOWN_VALUE = "the value is not a known one: _OTHER in its place"
    CUT_OFF = "what follows the version is cut off"
    DOES_NOT_FIT = "the value does not fit the pattern"
    NO_HELPER = "there is no helper that it could belong to"


class Permitted:
    """A record as it may leave.

    Attributes:
        event_name: Its event.
        attributes: Its attributes, in the registry's order.
        left_out: What is not as it came: attribute and reason. An attribute that is not in the
            registry is None here, as its name could identify.
    """

    __slots__ = ("attributes", "event_name", "left_out")

    def __init__(
        self,
        event_name: str,
        attributes: dict[str, str | int],
        left_out: list[tuple[str | None, Reason]],
    ) -> None:
        self.event_name = event_name
        self.attributes = attributes
        self.left_out = left_out


class Refused:
    """A record that may not leave.

    Attributes:
        reason: Why.
        attribute: The attribute that is to blame, if one is.
    """

    __slots__ = ("attribute", "reason")

    def __init__(self, reason: Reason, attribute: str | None = None) -> None:
        self.reason = reason
        self.attribute = attribute


def decide(event_name: object, attributes: "Mapping[str, object] | None") -> Permitted | Refused:
    """Decide what of a record may leave.

    As on tbot's own wire, an attribute that is absent is an empty string or 0, and an empty helper
    is none. A count that is wrong refuses the record, as 0 in its place would be a lie.

    Args:
        event_name: The name of its event.
        attributes: Its attributes.

    Returns:
        A new record, or why there is none. A record that is permitted is permitted again,
        unchanged.
    """
    event = EVENTS.get(event_name) if isinstance(event_name, str) else None
    if event is None:
        return Refused(Reason.NOT_OURS)
    given = attributes or {}
    permitted: dict[str, str | int] = {}
    left_out: list[tuple[str | None, Reason]] = []
    known = 0
    for attribute in event.attributes:
        name = attribute.name
        # Asked once, as the SDK's mappings are slow to answer.
        value = given.get(name, _ABSENT)
        if value is _ABSENT:
            value = 0 if attribute.type == "int" else ""
        else:
            known += 1
        if attribute.optional and value in (None, ""):
            continue
        if name == "tbot.helper_version" and "tbot.helper" not in permitted:
            left_out.append((name, Reason.NO_HELPER))
            continue
        admitted = attribute.admit(value)
        if admitted is None:
            if not attribute.optional:
                return Refused(Reason.NOT_A_COUNT, name)
            left_out.append((name, Reason.DOES_NOT_FIT))
            continue
        if admitted != value:
            reason = Reason.UNKNOWN_VALUE if admitted == OTHER else Reason.CUT_OFF
            left_out.append((name, reason))
        permitted[name] = admitted
    left_out.extend([(None, Reason.UNKNOWN_ATTRIBUTE)] * (len(given) - known))
    return Permitted(event.name, permitted, left_out)
