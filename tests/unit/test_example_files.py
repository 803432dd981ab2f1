"""The examples' manifests have Kubernetes' schemas, and the examples name exact versions."""

import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from support.paths import ROOT
from tbot_otel import __version__

EXAMPLES = [path for path in (ROOT / "examples").rglob("*") if path.is_file()]
MANIFESTS = [path for path in EXAMPLES if re.search("^apiVersion:", path.read_text(), re.MULTILINE)]
# In these, a Pod's preStop hook can sleep, and an init container can be a sidecar.
KUBERNETES_VERSIONS = ["1.30", kubernetes_validate.latest_version()]


def relative_path(path: Path) -> str:
    """The path in the project."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=relative_path)
def test_manifests(path: Path, version: str) -> None:
    """Kubernetes knows each field of a manifest, and none is missing."""
    for manifest in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_manifests_are_found() -> None:
    """The manifests are those that the previous test checks."""
    assert sorted(map(relative_path, MANIFESTS)) == [
        "examples/relay/kubernetes.yaml",
        "examples/run/kubernetes.yaml",
        "examples/run/sidecar.yaml",
    ]


def find_all(pattern: str) -> list[str]:
    """What a pattern matches in the examples."""
    return [found for path in EXAMPLES for found in re.findall(pattern, path.read_text())]


def test_images_are_pinned() -> None:
    """Each image has a full version. Those with tbot-otel have this version."""
    images = find_all(r"(?:FROM|--from=|image:) ?(\S+)")
    assert len(images) == 7
    assert [image for image in images if not re.search(r":\d+\.\d+\.\d+(-[\w.-]+)?$", image)] == []
    own = [image for image in images if "/tbot-otel" in image]
    assert {image.rpartition(":")[2] for image in own} == {__version__}
    assert find_all("latest") == []


def test_packages_are_pinned() -> None:
    """The examples install this version of tbot-otel."""
    packages = find_all(r"pipx? install .*'(tbot-otel\S*)'")
    assert len(packages) == 4
    assert {package.partition("]")[2] for package in packages} == {f"=={__version__}"}


def test_actions_are_pinned() -> None:
    """Each GitHub action has a full version."""
    actions = find_all(r"uses: (\S+)")
    assert len(actions) == 6
    assert [action for action in actions if not re.search(r"@v\d+\.\d+\.\d+$", action)] == []
