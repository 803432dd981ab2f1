"""Check the built site: each link leads somewhere, and nothing is loaded from another host."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

LOADING = {"src", "srcset", "poster", "data"}


class Page(HTMLParser):
    """The anchors of a page, its links, and the addresses that it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.anchors = {""}
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Sort the attributes of an element."""
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in LOADING or (tag == "link" and name == "href"):
                self.loaded.append(value or "")
            elif name == "href":
                self.links.append(value or "")


def main(folder: str) -> None:
    """Print what is wrong, and end with status 1 if anything is."""
    pages = {path: Page(path) for path in sorted(Path(folder).resolve().rglob("*.html"))}
    wrong = []
    for page in pages.values():
        wrong += [f"{page.path}: loads {url}" for url in page.loaded if "//" in url]
        for link in (*page.links, *page.loaded):
            if re.match(r"[a-z]+:", link):
                continue
            address, anchor = urldefrag(link)
            path = page.path.parent / unquote(address.partition("?")[0]) if address else page.path
            target = pages.get(path.resolve())
            if not path.exists() or (target and unquote(anchor) not in target.anchors):
                wrong.append(f"{page.path}: links to {link}")
    for path in sorted(Path(folder).rglob("*.css")):
        found = re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//[^'\")]*", path.read_text())
        wrong += [f"{path}: loads {url}" for url in found]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    sys.exit(1 if wrong or not pages else 0)


if __name__ == "__main__":
    main(sys.argv[1])
