"""The settings of an exporter: arguments, variables and proxies, read and checked in one place."""

import os
import subprocess
import sys
from typing import Any

import pytest

from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp.arguments import Arguments
from tbot_otel.otlp.settings import MAX_TIMEOUT_SECONDS, Settings, printable_target, read_settings

PREFIX = "OTEL_EXPORTER_OTLP_"
GRPC = {"PROTOCOL": "grpc"}
SECRET = "s3cret"
SHORT_NAMES = {
    *("PROTOCOL", "ENDPOINT", "INSECURE", "HEADERS", "COMPRESSION", "TIMEOUT", "CERTIFICATE"),
    *("CLIENT_CERTIFICATE", "CLIENT_KEY"),
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith(("OTEL_", "REQUESTS_", "CURL_")):
            monkeypatch.delenv(name)


def read(variables: dict[str, str], **arguments: Any) -> Settings:
    """Read the settings with variables, whose common prefix is left out."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            is_short = name.removeprefix("LOGS_") in SHORT_NAMES
            patch.setenv(f"{PREFIX}{name}" if is_short else name, value)
        return read_settings(Arguments(**arguments))


DEFAULTS = {
    "protocol": "http/protobuf",
    "endpoint": "http://localhost:4318/v1/logs",
    "is_secure": False,
    "headers": {},
    "compression": "none",
    "timeout_seconds": 10.0,
    "tls_files": {},
    "credential_provider": None,
    "proxy": None,
}
GRPC_DEFAULTS = {"protocol": "grpc", "endpoint": "http://localhost:4317"}
TLS = {"ENDPOINT": "https://x"}
TLS_SETTINGS = {"endpoint": "https://x/v1/logs", "is_secure": True}
VALID: list[tuple[dict[str, str], dict[str, Any]]] = [
    ({}, {}),
    (GRPC, GRPC_DEFAULTS),
    # Empty means not set.
    *(
        (protocol | {f"{form}{name}": value}, expected)
        for protocol, expected in (({}, {}), (GRPC, GRPC_DEFAULTS))
        for form in ("", "LOGS_")
        for value in ("", " \t\r")
        for name in ("TIMEOUT", "COMPRESSION", "INSECURE", "HEADERS", "ENDPOINT", "CERTIFICATE")
    ),
    ({"LOGS_TIMEOUT": "", "TIMEOUT": "3"}, {"timeout_seconds": 3.0}),
    ({"LOGS_PROTOCOL": "", "PROTOCOL": "grpc"}, GRPC_DEFAULTS),
    ({"ENDPOINT": " http://x:1 "}, {"endpoint": "http://x:1/v1/logs"}),
    ({"ENDPOINT": "HTTPS://x/"}, {"endpoint": "HTTPS://x/v1/logs", "is_secure": True}),
    ({"LOGS_ENDPOINT": "http://x/y?key=z"}, {"endpoint": "http://x/y?key=z"}),
    ({"ENDPOINT": "http://[::1]:4318"}, {"endpoint": "http://[::1]:4318/v1/logs"}),
    ({"ENDPOINT": "http://x:"}, {"endpoint": "http://x:/v1/logs"}),
    (
        {"ENDPOINT": "http://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example"},
        {"endpoint": "http://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example/v1/logs"},
    ),
    # A scheme wins over INSECURE.
    (
        GRPC | {"ENDPOINT": "http://x:1", "INSECURE": "false"},
        GRPC_DEFAULTS | {"endpoint": "http://x:1"},
    ),
    (
        GRPC | {"ENDPOINT": "https://x:1", "INSECURE": "true"},
        GRPC_DEFAULTS | {"endpoint": "https://x:1", "is_secure": True},
    ),
    (GRPC | {"ENDPOINT": "x:1"}, GRPC_DEFAULTS | {"endpoint": "x:1", "is_secure": True}),
    (GRPC | {"ENDPOINT": "x:1", "INSECURE": "True"}, GRPC_DEFAULTS | {"endpoint": "x:1"}),
    (GRPC | {"ENDPOINT": "unix:/x", "INSECURE": "true"}, GRPC_DEFAULTS | {"endpoint": "unix:/x"}),
    ({"TIMEOUT": "0.5"}, {"timeout_seconds": 0.5}),
    ({"TIMEOUT": "0"}, {"timeout_seconds": MAX_TIMEOUT_SECONDS}),
    ({"TIMEOUT": "1e99"}, {"timeout_seconds": MAX_TIMEOUT_SECONDS}),
    *(
        (protocol | {"COMPRESSION": value}, expected | {"compression": value.strip().lower()})
        for protocol, expected in (({}, {}), (GRPC, GRPC_DEFAULTS))
        for value in ("none", "NONE", "gzip", " Gzip ")
    ),
    ({"COMPRESSION": "deflate"}, {"compression": "deflate"}),
    *(
        ({"HEADERS": text}, {"headers": headers})
        for text, headers in (
            ("a=b", {"a": "b"}),
            (" A = b c , ,d==e=,f=,", {"a": "b c", "d": "=e=", "f": ""}),
            ("authorization=Bearer%20x", {"authorization": "Bearer x"}),
            # One with a space is not encoded.
            ("authorization=Bearer x%20", {"authorization": "Bearer x%20"}),
            ("a=%C3%BC", {"a": "\N{LATIN SMALL LETTER U WITH DIAERESIS}"}),
            ("user-agent=x", {"user-agent": "x"}),
        )
    ),
    (TLS, TLS_SETTINGS),
    (
        TLS | {"CLIENT_CERTIFICATE": "/c", "LOGS_CLIENT_KEY": "/k"},
        TLS_SETTINGS
        | {
            "tls_files": {
                "cert_file": (f"{PREFIX}CLIENT_CERTIFICATE", "/c"),
                "key_file": (f"{PREFIX}LOGS_CLIENT_KEY", "/k"),
            }
        },
    ),
    (
        TLS | {"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": "/c"},
        TLS_SETTINGS | {"tls_files": {"ca_file": ("CURL_CA_BUNDLE", "/c")}},
    ),
    (
        TLS | {"CERTIFICATE": "/a", "CURL_CA_BUNDLE": "/c"},
        TLS_SETTINGS | {"tls_files": {"ca_file": (f"{PREFIX}CERTIFICATE", "/a")}},
    ),
    # Without TLS, its files are not needed.
    ({"CLIENT_KEY": "/k"}, {}),
    *(
        (
            {f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{form}CREDENTIAL_PROVIDER": "x"},
            {
                "credential_provider": (
                    f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{form}CREDENTIAL_PROVIDER",
                    "x",
                )
            },
        )
        for form in ("", "LOGS_")
    ),
    (GRPC | {"OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER": "x"}, GRPC_DEFAULTS),
]


@pytest.mark.parametrize(("variables", "expected"), VALID, ids=[str(case) for case, _ in VALID])
def test_variables(variables: dict[str, str], expected: dict[str, Any]) -> None:
    """The settings are the variables', and defaults for the rest."""
    settings = read(variables)
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS | expected


LONG_LABEL = f"http://{64 * 'x'}.example"
INVALID: list[tuple[dict[str, str], str]] = [
    *(({"PROTOCOL": value}, "PROTOCOL: expected http/protobuf or grpc") for value in ("x", "GRPC")),
    *(
        ({"TIMEOUT": value}, "TIMEOUT: expected seconds")
        for value in ("10s", "-1", "nan", "inf", "1,5", SECRET)
    ),
    *(
        (protocol | {"COMPRESSION": "zstd"}, f"COMPRESSION: expected {allowed}")
        for protocol, allowed in (({}, "none, gzip or deflate"), (GRPC, "none or gzip over gRPC"))
    ),
    (GRPC | {"COMPRESSION": "deflate"}, "COMPRESSION: expected none or gzip over gRPC"),
    *(
        (GRPC | {"INSECURE": value}, "INSECURE: expected true or false")
        for value in ("1", "yes", "junk", "0")
    ),
    *(
        (protocol | {"HEADERS": value}, "HEADERS: expected name=value, URL-encoded, separated")
        for protocol in ({}, GRPC)
        for value in (
            *("authorization: Bearer x", 'Authorization="Basic abc"', "a=b;c=d", "a", "a=\\b"),
            *("a=\N{LATIN SMALL LETTER U WITH DIAERESIS}", "a=b\nc=d"),
        )
    ),
    *(
        (protocol | {"HEADERS": value}, "HEADERS: expected names and values of HTTP headers")
        for protocol in ({}, GRPC)
        for value in ("=b", "a b=c", "a:b=c", "a=%0d%0ab:c", "a=%00", "a%20=b")
    ),
    *(
        (protocol | {"HEADERS": f"{name}=x"}, f"HEADERS: expected no {name.lower()}")
        for protocol in ({}, GRPC)
        for name in ("Content-Length", "content-type", "transfer-encoding", "host", "te")
    ),
    *(
        (GRPC | {"HEADERS": value}, "HEADERS: expected names and values of gRPC metadata")
        for value in ("a=%C3%BC", "a!=b")
    ),
    *(
        (GRPC | {"HEADERS": value}, "HEADERS: expected no name with grpc- or -bin over gRPC")
        for value in ("x-bin=b", "grpc-timeout=1S")
    ),
    *(
        ({name: value}, f"{name}: expected http:// or https://")
        for name in ("ENDPOINT", "LOGS_ENDPOINT")
        for value in ("nonsense", "localhost:4318", f"ftp://{SECRET}/v1/logs", "grpc://x")
    ),
    *(
        (protocol | {name: value}, f"{name}: expected a valid host and port")
        for protocol in ({}, GRPC)
        for name in ("ENDPOINT", "LOGS_ENDPOINT")
        for value in (
            *("http://", "http:///v1/logs", "http://x y", "http://x:port", "http://x:0"),
            *("http://x:99999", "http://[::1", "http://[x]", "http://[::1]x", LONG_LABEL),
            *("http://a..b", f"http://{'x.' * 127}", "http://x\x1b[31m"),
            *("http://h\N{ACCOUNT OF}st", "http://x/a b"),
        )
    ),
    ({"ENDPOINT": "http://x?key=s3cret"}, "ENDPOINT: expected no ? or #"),
    ({"ENDPOINT": "http://x/#s3cret"}, "ENDPOINT: expected no ? or #"),
    ({"LOGS_ENDPOINT": "http://x/v1/logs#s3cret"}, "LOGS_ENDPOINT: expected no #"),
    (GRPC | {"LOGS_ENDPOINT": "http://x?key=s3cret"}, "LOGS_ENDPOINT: expected no ? or #"),
    (GRPC | {"ENDPOINT": "ftp://x:1"}, "ENDPOINT: expected http:// or https://"),
    *(
        (GRPC | {"ENDPOINT": f"{scheme}user:{SECRET}@x:1"}, "ENDPOINT: expected no login")
        for scheme in ("", "http://", "https://")
    ),
    *(
        (protocol | TLS | {"CLIENT_KEY": "/k"}, "CLIENT_KEY: expected a client certificate, too")
        for protocol in ({}, GRPC)
    ),
    (GRPC | TLS | {"CLIENT_CERTIFICATE": "/c"}, "CLIENT_CERTIFICATE: expected a client key, too"),
]


@pytest.mark.parametrize(
    ("variables", "problem"), INVALID, ids=[str(variables) for variables, _ in INVALID]
)
def test_invalid_variables(variables: dict[str, str], problem: str) -> None:
    """A variable with which nothing could be sent is named, without its value."""
    with pytest.raises(ExporterConfigurationError) as raised:
        read(variables)
    assert str(raised.value).startswith(f"{PREFIX}{problem}")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"protocol": "GRPC"}, "protocol: expected http/protobuf or grpc"),
        ({"endpoint": "x:1"}, "endpoint: expected http:// or https://"),
        ({"headers": {"te": "x"}}, "headers: expected no te"),
        ({"headers": {"a": "x\r\nb: c"}}, "headers: expected names and values of HTTP headers"),
        ({"protocol": "grpc", "compression": "deflate"}, "compression: expected none or gzip"),
        (
            {"endpoint": "https://x/y", "tls": {"key_file": "/k"}},
            "tls.key_file: expected a client certificate, too",
        ),
    ],
)
def test_invalid_arguments(arguments: dict[str, Any], problem: str) -> None:
    """An argument is checked as a variable is."""
    with pytest.raises(ExporterConfigurationError) as raised:
        read({}, **arguments)
    assert str(raised.value).startswith(problem)


