"""Entry points for torch.hub, one per published network: torch.hub.load(REPO_OR_DIR, "mnist_medium",
pretrained=True)"""

import hashlib
import importlib
import importlib.util
import pathlib
import sys

# for importing this and building its networks
dependencies = ["torch", "numpy", "msgspec", "tqdm", "matplotlib", "scipy", "PIL", "filelock"]


def _load_package() -> str:
    """Load the folder utils under a unique name, and return that name: `utils` stays free for the reader."""
    folder = pathlib.Path(__file__).resolve().parent / "utils"
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]  # a process may load two clones
    name, path = f"_small_cnns_{digest}", folder / "__init__.py"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[str(folder)])
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return name


_package = _load_package()
_models = importlib.import_module(f"{_package}.models")
_experiments = importlib.import_module(f"{_package}.experiments")
_runs = importlib.import_module(f"{_package}.runs")
_records = importlib.import_module(f"{_package}.runs.records")


def _entry_point(experiment):
    def load(pretrained: bool = False):
        if not pretrained:
            return _models.build(experiment.recipe.model, experiment.recipe.dropout)
        model, model.preprocess = _runs.load_pretrained(experiment.name)
        return model

    load.__name__ = load.__qualname__ = experiment.name
    build = _models.MODELS[_models.parse(experiment.recipe.model)[0]]
    load.__doc__ = f"""{experiment.name}: {experiment.teaches}.

    {(build.__doc__ or "").strip()}

    Args:
        pretrained (bool): If True, checks the file against its hash, and returns the published network in eval mode.
            ``x = model.preprocess(image)`` takes a 28×28 uint8 image, a batch of them or a PIL image, and
            ``model(x).argmax(1)`` is the answer. If False, returns the same network with random weights, in training
            mode.
    """
    return load


for _name, _experiment in _experiments.EXPERIMENTS.items():
    if _records.RunPaths.of(_experiment, 0).weights.with_suffix(".json").is_file():  # a clone may leave weights out
        globals()[_name] = _entry_point(_experiment)
