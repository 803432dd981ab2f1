"""The examples of `tbot-otel run`, executed as on their hosts, with a stand-in for tbot."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from support.collectors import Collector
from support.paths import TESTS
from support.processes import free_port, running_server, wait_until
from support.standins import HTTPStandin, Response
from tbot_otel import __version__

ROOT = TESTS.parent
EXAMPLES = ROOT / "examples" / "run"
SCRIPTS = sysconfig.get_path("scripts")

OPT_IN = "TELEPORT_ANONYMOUS_TELEMETRY"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

UNIT = "tbot.service"
DROP_IN = "tbot.service.d/tbot-otel.conf"

# A shell, because preview waits only 5 seconds for the version.
TBOT_SCRIPT = """\
#!/bin/sh
if [ "$*" = version ]; then
    echo "Teleport v18.3.0 git:v18.3.0-0-gabcdef1 go1.24.9"
    exit
fi
exec {python} {start} "$@"
"""
# A tbot that sends the agent's report and exits after the response, also as a daemon.
TBOT_START_SCRIPT = """\
import json, os, sys, uuid
sys.path.insert(0, {tests!r})
from support import agent
words = sys.argv[1:]
result = {{"words": words, "pid": os.getpid(), "session": str(uuid.uuid4()), "answer": "none"}}
if address := os.environ.get("TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS"):
    report = agent.build_request(result["session"], oneshot="--oneshot" in words)
    result["answer"] = agent.call_with_http(address, report)
print(json.dumps(result), flush=True)
{end}
"""
# The configuration that the agent reports.
TBOT_YAML = """\
version: v2
onboarding: {join_method: github, token: example-bot}
outputs: [{type: identity}, {type: database, service: example-postgres}]
services: [{type: ssh-multiplexer}]
"""
# As `tbot install systemd` writes it.
EXISTING_UNIT = """\
[Service]
Type=simple
Restart=always
Environment="TELEPORT_ANONYMOUS_TELEMETRY=0"
ExecStart=/bin/false start -c /etc/tbot.yaml --pid-file=/run/tbot.pid
ExecReload=/bin/kill -HUP $MAINPID
PIDFile=/run/tbot.pid
"""
INSTALLER_SCRIPT = """\
#!/bin/sh
echo "$@" >> {log}
"""


class Step(NamedTuple):
    """A command that a host executes."""

    words: list[str]
    may_fail: bool = False


class Host:
    """A folder with stand-ins for the programs of an example's host, and a Collector's endpoint."""

    def __init__(self, folder: Path, endpoint: str, *, end: str = "sys.exit(3)") -> None:
        self.folder = folder
        self.endpoint = endpoint
        self.installer_log = folder / "installer.log"
        self._programs = folder / "bin"
        self._programs.mkdir()
        start = folder / "start.py"
        start.write_text(TBOT_START_SCRIPT.format(tests=str(TESTS), end=end))
        tbot = TBOT_SCRIPT.format(python=sys.executable, start=start)
        installer = INSTALLER_SCRIPT.format(log=self.installer_log)
        for name, text in {"tbot": tbot, "pip": installer, "pipx": installer}.items():
            program = self._programs / name
            program.write_text(text)
            program.chmod(0o755)
        (folder / "tbot.yaml").write_text(TBOT_YAML)

    def read(self, name: str) -> str:
        """Return an example with the paths and the Collector of this host."""
        replacements = {
            "/opt/tbot-otel/bin": SCRIPTS,
            "/usr/local/bin/tbot": str(self._programs / "tbot"),
            "/etc/default/tbot": str(self.folder / "variables"),
            "https://otel.example.com": self.endpoint,
            ":4318": ":" + self.endpoint.rpartition(":")[2],
        }
        text = (EXAMPLES / name).read_text()
        for original, replacement in replacements.items():
            text = text.replace(original, replacement)
        return text

    def run(self, steps: list[Step], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Execute steps up to the first that fails, and return the result of the last one."""
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


