"""The workflows are safe, the page of tested versions is current, and the site has every page."""

import shutil
import subprocess

import pytest

from support.paths import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
EXAMPLES = [ROOT / "examples" / "run" / name for name in ("actions.yaml", "workflow.yaml")]
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"


@pytest.mark.skipif(shutil.which("go") is None, reason="needs Go, to build actionlint")
def test_workflows_are_valid() -> None:
    """Actionlint finds nothing in the workflows, and in those of the examples."""
    # The result does not depend on shellcheck and pyflakes, which may be installed.
    command = ["go", "run", ACTIONLINT, "-shellcheck=", "-pyflakes="]
    paths = [str(path) for path in (*WORKFLOWS, *EXAMPLES)]
    done = subprocess.run([*command, *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
