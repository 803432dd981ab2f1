"""The sessions: each installs its lock file, then runs its checks."""

import hashlib
import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import nox

# As pip, trust the certificates of the machine.
os.environ.setdefault("UV_SYSTEM_CERTS", "true")

nox.needs_version = ">=2026.10"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ("newest", "oldest")

TESTED = ("newest", "oldest")
GROUPS = (*TESTED, "docs", "release", "nox", "mutation", "fuzz")
# These groups are independent of the package's own dependencies.
TOOLS = ("release", "nox", "mutation", "fuzz")
SUPPORTED_PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
MESSAGES = "src/tbot_otel/connect/tbot_pb.py"

PARALLEL = ("-n", "3", "--dist", "worksteal")
UNIT = ("tests/unit",)
# The tests for interpreters that do not run the whole suite.
SMOKE = ("tests/integration/test_protocols.py", "tests/integration/test_run.py")
# The tests that depend on the SDK's version.
SDK = [
    f"tests/integration/test_{name}.py"
    for name in (
        *("anonymity", "callers", "delivery", "exit", "faults", "headers", "linking", "pipelines"),
        *("policy", "processor", "recording", "relay_batch", "sending", "session", "silence"),
    )
]


def find_python(version: str) -> str | None:
    """Find an interpreter on PATH or in pyenv. nox finds only those that pyenv has activated."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    folders = [folder for folder in os.get_exec_path() if Path(folder).name != "shims"]
    folders += map(str, pyenv.glob(f"versions/{version}.*/bin"))
    return shutil.which(f"python{version}", path=os.pathsep.join(folders))


FOUND = {version: path for version in SUPPORTED_PYTHONS if (path := find_python(version))}
os.environ["PATH"] = os.pathsep.join(
    [os.environ["PATH"], *(str(Path(path).parent) for path in FOUND.values())]
)
PYTHONS = [*FOUND] or [f"3.{sys.version_info.minor}"]


def install(session: nox.Session, group: str) -> None:
    """Install the lock file of a group, and the package as a wheel, as users do."""
    session.install("--require-hashes", "-r", f"requirements/{group}.txt")
    # session.run, because session.install would keep an old wheel under `nox -R`.
    build = ("hatchling", "build", "-t", "wheel", "-d", session.create_tmp())
    wheel = str(session.run(*build, silent=True)).strip()
    session.run("uv", "pip", "install", "--quiet", "--no-deps", "--reinstall", wheel)


@nox.session(python=PYTHONS[1:] or PYTHONS)
def newest(session: nox.Session) -> None:
    """Test with the newest SDK: all on the newest Python, a part on the others."""
    for version in SUPPORTED_PYTHONS:
        if version not in FOUND:
            session.warn(f"Python {version} is not tested: it is not installed")
    install(session, "newest")
    if session.python == PYTHONS[-1]:
        session.run("pytest", *PARALLEL, *session.posargs)
    else:
        session.run("pytest", *PARALLEL, *SMOKE, *session.posargs)
        session.warn(f"On Python {session.python}, other tests were left out")


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """Test what depends on the SDK with the oldest one that is supported, on the oldest Python."""
    install(session, "oldest")
    # The other integration tests run once, in `newest`.
    session.run("pytest", *PARALLEL, *(session.posargs or (*UNIT, *SMOKE, *SDK)))


@nox.session(name="next", python=PYTHONS[0])
def upstream(session: nox.Session) -> None:
    """Test with a checkout of opentelemetry-python, given as an argument: the next SDK."""
    if not session.posargs:
        session.error("expected the path of a checkout: nox --session next -- PATH")
    path, *words = session.posargs
    install(session, "newest")
    locked = set(
        re.findall("(?m)^(opentelemetry-[a-z-]+)==", Path("requirements/newest.txt").read_text())
    )
    folders = [*Path(path).glob("opentelemetry-*"), *Path(path).glob("exporter/opentelemetry-*")]
    packages = [str(folder.resolve()) for folder in folders if folder.name in locked]
    # Its instrumentation stays at the release, and asks for the release's exact versions.
    session.run("uv", "pip", "install", "--quiet", "--no-deps", "--reinstall", *packages)
    session.run("pytest", *PARALLEL, *words)


@nox.session
def unit(session: nox.Session) -> None:
    """Run the tests that take seconds."""
    install(session, "newest")
    session.run("pytest", *UNIT, *session.posargs)
    session.warn("Integration tests were left out: nox --session newest oldest runs them")


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, style, types, imports, dependencies and generated code."""
    install(session, "newest")
    session.run("ruff", "format", "--check")
    session.run("ruff", "check")
    session.run("mypy")
    session.run("basedpyright", "--verifytypes", "tbot_otel", "--ignoreexternal")
    session.run("lint-imports")
    session.run("deptry", "src")
    generated = session.create_tmp()
    session.run("buf", "generate", "--output", generated)
    session.run("diff", f"{generated}/{MESSAGES}", MESSAGES, external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site in the folder site, and check it."""
    install(session, "docs")
    shutil.rmtree("site", ignore_errors=True)
    # -E builds every page again, so that each warning is seen.
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-E", "-c", "docs", ".", "site")
    shutil.copy("site/README.html", "site/index.html")
    session.run("python", "docs/check.py", "site")


@nox.session
def reproducible(session: nox.Session) -> None:
    """Build the sdist and the wheel of the last commit twice, compare them, and keep them in dist.

    The builds differ in the folder, the umask, the time zone and the times of the files.
    """
    session.install("--require-hashes", "-r", "requirements/release.txt")
    folder = Path(session.create_tmp()).resolve()
    builds = []
    for name, umask, zone, modified in (
        ("a", "077", "UTC", "now"),
        ("another folder/b", "002", "Asia/Kathmandu", "2001-02-03"),
    ):
        sources = folder / name
        shutil.rmtree(sources, ignore_errors=True)
        script = (
            f"umask {umask} && git clone -q . '{sources}' && cd '{sources}' && "
            f"git ls-files -z | xargs -0 touch -d {modified} && hatchling build"
        )
        # Without this variable, hatchling dates every file 2020-02-02.
        session.run(
            "sh", "-euc", script, env={"TZ": zone, "SOURCE_DATE_EPOCH": None}, external=True
        )
        builds.append({path.name: path.read_bytes() for path in sources.glob("dist/*")})
    if builds[0] != builds[1] or len(builds[0]) != 2:
        session.error(f"the builds differ: compare {folder}/a/dist and {sources}/dist")
    Path("dist").mkdir(exist_ok=True)
    for name, content in builds[0].items():
        Path("dist", name).write_bytes(content)
        session.log(f"{hashlib.sha256(content).hexdigest()}  dist/{name}")


def install_dependencies(session: nox.Session, *extras: str) -> str:
    """Install what the package depends on, in a new environment; return its interpreter."""
    python = f"{session.create_tmp()}/dependencies/bin/python"
    session.run("uv", "venv", "--quiet", "--clear", f"{session.create_tmp()}/dependencies")
    session.run(
        *("uv", "pip", "install", "--quiet", f"--python={python}", "-r", "pyproject.toml"),
        *("--constraints", "requirements/newest.txt", *extras),
    )
    return python


@nox.session
def licenses(session: nox.Session) -> None:
    """Check the licenses of all dependencies against the list in pyproject.toml."""
    session.install("--require-hashes", "-r", "requirements/release.txt")
    python = install_dependencies(session, "--all-extras")
    session.run("pip-licenses", f"--python={python}", "--with-system")


@nox.session
def sbom(session: nox.Session) -> None:
    """Write a CycloneDX bill of materials for the package, and for each extra, to dist."""
    session.install("--require-hashes", "-r", "requirements/release.txt")
    text = Path("pyproject.toml").read_text()
    version = str(session.run("hatchling", "version", silent=True)).strip()
    # cyclonedx-py does not read a dynamic version.
    project = Path(session.create_tmp(), "pyproject.toml")
    project.write_text(text.replace('dynamic = ["version"]', f'version = "{version}"'))
    Path("dist").mkdir(exist_ok=True)
    for extra in ("base", *tomllib.loads(text)["project"]["optional-dependencies"]):
        python = install_dependencies(session, *(() if extra == "base" else (f"--extra={extra}",)))
        # It validates the file.
        session.run(
            *("cyclonedx-py", "environment", f"--pyproject={project}", "--mc-type=library"),
            *("--output-reproducible", f"--output-file=dist/sbom-{extra}.cdx.json", python),
        )


@nox.session
def generate(session: nox.Session) -> None:
    """Generate the module of tbot's messages, and everything that follows from the registry."""
    install(session, "newest")
    session.run("buf", "generate")
    session.run("python", "registry/generate.py")


@nox.session(python=PYTHONS[0])
def mutation(session: nox.Session) -> None:
    """Change the core modules, a function at a time: the tests must fail. It takes minutes."""
    session.install("--require-hashes", "-r", "requirements/mutation.txt")
    install(session, "newest")
    session.run("python", "tests/mutants.py", *session.posargs)


@nox.session(python=PYTHONS[-1])
def fuzz(session: nox.Session) -> None:
    """Generate inputs by coverage for bot_config, connect or report, until stopped."""
    session.install("--require-hashes", "-r", "requirements/fuzz.txt")
    install(session, "newest")
    session.run("python", "tests/fuzz.py", *session.posargs)


@nox.session
def picture(session: nox.Session) -> None:
    """Make docs/report.png. It needs Chromium."""
    install(session, "newest")
    session.run("python", "-m", "support.picture", env={"PYTHONPATH": "tests"})


@nox.session(python=PYTHONS[-1])
def vendors(session: nox.Session) -> None:
    """Test beside vendors' distributions of OpenTelemetry, and in a program of PyInstaller's."""
    install(session, "newest")
    session.run("pytest", "tests/vendors", *session.posargs)


@nox.session(venv_backend="none")
def fresh(session: nox.Session) -> None:
    """Run the README's quick start in a fresh Debian. It needs root and debootstrap."""
    session.run(".ci/fresh-machine", external=True)


@nox.session
def lock(session: nox.Session) -> None:
    """Update the lock files."""
    session.install("uv")
    for group in GROUPS:
        project = [] if group in TOOLS else ["pyproject.toml"]
        if group in TESTED:
            project.append("--all-extras")
        session.run(
            "uv", "pip", "compile", f"--group={group}", "--universal",
            "--generate-hashes", "--no-header", "--no-annotate", "--quiet",
            f"--output-file=requirements/{group}.txt", "--python-version=3.11",
            *project, *session.posargs,
        )  # fmt: skip
    page = session.run("python", "docs/compatibility.py", silent=True)
    Path("docs/compatibility.md").write_text(str(page))
