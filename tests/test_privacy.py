"""docs/privacy.md lists what the code does: which files reach the network, which hosts they reach, and which files
listen."""

import ast
import inspect
import json
import re
from pathlib import Path
from urllib.parse import urlparse

import pytest

from tools.site.server import server
from utils import ROOT
from utils.data import datasets

CODE = [
    *sorted((ROOT / "utils").rglob("*.py")),
    *sorted((ROOT / "tools").rglob("*.py")),
    ROOT / "train.py",
    ROOT / "hubconf.py",
]
# what reaches the network, or is reached from it: modules, and programs that are called
MODULES = {
    "urllib.request",
    "http",
    "socket",
    "socketserver",
    "ssl",
    "ftplib",
    "smtplib",
    "xmlrpc",
    "requests",
    "httpx",
    "aiohttp",
    "distributed",
}
MODULES |= {
    "webbrowser",
    "asyncio",
    "torch.hub",
    "torchvision.datasets",
    "torch.distributed",
    "huggingface_hub",
    "wandb",
    "paramiko",
}
PROGRAMS = {"pip", "npm", "curl", "wget", "ssh", "scp", "rsync", "clone", "cat-file", "push", "fetch", "pull"}


def line() -> dict:
    page = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
    return json.loads(re.search(r"```json\n(.*?)```", page, re.DOTALL)[1])


def reaches(source: str) -> set[str]:
    """Modules of MODULES that a source imports, and programs of PROGRAMS among its words."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and node.value in PROGRAMS:
            found.add(node.value)
        elif isinstance(node, ast.Constant) and "\nimport " in str(node.value):
            found |= reaches(node.value)  # the cell that tools.colab writes
        found |= {module for module in MODULES for name in names if name == module or name.startswith(f"{module}.")}
    downloads = any(
        word.arg == "download"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        for word in node.keywords
    )
    return found if downloads else found - {"torchvision.datasets"}  # which otherwise only reads what is there


def declared() -> set[str]:
    return {name for entry in line()["downloads"] + line()["listens"] for name in entry["by"] if name.endswith(".py")}


def test_only_who_is_named_reaches_the_network():
    found = {path.relative_to(ROOT).as_posix(): reaches(path.read_text(encoding="utf-8")) for path in CODE}
    found = {name: what for name, what in found.items() if what}
    assert set(found) == declared(), found
    assert line()["leaves_the_machine"] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import urllib.request", {"urllib.request"}),
        ("def f():\n    from requests import post", {"requests"}),
        ("from torchvision import datasets\ndatasets.MNIST(root, download=True)", {"torchvision.datasets"}),
        ("run(['curl', '-T', name, there])", {"curl"}),
        ("CELL = 'import json\\nimport socket'", {"socket"}),
        ("import html\nfrom torch import nn\nprint('fetch it yourself')", set()),
    ],
)
def test_who_reaches_the_network_is_noticed(source, found):
    assert reaches(source) == found


def test_data_come_from_the_hosts_that_are_named():
    import torchvision.datasets

    named = next(entry["from"] for entry in line()["downloads"] if entry["what"] == "data sets")
    assert named.keys() == datasets.SOURCES.keys()
    for name, source in datasets.SOURCES.items():
        kind = getattr(torchvision.datasets, source.torchvision_class)
        own = [
            value for key, value in vars(kind).items() if key in ("mirrors", "url", "urls")
        ]  # QMNIST inherits MNIST's, and uses its own
        hosts = {
            urlparse(address).hostname
            for address in re.findall(
                r"https?://[^\s\"'\]]+", repr(own) if name != "qmnist" else inspect.getsource(kind)[500:]
            )
        }
        assert hosts and hosts <= {*named[name], "github.com"}, name


def test_no_other_address_stands_in_the_code():
    """But for what is only shown: badges, documentation, and this machine."""
    shown = {"127.0.0.1", "colab.research.google.com", "github.com", "git-lfs.github.com", "git-lfs"}
    for path in CODE:
        hosts = {
            urlparse(address).hostname
            for address in re.findall(r"https?://[^\s\"'`)}\]]+", path.read_text(encoding="utf-8"))
        }
        assert {host for host in hosts if host and re.fullmatch(r"[\w.-]+", host)} <= shown, path


def test_what_listens_listens_on_this_machine_alone():
    """That the cluster's workers and scheduler do is tested where they are started."""
    with server() as running:
        assert running.server_address[0] == "127.0.0.1"


def test_nothing_is_evaluated_and_no_shell_is_given_words():
    """No eval, exec or unpickling of anything, and no shell: a name in a file or a command line stays a name."""
    for path in CODE:
        for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                owner = getattr(getattr(node.func, "value", None), "id", "")
                argv = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
                assert called not in ("exec", "popen", "getoutput", "__import__") and (owner, called) not in {
                    ("os", "system"),
                    ("builtins", "eval"),
                }
                assert called != "eval" or isinstance(node.func, ast.Attribute), path  # model.eval() is another
                assert "shell" not in argv, path
                assert (owner, called) != ("torch", "load") or argv.get("weights_only") is True, path
                assert owner not in ("pickle", "dill", "joblib", "marshal"), path
