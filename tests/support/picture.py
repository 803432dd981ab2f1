"""Write docs/report.png: parts of the page of a generated report, as Chromium shows them."""

import tempfile
from pathlib import Path

from support.browser import Browser
from support.paths import ROOT
from support.report_data import example_report
from tbot_otel.report.html import render

PICTURE = ROOT / "docs" / "report.png"
WIDTH = 1_100
LEFT_OUT = "nav, #use-case, #run-mode > .answer, .notes, details"

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, Browser.running(Path(name)) as browser:
        page = Path(name) / "report.html"
        page.write_text(render(example_report(), 5), encoding="utf-8")
        browser.open(page, WIDTH)
        style = f"<style>{LEFT_OUT} {{ display: none }} section {{ margin-top: 1rem }}</style>"
        browser.evaluate(f"document.head.insertAdjacentHTML('beforeend', {style!r})")
        end = browser.evaluate(
            "document.querySelector('#run-mode .grid-of-words').getBoundingClientRect().top"
        )
        PICTURE.write_bytes(browser.screenshot(int(end) - 10))
