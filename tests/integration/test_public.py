"""The public names, the entry points, and the installed package."""

import pkgutil

import pytest

import tbot_otel
from support.processes import run_python

MODULES = [
    module.name
    for module in pkgutil.walk_packages(tbot_otel.__path__, "tbot_otel.")
    # The first runs the command line, the second is generated. PyInstaller runs its hooks.
    if module.name not in ("tbot_otel.__main__", "tbot_otel.connect.tbot_pb")
    and "-" not in module.name
]


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str) -> None:
    """Each module can be imported first, and has a docstring."""
    done = run_python("-c", f"import {name}; print({name}.__doc__)")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout != "None\n"
