"""The only training loop and the only test loop."""

import math
import random
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from tqdm import tqdm

from utils import CourseError, distributed, voxels
from utils.augment import affine
from utils.data import Dataset, Split
from utils.experiments import Experiment

Row = dict[str, float]  # one epoch, the columns of logs/NAME/seedK.csv


class Score(NamedTuple):
    """loss: mean cross-entropy; correct of total images."""

    loss: float
    correct: int
    total: int

    @property
    def percent(self) -> float:
        return 100 * self.correct / self.total


def normalise(images: Tensor, mean: float, std: float) -> Tensor:
    """uint8 0…255, or float 0…1 → float32 of mean 0 and standard deviation 1 over the training set; same shape and device."""
    return scaled(images).sub(mean).div_(std)


def scaled(images: Tensor) -> Tensor:
    """uint8 0…255 → float32 0…1; floats are that already."""
    return images if images.is_floating_point() else images.float().div_(255)


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, mean: float, std: float, batch_size: int = 1000) -> Tensor:
    """The network's (N, 10) output for (N, 1, 28, 28) uint8 images, in eval mode; draws no random number."""
    was_training = model.training
    model.eval()
    logits = torch.cat([model(normalise(batch, mean, std)) for batch in images.split(batch_size)])
    model.train(was_training)
    return logits


def evaluate(model: nn.Module, split: Split, mean: float, std: float) -> Score:
    """Mean cross-entropy and correct / total over the whole split."""
    logits = predict(model, split.images, mean, std)
    loss = F.cross_entropy(logits.double(), split.labels).item()
    return Score(loss, int((logits.argmax(1) == split.labels).sum()), len(split))


class Training:
    """All that an epoch changes: the network, optimizer, schedule, every random state, and the rows so far.

    state_dict() and load_state_dict() carry the whole of it, so that a run continues bit for bit. Where several processes
    train together (utils.distributed), all of them call state_dict(), for each holds a global random state of its own.
    """

    def __init__(self, model: nn.Module, experiment: Experiment, seed: int, images: int):
        """images: how many an epoch has."""
        device = next(model.parameters()).device
        steps = math.ceil(images / experiment.batch_size)
        self.model = model
        self.trained = distributed.wrap(model)  # the same network, to call in training
        self.optimizer = make_optimizer(model, experiment)
        self.scheduler = make_scheduler(self.optimizer, experiment, steps)
        # order and augmentation have a generator of their own: dropout, which can only use the global one, can't shift them
        self.order = torch.Generator().manual_seed(seed)
        self.augment = torch.Generator(device).manual_seed(seed)
        self.history: list[Row] = []
        self.best: dict[str, Tensor] | None = None  # weights of the best validation epoch, where early stopping keeps them

    def state_dict(self) -> dict:
        mine, *others = distributed.gather(random_state())
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "order": self.order.get_state(),
            "augment": self.augment.get_state(),
            **mine,
            "others": others,
            "history": self.history,
            "best": self.best,
        }

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.order.set_state(state["order"])
        self.augment.set_state(state["augment"])
        states = [state, *state.get("others", [])]
        if distributed.rank() < len(states):  # else there were fewer processes before: this one begins as it was seeded
            set_random_state(states[distributed.rank()])
        self.history = list(state["history"])
        self.best = state.get("best")


def random_state() -> dict:
    """Every global random state of this process."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (kind, keys.tolist(), *rest),
        "python": random.getstate(),
    }


def set_random_state(state: dict) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])


def make_optimizer(model: nn.Module, experiment: Experiment) -> torch.optim.Optimizer:
    """The recipe's optimizer; one fused kernel for all parameters where the device has it."""
    parameters = list(model.parameters())
    common = {"lr": experiment.lr, "weight_decay": experiment.weight_decay, "fused": parameters[0].device.type in ("cpu", "cuda")}
    if experiment.optimizer in ("sgd", "heavy_ball"):
        nesterov = experiment.optimizer == "sgd" and experiment.momentum > 0
        return torch.optim.SGD(parameters, momentum=experiment.momentum, nesterov=nesterov, **common)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[experiment.optimizer](parameters, **common)


def make_scheduler(optimizer: torch.optim.Optimizer, experiment: Experiment, steps: int) -> lr_scheduler.LRScheduler:
    """The recipe's learning rate, stepped once a batch; `steps`: batches an epoch."""
    if experiment.schedule == "one_cycle":
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=experiment.lr,
            total_steps=steps * experiment.epochs,
            pct_start=experiment.warmup,
            cycle_momentum=False,
            div_factor=10,
            final_div_factor=100,
        )
    if experiment.schedule == "plateau":  # stepped once an epoch, by fit()
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=3)
    drops = [(experiment.drop_at - 1) * steps] if experiment.schedule == "step" else []
    return lr_scheduler.MultiStepLR(optimizer, drops)


