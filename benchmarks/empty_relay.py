"""A relay that does nothing with a report: the same runtime and server, and an empty handler."""

from tbot_otel.connect import asgi_application


async def take(*_: object) -> None:
    """Do nothing."""


application = asgi_application(take)
