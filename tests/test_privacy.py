"""docs/privacy.md lists what the code does: which files reach the network, which hosts they reach, and which files
listen."""

import ast
import inspect
import json
import re
from urllib.parse import urlparse

from tools.site.server import server
from utils import ROOT
from utils.data import datasets

CODE = [*(ROOT / "utils").rglob("*.py"), *(ROOT / "tools").rglob("*.py"), ROOT / "train.py", ROOT / "hubconf.py"]
# what reaches the network, or is reached from it
NAMES = """urllib.request http socket socketserver ssl ftplib smtplib xmlrpc requests httpx aiohttp distributed
webbrowser asyncio torch.hub torchvision.datasets torch.distributed huggingface_hub wandb paramiko"""
MODULES = set(NAMES.split())
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
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    downloads = any(word.arg == "download" for call in calls for word in call.keywords)
    return found if downloads else found - {"torchvision.datasets"}  # which otherwise only reads what is there


def declared() -> set[str]:
    return {name for entry in line()["downloads"] + line()["listens"] for name in entry["by"] if name.endswith(".py")}


def test_only_who_is_named_reaches_the_network():
    found = {path.relative_to(ROOT).as_posix(): reaches(path.read_text(encoding="utf-8")) for path in CODE}
    found = {name: what for name, what in found.items() if what}
    assert set(found) == declared(), found
    assert line()["leaves_the_machine"] == []


def test_who_reaches_the_network_is_noticed():
    for source, found in (
        ("def f():\n    from requests import post", {"requests"}),
        ("from torchvision import datasets\ndatasets.MNIST(root, download=True)", {"torchvision.datasets"}),
        ("run(['curl', '-T', name, there])", {"curl"}),
        ("import html\nfrom torch import nn\nprint('fetch it yourself')", set()),
    ):
        assert reaches(source) == found


def test_data_come_from_the_hosts_that_are_named():
    import torchvision.datasets

    named = next(entry["from"] for entry in line()["downloads"] if entry["what"] == "data sets")
    assert named.keys() == datasets.SOURCES.keys()
    for name, source in datasets.SOURCES.items():
        kind = getattr(torchvision.datasets, source.torchvision_class)
        own = [value for key, value in vars(kind).items() if key in ("mirrors", "url", "urls")]
        text = repr(own) if name != "qmnist" else inspect.getsource(kind)[500:]  # which inherits MNIST's
        hosts = {urlparse(address).hostname for address in re.findall(r"https?://[^\s\"'\]]+", text)}
        assert hosts and hosts <= {*named[name], "github.com"}, name


def test_no_other_address_stands_in_the_code():
    """But for what is only shown: badges, documentation, and this machine."""
    shown = {"127.0.0.1", "colab.research.google.com", "github.com", "git-lfs.github.com", "git-lfs"}
    for path in CODE:
        addresses = re.findall(r"https?://[^\s\"'`)}\]]+", path.read_text(encoding="utf-8"))
        hosts = {urlparse(address).hostname for address in addresses}
        assert {host for host in hosts if host and re.fullmatch(r"[\w.-]+", host)} <= shown, path


def test_what_listens_listens_on_this_machine_alone():
    """That the cluster's workers and scheduler do is tested where they are started."""
    with server() as running:
        assert running.server_address[0] == "127.0.0.1"


def test_nothing_is_evaluated_and_no_shell_is_given_words():
    """No eval, exec or unpickling of anything, and no shell: a name in a file or a command line stays a name."""
    banned = {"exec", "popen", "getoutput", "__import__"}
    for path in CODE:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call):
                called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                owner = getattr(getattr(call.func, "value", None), "id", "")
                argv = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
                assert called not in banned and owner not in ("pickle", "dill", "joblib", "marshal"), path
                assert called != "eval" or isinstance(call.func, ast.Attribute), path  # model.eval() is another
                assert "shell" not in argv and owner != "builtins" and (owner, called) != ("os", "system"), path
                assert (owner, called) != ("torch", "load") or argv.get("weights_only") is True, path
