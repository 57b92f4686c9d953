"""Entry points for torch.hub, one for every published network: torch.hub.load(REPO_OR_DIR, "mnist_medium", pretrained=True)."""

from pathlib import Path

import utils

if Path(utils.__file__).resolve().parent != Path(__file__).resolve().parent / "utils":
    raise ImportError(
        f"another module is imported as `utils` already ({utils.__file__}): load the course's networks before it, or in another process"
    )

from utils import models
from utils.experiments import EXPERIMENTS
from utils.runs import load_pretrained
from utils.runs.records import Run

dependencies = ["torch", "numpy", "msgspec", "tqdm", "matplotlib"]  # all that importing this, and building its networks, needs


def _entry_point(experiment):
    def load(pretrained: bool = False):
        if not pretrained:
            return models.build(experiment.recipe.model, experiment.recipe.dropout)
        model, model.preprocess = load_pretrained(experiment.name)
        return model

    load.__name__ = load.__qualname__ = experiment.name
    load.__doc__ = f"""{experiment.name}: {experiment.teaches}.

    {(models.MODELS[models.parse(experiment.recipe.model)[0]].__doc__ or "").strip()}

    Args:
        pretrained (bool): If True, returns the published network in eval mode, its file checked against its hash, and with
            its preprocessing: ``model(model.preprocess(image)).argmax(1)`` for a 28×28 uint8 image, a batch of them or a PIL
            image. If False, returns the same network with random weights, in training mode.
    """
    return load


_published = [entry for entry in EXPERIMENTS.values() if Run.of(entry, 0).weights.with_suffix(".json").is_file()]
globals().update({entry.name: _entry_point(entry) for entry in _published})