def unit_process(host: Host, text: str) -> tuple[list[Step], dict[str, str]]:
    """The command of a unit and its drop-ins, as systemd reads them."""
    settings: dict[str, list[str]] = {"EnvironmentFile": [], "ExecStart": []}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        values = settings.setdefault(name, [])
        # An empty value removes the values before it.
        values.append(value) if value else values.clear()
    assignments = [word for value in settings["Environment"] for word in shlex.split(value)]
    (file,) = (value.removeprefix("-") for value in settings["EnvironmentFile"])
    # Variables of the file win. This one names a Collector on another port.
    Path(file).write_text(f"{ENDPOINT}={host.endpoint}\n")
    assignments += Path(file).read_text().splitlines()
    (command,) = settings["ExecStart"]
    return [Step(shlex.split(command))], dict(word.split("=", 1) for word in assignments)


def systemd_unit(host: Host) -> tuple[list[Step], dict[str, str]]:
    """The command of the unit."""
    return unit_process(host, host.read(UNIT))


def systemd_drop_in(host: Host) -> tuple[list[Step], dict[str, str]]:
    """The command of a unit that is there, with the drop-in."""
    return unit_process(host, EXISTING_UNIT + host.read(DROP_IN))


def pod_spec(host: Host) -> dict[str, Any]:
    """The Pod of the Kubernetes manifest."""
    pod: dict[str, Any] = yaml.safe_load(host.read("kubernetes.yaml"))["spec"]["template"]["spec"]
    return pod


