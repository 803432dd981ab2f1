"""The documentation site: the README, the pages in docs/, and the API from its docstrings."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import tbot_otel

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
REPOSITORY = "https://github.com/tbot-otel/tbot-otel/"

# The pages in the order of the navigation. Pages in docs/ that are not named here come last.
NAVIGATION = {
    "Use": [
        "docs/reference",
        "docs/run",
        "docs/pipelines",
        "docs/relay",
        "docs/report",
        "docs/testing",
        "docs/api",
    ],
    "Trust": [
        "docs/privacy",
        "docs/events",
        "docs/delivery",
        "docs/reliability",
        "docs/proof",
        "docs/release",
        "SECURITY",
    ],
    "Project": [
        "docs/architecture",
        "docs/compatibility",
        "docs/performance",
        "CONTRIBUTING",
        "CHANGELOG",
    ],
}
NAMED = {page for pages in NAVIGATION.values() for page in pages}
NAVIGATION["Project"] += sorted({f"docs/{path.stem}" for path in ROOT.glob("docs/*.md")} - NAMED)

project = "tbot-otel"
version = release = tbot_otel.__version__
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/*.rst"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# As on GitHub, each heading can be linked to.
myst_heading_anchors = 6

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
default_role = "code"
html_domain_indices = False

html_theme = "furo"
html_title = f"tbot-otel {version}"
html_show_copyright = False
html_theme_options = {"source_repository": REPOSITORY, "source_branch": "main"}


def read_source(_app: object, name: str, source: list[str]) -> None:
    """Give the README links inside the site, and the navigation."""
    if name == root_doc:
        definition = rf"(?m)^(\[.+\]: ){re.escape(REPOSITORY)}(?:blob|raw|tree)/main/(\S+)$"
        source[0] = re.sub(
            definition,
            # A folder is not a part of the site.
            lambda link: (
                link[1] + link[2] if (ROOT / link[2].partition("#")[0]).is_file() else link[0]
            ),
            source[0],
        )
        for caption, pages in NAVIGATION.items():
            lines = ("```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", "")
            source[0] += "\n" + "\n".join(lines)


def setup(app: "Sphinx") -> None:
    """Connect the function above."""
    app.connect("source-read", read_source)
