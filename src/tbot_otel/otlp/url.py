"""The URL of an endpoint or a proxy. `record_start` waits for this module, so it imports nothing.

`urllib.parse` takes as long to import as the rest of that wait allows.
"""

EXPECTED_HOST = "expected a valid host and port"
EXPECTED_SCHEME = "expected http:// or https://"
# https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4
_MAX_NAME_LENGTH = 253
_MAX_LABEL_LENGTH = 63


class URL:
    """A URL with a host. Every part but the scheme, the host and the port can be secret.

    Args:
        text: The URL, without spaces around it.

    Attributes:
        scheme: In lower case; empty if there is none.
        login: The user and the password, as they are quoted; empty if there are none.
        host: The host's name in ASCII, or its IP address without brackets.
        port: The port; None if there is none.
        path: The path, as it is quoted.
        query: The part after ``?``; None if there is none.
        fragment: The part after ``#``; None if there is none.

    Raises:
        ValueError: It has no valid host and port.
    """

    __slots__ = ("fragment", "host", "login", "path", "port", "query", "scheme")

    def __init__(self, text: str) -> None:
        scheme, separator, rest = text.partition("://")
        if not separator:
            scheme, rest = "", text
        rest, hash_sign, fragment = rest.partition("#")
        rest, question_mark, query = rest.partition("?")
        authority, slash, path = rest.partition("/")
        login, _, address = authority.rpartition("@")
        self.scheme: str = scheme.lower()
        self.login: str = login
        self.host: str
        self.port: int | None
        self.host, self.port = _split_address(address)
        self.path: str = slash + path
        self.query: str | None = query if question_mark else None
        self.fragment: str | None = fragment if hash_sign else None
        if any(char.isspace() or not char.isprintable() for char in text):
            raise ValueError(EXPECTED_HOST)

    @property
    def bracketed_host(self) -> str:
        """The host, as a URL has it."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def address(self) -> str:
        """The host and the port, as a URL has them."""
        host = self.bracketed_host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine, by the rule of Go's HTTP client for proxies."""
        if not self.host[-1:].isdigit():
            return self.host.lower() == "localhost"
        from ipaddress import IPv6Address, ip_address

        try:
            address = ip_address(self.host)
        except ValueError:
            return False
        # Python before 3.13 says that ::ffff:127.0.0.1 is not a loopback address.
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return (mapped or address).is_loopback

    def user_and_password(self) -> tuple[str, str]:
        """Return the parts of the login, without their quoting."""
        from urllib.parse import unquote

        user, _, password = self.login.partition(":")
        return unquote(user), unquote(password)

    def basic_authorization(self) -> str | None:
        """Return the value of a header for the login; None if there is none."""
        if not self.login.strip(":"):
            return None
        import base64

        login = ":".join(self.user_and_password())
        return f"Basic {base64.b64encode(login.encode()).decode()}"


def _split_address(address: str) -> tuple[str, int | None]:
    if address.startswith("["):
        host, bracket, port = address[1:].partition("]")
        _check_ipv6(host if bracket else "")
    else:
        host, colon, port = address.partition(":")
        port = colon + port
        # It raises UnicodeError, a ValueError, for what cannot be a name.
        host = host if host.isascii() else host.encode("idna").decode()
        _check_name(host)
    if port in ("", ":"):
        return host, None
    digits = port.removeprefix(":")
    if port == digits or not (digits.isascii() and digits.isdigit() and 0 < int(digits) < 2**16):
        raise ValueError(EXPECTED_HOST)
    return host, int(digits)


def _check_ipv6(host: str) -> None:
    from ipaddress import IPv6Address

    IPv6Address(host)


def _check_name(host: str) -> None:
    labels = host.removesuffix(".").split(".")
    if len(host) > _MAX_NAME_LENGTH or not all(
        0 < len(label) <= _MAX_LABEL_LENGTH and label.replace("-", "").replace("_", "").isalnum()
        for label in labels
    ):
        raise ValueError(EXPECTED_HOST)
