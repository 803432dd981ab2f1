"""The public names, the entry points, and the installed package."""

import pkgutil

import tbot_otel
from support.processes import run_python

MODULES = [
    module.name
    for module in pkgutil.walk_packages(tbot_otel.__path__, "tbot_otel.")
    # The first runs the command line, the second is generated. PyInstaller runs its hooks.
    if module.name not in ("tbot_otel.__main__", "tbot_otel.connect.tbot_pb")
    and "-" not in module.name
]


IMPORT = """
import importlib, sys
for name in sys.argv[1:]:
    print(name, flush=True)
    for loaded in [*sys.modules]:
        if loaded.partition(".")[0] == "tbot_otel":
            del sys.modules[loaded]
    assert importlib.import_module(name).__doc__
"""


def test_modules() -> None:
    """Each module can be imported first, and has a docstring."""
    done = run_python("-c", IMPORT, *MODULES)
    assert (done.returncode, done.stderr, done.stdout.split()) == (0, "", MODULES)
