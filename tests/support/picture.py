"""Write docs/report.png: the top of the page of a generated report, as Chromium shows it."""

import tempfile
from pathlib import Path

from support.browser import Browser
from support.paths import ROOT
from support.report_data import example_report
from tbot_otel.report.html import render

PICTURE = ROOT / "docs" / "report.png"
WIDTH = 1_100

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, Browser.running(Path(name)) as browser:
        page = Path(name) / "report.html"
        page.write_text(render(example_report(), 5), encoding="utf-8")
        browser.open(page, WIDTH)
        end = browser.evaluate(
            "document.querySelector('#run-mode .grid-of-words').getBoundingClientRect().top"
        )
        PICTURE.write_bytes(browser.screenshot(int(end) - 20))