def test_arguments_win() -> None:
    """A variable that has an argument is not read, even if it is invalid."""
    invalid = dict.fromkeys(("PROTOCOL", "HEADERS", "COMPRESSION", "TIMEOUT", "INSECURE"), SECRET)
    settings = read(
        invalid | {"ENDPOINT": "http://", "CERTIFICATE": "/variable"},
        protocol="grpc",
        endpoint="x:1",
        headers={"A": "b"},
        compression="gzip",
        timeout=0,
        tls={"insecure": False, "ca_file": "/argument"},
    )
    assert (settings.protocol, settings.endpoint, settings.headers) == ("grpc", "x:1", {"a": "b"})
    assert (settings.compression, settings.timeout_seconds) == ("gzip", MAX_TIMEOUT_SECONDS)
    assert settings.tls_files == {"ca_file": ("tls.ca_file", "/argument")}


PROXY = "http://proxy:3128"
REMOTE = "http://collector.example:4318"
SECURE = "https://collector.example"
BY_EXCEPTION = [
    *("collector.example", ".example", "example", "*.example", "*", "other, collector.example"),
    *("collector.example:4318", "COLLECTOR.EXAMPLE"),
]
DIRECT: list[tuple[str, dict[str, str]]] = [
    (REMOTE, {}),
    (REMOTE, {"https_proxy": PROXY}),
    (SECURE, {"http_proxy": PROXY}),
    (REMOTE, {"http_proxy": ""}),
    # The lower case wins, as in curl.
    (REMOTE, {"http_proxy": "", "HTTP_PROXY": PROXY}),
    # In a CGI program, it is a header of the request.
    (REMOTE, {"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}),
    *((REMOTE, {"http_proxy": PROXY, "no_proxy": value}) for value in BY_EXCEPTION),
    (REMOTE, {"ALL_PROXY": PROXY, "NO_PROXY": "*"}),
    ("http://192.0.2.1", {"http_proxy": PROXY, "NO_PROXY": "10.0.0.0/8, 192.0.2.0/24"}),
    *(
        ("http://[2001:db8::1]:4318", {"http_proxy": PROXY, "NO_PROXY": value})
        for value in ("2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:4318", "2001:db8::/32")
    ),
    *(
        (f"http://{host}:4318", {"http_proxy": PROXY, "ALL_PROXY": PROXY})
        for host in (
            *("localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "[::1]", "[0:0:0:0:0:0:0:1]"),
            "[::ffff:127.0.0.1]",
        )
    ),
]
PROXIED: list[tuple[str, dict[str, str], str]] = [
    (REMOTE, {"http_proxy": PROXY}, PROXY),
    (REMOTE, {"HTTP_PROXY": "proxy:3128"}, PROXY),
    (REMOTE, {"ALL_PROXY": PROXY}, PROXY),
    (SECURE, {"all_proxy": "https://proxy", "no_proxy": "other.example"}, "https://proxy"),
    (REMOTE, {"http_proxy": "http://user:s3cret@proxy:1/x"}, "http://proxy:1"),
    *(
        (REMOTE, {"http_proxy": PROXY, "no_proxy": value}, PROXY)
        for value in ("", "llector.example", "collector.example:1", "10.0.0.0/8", "x/y")
    ),
    ("http://192.0.2.1", {"http_proxy": PROXY, "NO_PROXY": "10.0.0.0/8"}, PROXY),
    *(
        (f"http://{host}", {"http_proxy": PROXY}, PROXY)
        for host in ("localhost.example", "128.0.0.1", "[::2]", "10.0.0.1")
    ),
]


@pytest.mark.parametrize(("endpoint", "variables"), DIRECT)
def test_direct(endpoint: str, variables: dict[str, str]) -> None:
    """An endpoint on this machine, or one that is excepted, has no proxy."""
    assert read({"ENDPOINT": endpoint, **variables}).proxy is None


@pytest.mark.parametrize(("endpoint", "variables", "proxy"), PROXIED)
def test_proxied(endpoint: str, variables: dict[str, str], proxy: str) -> None:
    """A proxy is named wherever the endpoint is, without its login."""
    settings = read({"ENDPOINT": endpoint, **variables})
    expected = f"{endpoint}/v1/logs (http/protobuf) through the proxy {proxy}"
    assert printable_target(settings) == expected


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({"http_proxy": PROXY}, "proxy"),
        ({"https_proxy": PROXY, "http_proxy": "http://other"}, "proxy"),
        ({"grpc_proxy": "proxy:3128", "https_proxy": "http://other"}, "proxy"),
        ({"http_proxy": PROXY, "no_grpc_proxy": "x", "no_proxy": "*"}, "proxy"),
        # gRPC does not know these.
        ({"HTTP_PROXY": PROXY}, None),
        ({"https_proxy": "https://proxy"}, None),
        ({"http_proxy": "socks5://proxy"}, None),
        ({"http_proxy": PROXY, "no_proxy": "example"}, None),
        ({"grpc_proxy": "", "http_proxy": PROXY}, None),
    ],
)
def test_proxy_of_grpc(variables: dict[str, str], proxy: str | None) -> None:
    """Over gRPC, the variables are gRPC's own."""
    settings = read({"ENDPOINT": "collector.example:4317", **GRPC, **variables})
    assert (settings.proxy and settings.proxy.host) == proxy


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"http_proxy": "http://"}, "http_proxy: expected the URL of a proxy"),
        ({"HTTP_PROXY": "http://proxy:port"}, "HTTP_PROXY: expected the URL of a proxy"),
        ({"ALL_PROXY": "ftp://proxy"}, "ALL_PROXY: expected an HTTP or SOCKS proxy"),
    ],
)
def test_invalid_proxy(variables: dict[str, str], problem: str) -> None:
    """A proxy that cannot be used is named by its variable."""
    with pytest.raises(ExporterConfigurationError) as raised:
        read({"ENDPOINT": REMOTE, **variables})
    assert str(raised.value) == problem


def test_imports() -> None:
    """Reading the usual settings imports nothing slow."""
    code = "import sys; from tbot_otel.otlp.settings import read_settings; read_settings()"
    code += "; print({'urllib', 'ipaddress', 'ssl', 'socket'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
