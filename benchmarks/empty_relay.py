"""A relay with the same runtime and server, and an empty handler."""

from tbot_otel.connect import asgi_application


async def handle_report(*_: object) -> None:
    """Do nothing."""


application = asgi_application(handle_report)
