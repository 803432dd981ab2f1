"""A relay with the same runtime and server, and an empty handler."""

from connectrpc.server import ConnectASGIApplication, Endpoint

from tbot_otel.connect import METHOD, PATH
from tbot_otel.connect.tbot_pb import SubmitTbotEventResponse


async def submit(*_: object) -> SubmitTbotEventResponse:
    """Do nothing."""
    return SubmitTbotEventResponse()


class Application(ConnectASGIApplication[None]):
    """The service with the one method."""

    path = "/"


application = Application(
    service=None, endpoints=lambda _: {PATH: Endpoint.unary(method=METHOD, function=submit)}
)
