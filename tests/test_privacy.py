"""docs/privacy.md lists what the code does: which files reach the network, which hosts they reach, and which files
listen."""

import inspect
import json
import re
from urllib.parse import urlparse

import torchvision.datasets

from tools.site.__main__ import server
from utils import ROOT
from utils.data import datasets

PATHS = [*(ROOT / "utils").rglob("*.py"), *(ROOT / "tools").rglob("*.py"), ROOT / "train.py", ROOT / "hubconf.py"]
CODE = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PATHS}
PAGE = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
DECLARED = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])
# what reaches the network, or is reached from it
MODULES = """urllib.request http socket socketserver ssl ftplib smtplib xmlrpc requests httpx aiohttp distributed
webbrowser asyncio torch.hub torchvision.datasets torch.distributed huggingface_hub wandb paramiko"""
PROGRAMS = {"pip", "npm", "curl", "wget", "ssh", "scp", "rsync", "clone", "cat-file", "push", "fetch", "pull"}


def hosts(text: str) -> set[str]:
    """The hosts of all addresses in a text."""
    found = {urlparse(address).hostname for address in re.findall(r"https?://[^\s\"'`)}\]]+", text)}
    return {host for host in found if host and re.fullmatch(r"[\w.-]+", host)}


def reaches(source: str) -> set[str]:
    """Modules of MODULES that a source imports, also in the cell that it writes, and programs of PROGRAMS in it."""
    found = {program for program in PROGRAMS if f'"{program}"' in source}
    for package, names in re.findall(r"^ *(?:from ([\w.]+) )?import ([\w., ]+)", source, re.MULTILINE):
        paths = [f"{package}.{name.split()[0]}.".lstrip(".") for name in names.split(",")]
        found |= {module for module in MODULES.split() for path in paths if path.startswith(f"{module}.")}
    return found if "download=" in source else found - {"torchvision.datasets"}  # which else only reads what is there


def test_only_who_is_named_reaches_the_network():
    named = {name for entry in DECLARED["downloads"] + DECLARED["listens"] for name in entry["by"]}
    found = {name: what for name, source in CODE.items() if (what := reaches(source))}
    assert found.keys() == {name for name in named if name.endswith(".py")}, found
    assert DECLARED["leaves_the_machine"] == []


def test_data_come_from_the_hosts_that_are_named():
    named = next(entry["from"] for entry in DECLARED["downloads"] if entry["what"] == "data sets")
    assert named.keys() == datasets.SOURCES.keys()
    for name, source in datasets.SOURCES.items():
        kind = getattr(torchvision.datasets, source.torchvision_class)
        own = [value for key, value in vars(kind).items() if key in ("mirrors", "url", "urls")]
        text = repr(own) if name != "qmnist" else inspect.getsource(kind)[500:]  # which inherits MNIST's
        assert set() < hosts(text) <= {*named[name], "github.com"}, name


def test_no_other_address_stands_in_the_code():
    """But for what is only shown: badges, documentation, and this machine."""
    shown = {"127.0.0.1", "colab.research.google.com", "github.com", "git-lfs.github.com", "git-lfs"}
    for name, source in CODE.items():
        assert hosts(source) <= shown, name


def test_what_listens_listens_on_this_machine_alone():
    """That the cluster's workers and scheduler do is tested where they are started."""
    with server() as running:
        assert running.server_address[0] == "127.0.0.1"