def kubernetes_container(host: Host) -> tuple[list[Step], dict[str, str]]:
    """The command of the manifest, as a node at 127.0.0.1 starts it."""
    (container,) = pod_spec(host)["containers"]
    environ: dict[str, str] = {}
    for variable in container["env"]:
        if "valueFrom" in variable:
            value = {"status.hostIP": "127.0.0.1"}[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        else:
            value = re.sub(r"\$\((\w+)\)", lambda match: environ[match[1]], variable["value"])
        environ[variable["name"]] = value
    return [Step(container["command"] + container["args"])], environ


def workflow_steps(host: Host) -> tuple[list[Step], dict[str, str]]:
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


def image_build_and_process(host: Host) -> tuple[list[Step], dict[str, str]]:
    """The build and the process of the image, with variables that its user sets."""
    lines = re.findall(r"^([A-Z]+) (.*)$", host.read("Containerfile"), re.MULTILINE)
    steps = [Step(["/bin/sh", "-c", text]) for name, text in lines if name == "RUN"]
    process = {name: json.loads(text) for name, text in lines if name in ("ENTRYPOINT", "CMD")}
    steps.append(Step(process["ENTRYPOINT"] + process["CMD"]))
    return steps, {OPT_IN: "1", ENDPOINT: host.endpoint}


def helper_program(host: Host) -> tuple[list[Step], dict[str, str]]:
    """The helper program, with variables that its user sets."""
    environ = {OPT_IN: "1", ENDPOINT: host.endpoint}
    return [Step([sys.executable, str(EXAMPLES / "helper.py")])], environ


CONFIG = ["start", "-c"]
EXAMPLE_TABLE = {
    UNIT: (systemd_unit, [*CONFIG, "/etc/tbot.yaml"]),
    DROP_IN: (systemd_drop_in, [*CONFIG, "/etc/tbot.yaml"]),
    "kubernetes.yaml": (kubernetes_container, [*CONFIG, "/config/tbot.yaml"]),
    "workflow.yaml": (workflow_steps, [*CONFIG, "tbot.yaml", "--oneshot"]),
    "Containerfile": (image_build_and_process, [*CONFIG, "/config/tbot.yaml"]),
    "helper.py": (helper_program, [*CONFIG, "tbot.yaml", "--oneshot"]),
}


# These log the outcome to standard error.
LOGGING_EXAMPLES = (UNIT, DROP_IN, "kubernetes.yaml", "workflow.yaml")


@pytest.fixture
def host(tmp_path: Path, collector: Collector) -> Host:
    """A host with a Collector."""
    return Host(tmp_path, collector.endpoint("http/protobuf"))


def test_all() -> None:
    """Every example is executed here."""
    files = (path for path in EXAMPLES.rglob("*") if path.is_file())
    assert sorted(path.relative_to(EXAMPLES).as_posix() for path in files) == sorted(
        [*EXAMPLE_TABLE, "actions.yaml", "sidecar.yaml"]
    )


@pytest.mark.parametrize("name", EXAMPLE_TABLE)
def test_delivered(name: str, host: Host, collector: Collector) -> None:
    """Each example starts tbot, reports its start, and exits with tbot's status.

    The examples that install tbot-otel install it with the extra `run`.
    """
    read_steps, words = EXAMPLE_TABLE[name]
    done = host.run(*read_steps(host))
    assert done.returncode == 3
    assert ("tbot's start was delivered to" in done.stderr) is (name in LOGGING_EXAMPLES)
    printed = json.loads(done.stdout)
    assert (printed["words"], printed["answer"]) == (words, "ok")
    mode = "one-shot" if "--oneshot" in words else "daemon"
    assert collector.find(printed["session"]).attributes["tbot.run_mode"] == mode
    if name in ("Containerfile", "workflow.yaml"):
        (installed,) = host.installer_log.read_text().splitlines()
        assert installed.startswith("install ")
        assert installed.endswith(f" tbot-otel[run]=={__version__}")


@pytest.mark.parametrize("name", [UNIT, DROP_IN, "kubernetes.yaml", "Containerfile"])
def test_isolated(name: str, host: Host) -> None:
    """Variables for other Python programs do not change how tbot starts."""
    (host.folder / "sitecustomize.py").write_text("raise SystemExit(9)")
    read_steps, _ = EXAMPLE_TABLE[name]
    steps, environ = read_steps(host)
    folder = str(host.folder)
    variables = {"PYTHONHOME": folder, "PYTHONPATH": folder, "PYTHONUTF8": "x"}
    # tbot is no Python program. Its stand-in here is one.
    tbot = host.folder / "bin" / "tbot"
    unset = f"#!/bin/sh\nunset {' '.join(variables)}\n"
    tbot.write_text(tbot.read_text().replace("#!/bin/sh\n", unset))
    done = host.run(steps[-1:], environ | variables)
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["answer"] == "ok"


@pytest.mark.parametrize("name", EXAMPLE_TABLE)
def test_refused(name: str, tmp_path: Path) -> None:
    """Without the opt-in, each example starts tbot and sends nothing."""
    read_steps, words = EXAMPLE_TABLE[name]
    with HTTPStandin(Response()) as collector:
        host = Host(tmp_path, collector.endpoint)
        steps, environ = read_steps(host)
        del environ[OPT_IN]
        done = host.run(steps, environ)
    assert (done.returncode, done.stderr) == (3, "")
    printed = json.loads(done.stdout)
    assert (printed["words"], printed["answer"]) == (words, "none")
    assert collector.requests == []


def image_checkout_steps(host: Host) -> list[Step]:
    """The RUN command in the Containerfile's comment, after its COPY instructions."""
    (*copies, (_, command)) = re.findall(
        r"^#   (COPY|RUN) (.*)$", host.read("Containerfile"), re.MULTILINE
    )
    for _, words in copies:
        *sources, target = words.split()
        folder = host.folder / target.removeprefix("/")
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder)
            else:
                folder.mkdir(exist_ok=True)
                shutil.copy(ROOT / source, folder)
    return [Step(["/bin/sh", "-c", command.replace("/src", f"{host.folder}/src")])]


