"""The examples of `tbot-otel relay`, run as on their hosts."""

import json
import re
import shlex
import tomllib
from typing import Any

import yaml

from support.paths import ROOT
from support.relay_examples import (
    EXAMPLES,
    PROBE_PATHS,
    read_example,
)
from tbot_otel import __version__
from tbot_otel.relay.server import SHUTDOWN_TIMEOUT_SECONDS

COLLECTOR_CONFIGS = {"counts.yaml", "edge.yaml", "gateway.yaml", "only-starts.yaml", "trial.yaml"}
HOST_FILES = {
    "Containerfile",
    "alerts.yaml",
    "haproxy.cfg",
    "kubernetes.yaml",
    "prometheus.yaml",
    "tbot-otel-relay.service",
}


def test_all() -> None:
    """Every example is tested. It begins with two lines: its purpose, and what to change."""
    assert {path.name for path in EXAMPLES.iterdir()} == COLLECTOR_CONFIGS | HOST_FILES
    for path in EXAMPLES.iterdir():
        first, second, third = path.read_text().splitlines()[:3]
        assert first.startswith("# ")
        assert re.match("# .*Change ", second)
        assert not third.startswith("#")


def manifests() -> dict[str, Any]:
    """The Kubernetes manifests, by kind."""
    return {
        manifest["kind"]: manifest
        for manifest in yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
    }


def test_container_image() -> None:
    """The image has the extra `relay` and a user who is not root."""
    text = read_example("Containerfile", {})
    lines = dict(re.findall(r"^([A-Z]+) (.*)$", text, re.MULTILINE))
    *_, installed = shlex.split(lines["RUN"])
    name, extra, version = re.findall(r"[\w.-]+", installed)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (name, extra, version) == (project["name"], "relay", __version__)
    assert extra in project["optional-dependencies"]
    # In a checkout, the same extra is installed from copies of files that exist.
    assert f"pip install --no-cache-dir '/src[{extra}]'" in text
    copied = re.findall("^#   COPY (.+) /src/.*$", text, re.MULTILINE)
    paths = [path for line in copied for path in line.split()]
    needed = {project["readme"], *project["license-files"], "pyproject.toml", "src"}
    assert {*paths} == needed
    assert all((ROOT / path).exists() for path in paths)
    assert re.fullmatch("[1-9][0-9]*:[1-9][0-9]*", lines["USER"])
    assert json.loads(lines["ENTRYPOINT"])[-1].endswith(":" + lines["EXPOSE"])


def test_kubernetes_fits_together() -> None:
    """Service, autoscaler and disruption budget select the Deployment's Pods."""
    kinds = manifests()
    deployment, service, scaler, budget = (
        kinds.pop(kind)
        for kind in ("Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget")
    )
    assert not kinds
    name = deployment["metadata"]["name"]
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    (spread,) = template["spec"]["topologySpreadConstraints"]
    selector = {"matchLabels": labels}
    assert [deployment["spec"]["selector"], spread["labelSelector"]] == [selector] * 2
    assert service["spec"]["selector"] == labels
    assert budget["spec"] == {"maxUnavailable": 1, "selector": selector}
    assert "replicas" not in deployment["spec"]
    target = {"apiVersion": deployment["apiVersion"], "kind": "Deployment", "name": name}
    assert scaler["spec"]["scaleTargetRef"] == target
    # With one replica, the budget would prevent a node from being drained.
    assert scaler["spec"]["minReplicas"] > 1


def test_kubernetes_pod() -> None:
    """The Pod has probes and time to drain, a read-only root and no privileges."""
    kinds = manifests()
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    (relay,) = pod["containers"]
    (port,) = relay["ports"]
    probes = [relay[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")]
    assert probes == [{"path": path, "port": port["name"]} for path in PROBE_PATHS]
    assert kinds["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert f"0.0.0.0:{port['containerPort']}" in read_example("Containerfile", {})
    pause = relay["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > pause + SHUTDOWN_TIMEOUT_SECONDS
    assert pod["securityContext"]["runAsNonRoot"] is True
    # The group that may read the Secret's file.
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    assert pod["automountServiceAccountToken"] is False
    assert relay["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    # The autoscaler's percentage refers to the request.
    assert relay["resources"]["requests"].keys() == {"cpu", "memory"}
    assert relay["resources"]["limits"].keys() == {"memory"}
    assert [mount["name"] for mount in relay["volumeMounts"]] == [
        volume["name"] for volume in pod["volumes"]
    ]


def test_unit_may_drain() -> None:
    """The unit has more time to stop than its calls in flight."""
    (seconds,) = re.findall(
        r"^TimeoutStopSec=(\d+)$", read_example("tbot-otel-relay.service", {}), re.MULTILINE
    )
    assert int(seconds) > SHUTDOWN_TIMEOUT_SECONDS


def test_ended_relay_is_restarted() -> None:
    """A relay that has ended, because its worker died twice, is started again."""
    assert "\nRestart=always\n" in read_example("tbot-otel-relay.service", {})
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    assert pod.get("restartPolicy", "Always") == "Always"
    assert "`docker run --restart=always`" in read_example("Containerfile", {})


# These need programs or permissions that a machine may lack.
