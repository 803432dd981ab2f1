"""Credential providers for the official exporters, as an installed package."""

from pathlib import Path

_MODULE = """
import grpc, os, requests

def session():
    session = requests.Session()
    session.headers["authorization"] = "Bearer provided"
    return session

def channel():
    with open(os.environ["PROVIDED_CA"], "rb") as file:
        return grpc.ssl_channel_credentials(file.read())
"""


def install_credential_providers(folder: Path) -> str:
    """Install the providers ``session`` and ``channel`` into a folder, and return its path."""
    (folder / "providers.py").write_text(_MODULE)
    metadata = folder / "providers-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: providers\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[opentelemetry_otlp_credential_provider]\n"
        "session = providers:session\n"
        "channel = providers:channel\n"
    )
    return str(folder)