def workflow_checkout_steps(host: Host) -> list[Step]:
    """The command in the workflow's comment, after the step that checks out the project."""
    comment = re.findall(r"^ +# ([- ] .*)$", host.read("workflow.yaml"), re.MULTILINE)
    checkout, install = yaml.safe_load("\n".join(comment))
    (host.folder / checkout["with"]["path"]).symlink_to(ROOT)
    return [Step(["/bin/sh", "-c", install["run"]])]


@pytest.mark.parametrize("read_steps", [image_checkout_steps, workflow_checkout_steps])
def test_installed_from_checkout(read_steps: Callable[[Host], list[Step]], tmp_path: Path) -> None:
    """The commands in the comments install the extra `run` from files that build a wheel."""
    host = Host(tmp_path, "http://localhost:4318")
    host.run(read_steps(host), {})
    (words,) = host.installer_log.read_text().splitlines()
    path = words.split()[-1].removesuffix("[run]")
    wheels = tmp_path / "wheels"
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)],
        cwd=host.folder / path,
        capture_output=True,
        timeout=60,
        check=True,
    )
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        assert "tbot_otel/run/launcher.py" in archive.namelist()
        assert b"\nProvides-Extra: run\n" in archive.read(metadata)


def test_workflow_summary(host: Host, collector: Collector) -> None:
    """The step's summary shows the record that the Collector then receives."""
    printed = json.loads(host.run(*workflow_steps(host)).stdout)
    block = re.fullmatch("```text\n(.*)```\n", (host.folder / "summary.md").read_text(), re.DOTALL)
    assert block
    _, _, attributes = block[1].partition("\nAttributes:\n")
    shown = dict(re.findall(r"^     -> (\S+): \w+\((.*)\)$", attributes, re.MULTILINE))
    received = collector.find(printed["session"])
    assert shown == {name: str(value) for name, value in received.attributes.items()}


def test_workflow_without_summary(host: Host) -> None:
    """The command runs even if preview cannot read its configuration."""
    (host.folder / "tbot.yaml").write_text("outputs: [")
    steps, environ = workflow_steps(host)
    done = host.run(steps, environ)
    assert done.returncode == 3
    assert json.loads(done.stdout)["answer"] == "ok"


@pytest.mark.parametrize(
    ("end", "status"), [("sys.exit(0)", 0), ("os.kill(os.getpid(), 15)", 128 + 15)]
)
def test_helper(end: str, status: int, tmp_path: Path, collector: Collector) -> None:
    """The record names the helper, which exits with tbot's status, also after a signal."""
    host = Host(tmp_path, collector.endpoint("http/protobuf"), end=end)
    done = host.run(*helper_program(host))
    assert done.returncode == status
    received = collector.find(json.loads(done.stdout)["session"])
    assert received.attributes["tbot.helper"] == "example-helper"
    assert received.attributes["tbot.helper_version"] == "1.0.0"


def test_action(host: Host, collector: Collector) -> None:
    """A tbot that Teleport's action takes from PATH reports its start to the Collector."""
    (job,) = yaml.safe_load(host.read("actions.yaml"))["jobs"].values()
    path_file = host.folder / "path"
    environ = {**job["env"], "RUNNER_TEMP": str(host.folder), "GITHUB_PATH": str(path_file)}
    scripts = [Step(["bash", "-e", "-c", step["run"]]) for step in job["steps"] if "run" in step]
    assert host.run(scripts, environ).returncode == 0
    (action,) = (step for step in job["steps"] if "/auth@" in step.get("uses", ""))
    # What the action adds to the job's environment.
    environ |= {
        OPT_IN: str(action["with"]["anonymous-telemetry"]),
        "_TBOT_TELEMETRY_HELPER": "gha:teleport-actions/auth",
        "_TBOT_TELEMETRY_HELPER_VERSION": "2.1.2",
    }
    (folder,) = path_file.read_text().splitlines()
    tbot = str(Path(folder) / "tbot")
    version = host.run([Step([tbot, "version"])], environ)
    assert (version.stdout.split()[0], version.stderr) == ("Teleport", "")
    started = host.run([Step([tbot, "start", "-c", "a folder/tbot.yaml"])], environ)
    assert started.returncode == 3
    assert "tbot's start was delivered to" in started.stderr
    printed = json.loads(started.stdout)
    assert (printed["words"], printed["answer"]) == (["start", "-c", "a folder/tbot.yaml"], "ok")
    received = collector.find(printed["session"])
    assert received.attributes["tbot.helper"] == "gha:teleport-actions/auth"
    assert received.attributes["tbot.helper_version"] == "2.1.2"


