"""Entry points for torch.hub, one for every published network: torch.hub.load(REPO_OR_DIR, "mnist_medium",
pretrained=True)."""

import hashlib
import importlib
import importlib.util
import pathlib
import sys

dependencies = [
    "torch",
    "numpy",
    "msgspec",
    "tqdm",
    "matplotlib",
]  # all that importing this, and building its networks, needs


def _load_package() -> str:
    """Load the folder utils as a package whose name no other package has, and return that name: `utils` stays the
    reader's own."""
    folder = pathlib.Path(__file__).resolve().parent / "utils"
    name = (
        f"_small_cnns_{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"  # two clones may be loaded in one process
    )
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
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
    load.__doc__ = f"""{experiment.name}: {experiment.teaches}.

    {(_models.MODELS[_models.parse(experiment.recipe.model)[0]].__doc__ or "").strip()}

    Args:
        pretrained (bool): If True, returns the published network in eval mode, its file checked against its hash, and with
            its preprocessing: ``model(model.preprocess(image)).argmax(1)`` for a 28×28 uint8 image, a batch of them or a PIL
            image. If False, returns the same network with random weights, in training mode.
    """
    return load


globals().update(
    {
        name: _entry_point(experiment)
        for name, experiment in _experiments.EXPERIMENTS.items()
        if _records.RunPaths.of(experiment, 0)
        .weights.with_suffix(".json")
        .is_file()  # a clone may leave large weights out
    }
)
