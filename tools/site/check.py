"""Whether a built site is whole: every page, network and link is there, and nothing is loaded from elsewhere."""

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

TEX = re.compile(r"\$[^$]*\\[^$]*\$")  # a formula that was not converted
SCHEMES = ("", "http", "https", "data", "mailto")
PAGES = ("index.html", "results.html", "live/index.html", "notebooks/index.html", "docs/index.html", "api/index.html")
PAGES += ("search.html", "sw.js", "results.json", "train/sprint.wasm", "train/train.json")
UNREAD = {"pre", "code", "script", "style"}
LOADED = {("img", "src"), ("script", "src"), ("source", "src"), ("iframe", "src"), ("video", "src")}


class Page(HTMLParser):
    """The ids and the addresses in a page; `loaded` are those that a browser fetches by itself."""

    def __init__(self, text: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.text: list[str] = []  # outside code and scripts
        self.inside = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.inside += tag in UNREAD
        found = {name: value or "" for name, value in attributes}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        for name in ("href", "src"):
            if name in found:
                self.links.add(found[name])
                is_style = tag == "link" and found.get("rel") not in ("canonical", "author")
                if (tag, name) in LOADED or is_style:
                    self.loaded.add(found[name])

    def handle_endtag(self, tag: str) -> None:
        self.inside -= tag in UNREAD

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.text.append(data)


def target(page: Path, address: str, site: Path) -> Path:
    """The file that a relative address leads to."""
    path = unquote(urlsplit(address).path)
    found = (page.parent / path).resolve() if path else page
    return found / "index.html" if found.is_dir() and found.is_relative_to(site) else found


def broken_links(site: Path) -> list[str]:
    """What leads nowhere, as 'page: address'."""
    site = site.resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    wrong = []
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        formula = TEX.search("".join(page.text))
        if formula:
            wrong.append(f"{name}: {formula[0][:60]!r} is no formula but its source")
        for address in sorted(page.links):
            parts = urlsplit(address)
            if parts.scheme not in SCHEMES:
                wrong.append(f"{name}: {address[:60]!r} is neither a file of the site nor a web address")
            if parts.scheme or parts.netloc:
                if address in page.loaded and parts.scheme != "data":
                    wrong.append(f"{name}: loads {address} from elsewhere")
                continue
            there = target(path, address, site)
            if parts.path.startswith("/") or not there.is_relative_to(site) or not there.is_file():
                wrong.append(f"{name}: {address} leads nowhere")
            elif parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].ids:
                wrong.append(f"{name}: {address}: no such place in that page")
    return wrong


def damaged_networks(site: Path) -> list[str]:
    """Files of networks.json that are missing or are not what it says."""
    wrong = []
    table = json.loads((site / "networks" / "networks.json").read_text(encoding="utf-8"))
    if not table["networks"]:
        wrong.append("networks/networks.json: no network")
    for one in table["networks"]:
        places = {"onnx": "networks", "weights": "networks", "state_dict": "saved_dict"}
        for facts, folder in ((one[key], folder) for key, folder in places.items() if key in one):
            file = site / folder / facts["file"]
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != facts["sha256"]:
                wrong.append(f"{file.relative_to(site)}: missing, or not the file that networks.json names")
    return wrong


def problems(site: Path) -> list[str]:
    """All that keeps the site from being published."""
    missing = [f"{name}: missing" for name in PAGES if not (site / name).is_file()]
    return missing + damaged_networks(site) + broken_links(site)