def fit(
    model: nn.Module,
    data: Dataset,
    experiment: Experiment,
    seed: int = 0,
    state: dict | None = None,
    after_epoch: Callable[[Training], None] = lambda training: None,
    echo: bool = True,
) -> list[Row]:
    """Train `model` in place for experiment.epochs and return one row an epoch; with experiment.patience, stop early and
    leave the model as it was after the best validation epoch (see kept).

    model and data: on the same device. Each epoch ends with the test set, or with data.valid where images are held out.
    state: a Training.state_dict() to continue from. after_epoch: called after every epoch with all that it changed.
    echo: one progress bar an epoch (in a terminal or a notebook) and its log lines.

    Raises CourseError when the loss is no longer finite; what was saved before stays.
    """
    training = Training(model, experiment, seed, len(data.train))
    if state:
        training.load_state_dict(state)
    part, held = ("valid", data.valid) if data.valid else ("test", data.test)
    for epoch in range(len(training.history) + 1, experiment.epochs + 1):
        if experiment.patience and training.history and epoch - 1 - kept(training.history, experiment)["epoch"] >= experiment.patience:
            break
        start, lr = time.perf_counter(), training.scheduler.get_last_lr()[0]
        train = train_epoch(training, data, experiment, echo)
        if not math.isfinite(train.loss):
            raise CourseError(
                f"{experiment.name}, seed {seed}: the training loss became {train.loss} in epoch {epoch}, so the run was stopped and "
                f"nothing of this epoch kept. Try a lower learning rate than {experiment.lr:g} (--lr {experiment.lr / 10:g})."
            )
        score = evaluate(model, held, data.mean, data.std)
        if experiment.schedule == "plateau":
            training.scheduler.step(score.loss)
        row = {"epoch": epoch, "lr": lr}
        row |= {f"train_{key}": value for key, value in train._asdict().items()}
        row |= {f"{part}_{key}": value for key, value in score._asdict().items()}
        row["seconds"] = time.perf_counter() - start
        training.history.append(row)
        if experiment.patience and kept(training.history, experiment) is row:
            training.best = {key: value.clone() for key, value in model.state_dict().items()}
        if echo:
            print(describe(row), flush=True)
        after_epoch(training)
    if training.best:
        model.load_state_dict(training.best)
    return training.history


def kept(history: list[Row], experiment: Experiment) -> Row:
    """The epoch whose weights are the result: the last, or under early stopping the first of the best on validation images."""
    if not experiment.patience:
        return history[-1]
    return max(history, key=lambda row: row["valid_correct"] if experiment.keep == "accuracy" else -row["valid_loss"])


def train_epoch(training: Training, data: Dataset, experiment: Experiment, echo: bool = False) -> Score:
    """One pass over the training set in a new random order. Sums stay on the device; nothing waits for it but the bar.

    Of several processes each draws the same order and takes its share of every batch (see utils.distributed); all return
    the score over the whole set.
    """
    model, optimizer, scheduler = training.trained.train(), training.optimizer, training.scheduler
    images, labels = data.train
    order = torch.randperm(len(labels), generator=training.order).to(labels.device)
    loss_sum = torch.zeros((), device=labels.device)
    correct = torch.zeros((), device=labels.device, dtype=torch.int64)
    deform = {"rotate": experiment.rotate, "scale": experiment.scale, "shear": experiment.shear}
    with progress(order.split(experiment.batch_size), echo) as batches:
        for batch_id, rows in enumerate(batches):
            part, factor = distributed.share(len(rows))  # of one process: all of it, and 1
            mine = rows[part]
            batch = images.index_select(0, mine)
            if experiment.fresh:  # rows 2i are upright, rows 2i + 1 rotated
                batch = voxels.draw(batch.squeeze(1), mine % 2 == 1, training.augment, **deform)
            else:
                batch = affine(scaled(batch), training.augment, shift=experiment.shift, **deform, part=part, whole=len(rows))
            logits = model(batch.sub_(data.mean).div_(data.std))
            loss = F.cross_entropy(logits, labels[mine], label_smoothing=experiment.label_smoothing) * factor
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if experiment.schedule != "plateau":
                scheduler.step()
            loss = loss.detach()
            if experiment.label_smoothing:  # what is logged is the plain cross-entropy, so that the curves of two recipes compare
                loss = F.cross_entropy(logits.detach(), labels[mine]) * factor
            loss_sum += loss * len(rows)
            correct += (logits.argmax(1) == labels[mine]).sum() * (factor > 0)
            if not batches.disable and (loss.device.type == "cpu" or batch_id + 1 == len(batches)):
                batches.set_description(f"loss={loss.item():.4f} batch_id={batch_id}", refresh=False)
    distributed.end_epoch(training.model, loss_sum, correct)
    return Score(loss_sum.item() / distributed.world() / len(labels), int(correct), len(labels))


@contextmanager
def progress(batches, echo: bool):
    """A progress bar over batches in the reference's form; silent where nobody watches (neither a terminal nor a notebook)."""
    watched = sys.stdout.isatty() or "ipykernel" in sys.modules
    with tqdm(batches, disable=not (echo and watched), file=sys.stdout, mininterval=0.25, ncols=88) as bar:
        yield bar


def describe(row: Row) -> str:
    """A row as log lines: `Epoch 1: Train set: Average loss: 0.3854, Accuracy: 52814/60000 (88.02%)` and so on."""

    def part(key: str) -> str:
        correct, total = int(row[f"{key}_correct"]), int(row[f"{key}_total"])
        return f"Average loss: {row[f'{key}_loss']:.4f}, Accuracy: {correct}/{total} ({100 * correct / total:.2f}%)"

    held, name = ("test", "Test set: ") if "test_loss" in row else ("valid", "Valid set:")
    head = f"Epoch {int(row['epoch'])}: "
    return f"{head}Train set: {part('train')}\n{' ' * len(head)}{name} {part(held)}, LR = [{row['lr']:.4g}]"
