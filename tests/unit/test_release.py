"""The workflows are safe, the page of tested versions is current, and the site has every page."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

import tbot_otel
from support.paths import ROOT
from tbot_otel import testing

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def file_name(path: Path) -> str:
    """The file's name in the ids of tests."""
    return path.name


def load(workflow: Path) -> Any:
    """Parse a workflow. The base loader leaves the key `on` a string."""
    return yaml.load(workflow.read_text(), yaml.BaseLoader)  # noqa: S506 - it makes only strings


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=file_name)
def test_actions_are_pinned(workflow: Path) -> None:
    """Every action is named by its commit, and a comment has the full version."""
    used = re.findall(r"uses: (.*)", workflow.read_text())
    pinned = re.compile(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert used
    assert [
        action
        for action in used
        if not action.startswith("./.github/workflows/") and not pinned.fullmatch(action)
    ] == []


def test_workflows_have_the_least_permissions() -> None:
    """Only the jobs that publish can write, only one of them to the repository."""
    tests, release = (
        load(ROOT / ".github" / "workflows" / f"{name}.yml") for name in ("tests", "release")
    )
    assert tests["permissions"] == {"contents": "read"}
    assert {job.get("permissions") for job in tests["jobs"].values()} == {None}
    assert release["permissions"] == {}
    assert {name: job["permissions"] for name, job in release["jobs"].items()} == {
        "tests": {"contents": "read"},
        "build": {"contents": "read"},
        "publish": {"id-token": "write"},
        "release": {"attestations": "write", "contents": "write", "id-token": "write"},
    }


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=file_name)
def test_workflows_have_no_secret(workflow: Path) -> None:
    """No workflow uses a long-lived secret, and no checkout leaves its token behind."""
    text = workflow.read_text()
    assert "secrets" not in text
    assert "password" not in text
    for job in load(workflow)["jobs"].values():
        for step in job.get("steps", ()):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] == "false"


def test_workflow_runs_every_session_of_ci() -> None:
    """The tests on GitHub run the sessions of .ci/run."""
    matrix = load(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]["test"]["strategy"][
        "matrix"
    ]
    named = {session for job in matrix["include"] for session in job["sessions"].split()}
    text = (ROOT / ".ci" / "run").read_text()
    run = {name for names in re.findall(r"nox --session ([a-z ]+)", text) for name in names.split()}
    assert run
    assert named == run


def test_versions_are_current() -> None:
    """docs/compatibility.md is what docs/compatibility.py prints for the lock files."""
    page = runpy.run_path(str(ROOT / "docs" / "compatibility.py"))["render"]()
    assert (ROOT / "docs" / "compatibility.md").read_text() == page


def test_navigation_has_every_page() -> None:
    """Every page is in the navigation of the site once, and every entry is a page."""
    navigation = runpy.run_path(str(ROOT / "docs" / "conf.py"))["NAVIGATION"]
    entries = sorted(page for pages in navigation.values() for page in pages)
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/*.rst")]
    names = {path.relative_to(ROOT).with_suffix("").as_posix() for path in pages}
    assert entries == sorted(names - {"README"})


def test_api_has_every_public_name() -> None:
    """The page of the API has every public name once."""
    text = (ROOT / "docs" / "api.rst").read_text()
    named = re.findall(r"^\.\. auto\w+:: (\w+)$", text, re.MULTILINE)
    # docs/testing.md has the fixtures.
    public = {*tbot_otel.__all__, *testing.__all__} - {"__version__", "tbot_silence", "tbot_starts"}
    assert sorted(named) == sorted(public)