def test_sidecar(host: Host, collector: Collector) -> None:
    """A tbot without Python reports its start to the relay beside it."""
    port = free_port()
    text = host.read("sidecar.yaml").replace("8126", str(port))
    pod = yaml.safe_load(text.replace("collector.example", "127.0.0.1"))["spec"]
    (sidecar,), (container,) = pod["initContainers"], pod["containers"]
    relay_environ = {variable["name"]: variable["value"] for variable in sidecar["env"]}
    environ = {variable["name"]: variable["value"] for variable in container["env"]}
    path = os.pathsep.join([SCRIPTS, os.environ["PATH"]])
    with running_server(
        sidecar["command"], host.folder / "relay.log", port, environ={"PATH": path, **relay_environ}
    ):
        probe = Step(sidecar["startupProbe"]["exec"]["command"])

        def is_ready() -> bool:
            return host.run([probe], {}).returncode == 0

        wait_until(is_ready)
        done = host.run([Step(["tbot", *container["args"]])], environ)
    assert (done.returncode, done.stderr) == (3, "")
    printed = json.loads(done.stdout)
    assert printed["answer"] == "ok"
    assert collector.find(printed["session"]).event_name == "tbot.start"
    assert [mount["name"] for mount in container["volumeMounts"]] == [
        volume["name"] for volume in pod["volumes"]
    ]


def test_kubernetes_pod(host: Host) -> None:
    """The Pod has an init process, the Deployment selects it, and its mounts have volumes."""
    spec = yaml.safe_load(host.read("kubernetes.yaml"))["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    pod = pod_spec(host)
    assert pod["shareProcessNamespace"] is True
    mounts = [mount["name"] for mount in pod["containers"][0]["volumeMounts"]]
    assert mounts == [volume["name"] for volume in pod["volumes"]]


# These need programs or permissions that a machine may lack.
if shutil.which("systemd-analyze"):

    @pytest.mark.parametrize("has_drop_in", [False, True])
    def test_service_is_valid(has_drop_in: bool, host: Host) -> None:
        """Systemd finds no problem in the unit, nor in one with the drop-in."""
        unit = host.folder / UNIT
        unit.write_text(EXISTING_UNIT if has_drop_in else host.read(UNIT))
        if has_drop_in:
            drop_in = host.folder / DROP_IN
            drop_in.parent.mkdir()
            drop_in.write_text(host.read(DROP_IN))
        command = ["systemd-analyze", "verify", "--man=no", str(unit)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        # It also prints problems of the machine's own units.
        assert [line for line in done.stderr.splitlines() if unit.name in line] == []
        assert done.returncode == 0


UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
if (
    shutil.which("unshare")
    and not subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode
):

    def test_container_process_1(host: Host, collector: Collector) -> None:
        """As process 1 of a container, tbot reports its start and exits with its own status."""
        (*_, (words, _)), environ = image_build_and_process(host)
        done = host.run([Step([*UNSHARE, *words])], environ)
        assert (done.returncode, done.stderr) == (3, "")
        printed = json.loads(done.stdout)
        assert (printed["pid"], printed["answer"]) == (1, "ok")
        assert collector.find(printed["session"]).event_name == "tbot.start"
