"""The examples of `tbot-otel run`, each executed as its host would, with a stand-in for tbot."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from collectors import Answer, Rotel, Standin

TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "examples" / "run"
SCRIPTS = sysconfig.get_path("scripts")

OPT_IN = "TELEPORT_ANONYMOUS_TELEMETRY"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

# It has the agent's report, and ends when that is answered, in daemon mode too: nobody stops it.
TBOT = """\
#!{python}
import json, os, sys, uuid
sys.path.insert(0, {tests!r})
import agent
words = sys.argv[1:]
if words == ["version"]:
    sys.exit(print("Teleport v18.3.0 git:v18.3.0-0-gabcdef1 go1.24.9"))
told = {{"words": words, "pid": os.getpid(), "session": str(uuid.uuid4()), "answer": "none"}}
if address := os.environ.get("TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS"):
    report = agent.request(told["session"], oneshot="--oneshot" in words)
    told["answer"] = agent.call_raw(address, report)
print(json.dumps(told), flush=True)
{end}
"""
# What the agent reports of its configuration.
TBOT_YAML = """\
version: v2
onboarding: {join_method: github, token: example-bot}
outputs: [{type: identity}, {type: database, service: example-postgres}]
services: [{type: ssh-multiplexer}]
"""
INSTALLER = """\
#!/bin/sh
echo "$@" >> {log}
"""


class Step(NamedTuple):
    """A command that a host executes."""

    words: list[str]
    may_fail: bool = False


class Host:
    """A folder with stand-ins for what an example finds on its host, and a Collector."""

    def __init__(self, folder: Path, endpoint: str, *, end: str = "sys.exit(3)") -> None:
        self.folder = folder
        self.endpoint = endpoint
        self.installed = folder / "installed"
        self._programs = folder / "bin"
        self._programs.mkdir()
        tbot = TBOT.format(python=sys.executable, tests=str(TESTS), end=end)
        installer = INSTALLER.format(log=self.installed)
        for name, text in {"tbot": tbot, "pip": installer, "pipx": installer}.items():
            program = self._programs / name
            program.write_text(text)
            program.chmod(0o755)
        (folder / "tbot.yaml").write_text(TBOT_YAML)

    def read(self, name: str) -> str:
        """An example, changed as its first lines say: to this host's paths and Collector."""
        changes = {
            "/opt/tbot-otel/bin": SCRIPTS,
            "/usr/local/bin/tbot": str(self._programs / "tbot"),
            "/etc/default/tbot": str(self.folder / "variables"),
            "https://otel.example.com": self.endpoint,
            ":4318": ":" + self.endpoint.rpartition(":")[2],
        }
        text = (EXAMPLES / name).read_text()
        for shown, here in changes.items():
            text = text.replace(shown, here)
        return text

    def run(self, steps: list[Step], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Execute steps up to the first that fails, and return what came of that or of the last."""
        path = os.pathsep.join([str(self._programs), SCRIPTS, os.environ["PATH"]])
        for step in steps:
            done = subprocess.run(
                step.words,
                cwd=self.folder,
                env={"PATH": path, "PYTHONWARNINGS": "error", **environ},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            if done.returncode and not step.may_fail:
                break
        return done


def service(host: Host) -> tuple[list[Step], dict[str, str]]:
    """The unit, as systemd reads it."""
    settings = re.findall(r"^(\w+)=(.*)$", host.read("tbot.service"), re.MULTILINE)
    assignments = [
        word for name, value in settings if name == "Environment" for word in shlex.split(value)
    ]
    (file,) = (value.removeprefix("-") for name, value in settings if name == "EnvironmentFile")
    # The file's win. This one has a Collector on another port.
    Path(file).write_text(f"{ENDPOINT}={host.endpoint}\n")
    assignments += Path(file).read_text().splitlines()
    (command,) = (value for name, value in settings if name == "ExecStart")
    return [Step(shlex.split(command))], dict(word.split("=", 1) for word in assignments)


def manifest(host: Host) -> dict[str, Any]:
    """The Pod of the manifest."""
    pod: dict[str, Any] = yaml.safe_load(host.read("kubernetes.yaml"))["spec"]["template"]["spec"]
    return pod


def kubernetes(host: Host) -> tuple[list[Step], dict[str, str]]:
    """The container of the manifest, as a node at 127.0.0.1 starts it."""
    (container,) = manifest(host)["containers"]
    environ: dict[str, str] = {}
    for variable in container["env"]:
        if "valueFrom" in variable:
            value = {"status.hostIP": "127.0.0.1"}[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        else:
            value = re.sub(r"\$\((\w+)\)", lambda match: environ[match[1]], variable["value"])
        environ[variable["name"]] = value
    return [Step(container["command"] + container["args"])], environ


def workflow(host: Host) -> tuple[list[Step], dict[str, str]]:
    """The steps of the workflow's job, as a runner executes them."""
    (job,) = yaml.safe_load(host.read("workflow.yaml"))["jobs"].values()
    steps = []
    for number, step in enumerate(job["steps"]):
        if "run" in step:
            script = host.folder / f"{number}.sh"
            script.write_text(step["run"])
            words = ["bash", "-e", str(script)]
            steps.append(Step(words, may_fail=step.get("continue-on-error", False)))
    return steps, {**job["env"], "GITHUB_STEP_SUMMARY": str(host.folder / "summary.md")}


def container(host: Host) -> tuple[list[Step], dict[str, str]]:
    """The image's build and its process, with the variables that its user gives to it."""
    lines = re.findall(r"^([A-Z]+) (.*)$", host.read("Containerfile"), re.MULTILINE)
    steps = [Step(["/bin/sh", "-c", text]) for name, text in lines if name == "RUN"]
    process = {name: json.loads(text) for name, text in lines if name in ("ENTRYPOINT", "CMD")}
    steps.append(Step(process["ENTRYPOINT"] + process["CMD"]))
    return steps, {OPT_IN: "1", ENDPOINT: host.endpoint}


def helper(host: Host) -> tuple[list[Step], dict[str, str]]:
    """The program as it stands, with the variables that its user has set."""
    environ = {OPT_IN: "1", ENDPOINT: host.endpoint}
    return [Step([sys.executable, str(EXAMPLES / "helper.py")])], environ


CONFIG = ["start", "-c"]
TABLE = {
    "tbot.service": (service, [*CONFIG, "/etc/tbot.yaml"]),
    "kubernetes.yaml": (kubernetes, [*CONFIG, "/config/tbot.yaml"]),
    "workflow.yaml": (workflow, [*CONFIG, "tbot.yaml", "--oneshot"]),
    "Containerfile": (container, [*CONFIG, "/config/tbot.yaml"]),
    "helper.py": (helper, [*CONFIG, "tbot.yaml", "--oneshot"]),
}


@pytest.fixture
def host(tmp_path: Path, rotel: Rotel) -> Host:
    """A host whose Collector is rotel."""
    return Host(tmp_path, rotel.endpoint("http/protobuf"))


def test_all() -> None:
    """Every example is executed here."""
    assert sorted(path.name for path in EXAMPLES.iterdir() if path.is_file()) == sorted(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_delivered(name: str, host: Host, rotel: Rotel) -> None:
    """Each example starts tbot with its words, reports the start, and has tbot's own status."""
    read, words = TABLE[name]
    done = host.run(*read(host))
    assert (done.returncode, done.stderr) == (3, "")
    told = json.loads(done.stdout)
    assert (told["words"], told["answer"]) == (words, "ok")
    mode = "one-shot" if "--oneshot" in words else "daemon"
    assert f"tbot.run_mode: Str({mode})" in rotel.find(told["session"])


@pytest.mark.parametrize("name", TABLE)
def test_refused(name: str, tmp_path: Path) -> None:
    """Without the opt-in each example starts tbot all the same, and sends nothing."""
    read, words = TABLE[name]
    with Standin(Answer()) as collector:
        host = Host(tmp_path, collector.endpoint)
        steps, environ = read(host)
        del environ[OPT_IN]
        done = host.run(steps, environ)
    assert (done.returncode, done.stderr) == (3, "")
    told = json.loads(done.stdout)
    assert (told["words"], told["answer"]) == (words, "none")
    assert collector.requests == []


@pytest.mark.parametrize("name", ["Containerfile", "workflow.yaml"])
def test_installed(name: str, host: Host) -> None:
    """What installs tbot-otel installs the extra with it."""
    read, _ = TABLE[name]
    host.run(*read(host))
    (words,) = host.installed.read_text().splitlines()
    assert words.split()[0] == "install"
    assert words.split()[-1] == "tbot-otel[run]"


def test_workflow_summary(host: Host, rotel: Rotel) -> None:
    """The step's summary shows, as a block of JSON, what the Collector then received."""
    told = json.loads(host.run(*workflow(host)).stdout)
    block = re.fullmatch("```json\n(.*)```\n", (host.folder / "summary.md").read_text(), re.DOTALL)
    assert block
    (resource,) = json.loads(block[1])["resourceLogs"]
    (record,) = resource["scopeLogs"][0]["logRecords"]
    kinds = {"stringValue": "Str", "intValue": "Int"}
    shown = {
        f"{attribute['key']}: {kinds[kind]}({value})"
        for attribute in record["attributes"]
        for kind, value in attribute["value"].items()
    }
    assert shown == set(re.findall(r"-> (tbot\..*)", rotel.find(told["session"])))


def test_workflow_without_summary(host: Host) -> None:
    """What preview can't read keeps tbot from nothing."""
    (host.folder / "tbot.yaml").write_text("outputs: [")
    steps, environ = workflow(host)
    done = host.run(steps, environ)
    assert done.returncode == 3
    assert json.loads(done.stdout)["answer"] == "ok"


@pytest.mark.parametrize(
    ("end", "status"), [("sys.exit(0)", 0), ("os.kill(os.getpid(), 15)", 128 + 15)]
)
def test_helper(end: str, status: int, tmp_path: Path, rotel: Rotel) -> None:
    """The helper names itself in the record, and ends as tbot did, by a signal too."""
    host = Host(tmp_path, rotel.endpoint("http/protobuf"), end=end)
    done = host.run(*helper(host))
    assert done.returncode == status
    printed = rotel.find(json.loads(done.stdout)["session"])
    assert "tbot.helper: Str(example-helper)\n" in printed
    assert "tbot.helper_version: Str(1.0.0)\n" in printed


def test_kubernetes_pod(host: Host) -> None:
    """The Pod has a process that reaps, the manifest selects it, and its mounts have volumes."""
    spec = yaml.safe_load(host.read("kubernetes.yaml"))["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    pod = manifest(host)
    assert pod["shareProcessNamespace"] is True
    mounts = [mount["name"] for mount in pod["containers"][0]["volumeMounts"]]
    assert mounts == [volume["name"] for volume in pod["volumes"]]


# Each of these asks a program that a machine may not have, or may not let everyone use.
if shutil.which("systemd-analyze"):

    def test_service_is_valid(host: Host) -> None:
        """Systemd finds nothing wrong with the unit."""
        unit = host.folder / "tbot.service"
        unit.write_text(host.read(unit.name))
        command = ["systemd-analyze", "verify", "--man=no", str(unit)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        # It speaks of the machine's other units too.
        assert [line for line in done.stderr.splitlines() if unit.name in line] == []
        assert done.returncode == 0


def leaves(node: object, path: str = "") -> set[str]:
    """Each value of a document, with its path."""
    if isinstance(node, dict):
        pairs = [*node.items()]
    elif isinstance(node, list):
        pairs = [*enumerate(node)]
    else:
        return {f"{path}={node!r}"}
    return {leaf for key, value in pairs for leaf in leaves(value, f"{path}.{key}")}


if shutil.which("kubectl"):

    def test_kubernetes_knows_each_field() -> None:
        """Kubernetes' own types, which drop what they do not know, keep all of the manifest."""
        file = EXAMPLES / "kubernetes.yaml"
        done = subprocess.run(
            [
                *("kubectl", "set", "env", "--local", "--output", "json"),
                *("--filename", str(file), "TEST=1"),
            ],
            env={"PATH": os.environ["PATH"], "KUBECONFIG": os.devnull},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert leaves(yaml.safe_load(file.read_text())) <= leaves(json.loads(done.stdout))


UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
if (
    shutil.which("unshare")
    and not subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode
):

    def test_container_process_1(host: Host, rotel: Rotel) -> None:
        """As a container's process 1, tbot reports its start and has its own status."""
        (*_, (words, _)), environ = container(host)
        done = host.run([Step([*UNSHARE, *words])], environ)
        assert (done.returncode, done.stderr) == (3, "")
        told = json.loads(done.stdout)
        assert (told["pid"], told["answer"]) == (1, "ok")
        assert "EventName: tbot.start" in rotel.find(told["session"])
