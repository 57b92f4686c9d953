"""The only training loop and the only test loop."""

import copy
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler, swa_utils
from tqdm import tqdm

from .. import CourseError, switch
from ..data.augment import augmentation, scaled
from ..data.datasets import Dataset, Split
from ..experiments import Recipe
from ..files import one_line
from . import ddp, devices, quantize

Row = dict[str, float]  # one epoch, the columns of logs/NAME/seedK.csv


class Diverged(CourseError):
    """A loss is not finite; the message states which loss and which epoch."""


class CheckpointMismatch(CourseError):
    """A state that does not fit the network and recipe; the message states the difference."""


@dataclass(frozen=True)
class Score:
    """loss: mean cross-entropy; correct of total images. Raises ValueError for impossible values."""

    loss: float
    correct: int
    total: int

    def __post_init__(self):
        if self.loss < 0 or not 0 <= self.correct <= self.total or not 0 < self.total < 2**53:
            found = f"correct = {self.correct} of total = {self.total}"
            raise ValueError(f"{found}: expected 0 to total, and a total; loss = {self.loss}")

    @property
    def percent(self) -> float:
        return 100 * self.correct / self.total


def normalize(images: Tensor, mean: float, std: float) -> Tensor:
    """uint8 0…255, or float 0…1 → float32 of mean 0 and standard deviation 1 over the training set."""
    return scaled(images).sub(mean).div_(std)


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, mean: float, std: float, batch_size: int = 1000) -> Tensor:
    """The network's (N, 10) output for (N, 1, 28, 28) uint8 images, in eval mode; draws no random number."""
    was_training = model.training
    model.eval()
    logits = torch.cat([model(normalize(batch, mean, std)) for batch in images.split(batch_size)])
    model.train(was_training)
    return logits


def evaluate(model: nn.Module, split: Split, mean: float, std: float) -> Score:
    """Mean cross-entropy and correct / total over the whole split."""
    logits, labels = predict(model, split.images, mean, std).cpu(), split.labels.cpu()  # not every device has float64
    return Score(F.cross_entropy(logits.double(), labels).item(), int((logits.argmax(1) == labels).sum()), len(split))


def cross_entropies(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """The mean cross-entropy, plain and with smoothed labels: both results of F.cross_entropy to the last bit."""
    log_p = F.log_softmax(logits, 1)
    plain = F.nll_loss(log_p, targets)
    return plain, (1 - smoothing) * plain - log_p.sum(1).mean() * (smoothing / logits.shape[1]) if smoothing else plain


def forward(network: nn.Module, recipe: Recipe, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The network as training calls it: (N, C, ...) float32 → float32 logits. With recipe.bfloat16, its convolutions
    and linear layers multiply in torch.bfloat16 if the device has it; the weights stay float32. COURSE_COMPILE=1
    compiles it (torch.compile, with CUDA graphs), which changes the bits."""
    if switch("COURSE_COMPILE"):
        network = torch.compile(network, mode="reduce-overhead")
    if not (recipe.bfloat16 and devices.has_bfloat16(device)):
        return network

    def autocast(seen: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return network(seen).float()

    return autocast


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; one fused kernel for all parameters on a CPU or CUDA."""
    parameters = list(model.parameters())
    fused = parameters[0].device.type in ("cpu", "cuda")
    common = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": fused}
    if not recipe.decay_vectors:
        vectors = [parameter for parameter in parameters if parameter.ndim < 2]
        matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
        parameters = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    if recipe.optimizer in ("sgd", "heavy_ball"):
        nesterov = recipe.optimizer == "sgd" and recipe.momentum > 0
        return torch.optim.SGD(parameters, momentum=recipe.momentum, nesterov=nesterov, **common)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer](parameters, **common)


def make_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> lr_scheduler.LRScheduler:
    """The recipe's learning rate; `steps`: batches per epoch."""
    if recipe.schedule == "one_cycle":
        total, warmup = steps * recipe.epochs, recipe.warmup
        if warmup * total == 1:  # a warmup of length 0, by which it would be divided
            warmup *= 1 - 1e-12
        shape = {"pct_start": warmup, "cycle_momentum": False, "div_factor": 10, "final_div_factor": 100}
        return lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.lr, total_steps=total, **shape)
    if recipe.schedule == "plateau":
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=3)
    drops = [(recipe.drop_at - 1) * steps] if recipe.schedule == "step" else []
    return lr_scheduler.MultiStepLR(optimizer, drops)


class Training:
    """Everything that an epoch changes: network, optimizer, schedule, random states, and the rows so far.

    state_dict() and load_state_dict() contain all of it, so that a run continues bit for bit. If several processes
    train together (utils.training.ddp), all of them call state_dict(), because each has its own random state.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, seed: int, images: int):
        """images: the number of training images."""
        device = next(model.parameters()).device
        quantize.begin(model, recipe.levels)
        self.model = model
        self.recipe = recipe
        self.wrapped = ddp.wrap(model)  # the same network, for training
        self.forward = forward(self.wrapped, recipe, device)
        self.optimizer = make_optimizer(model, recipe)
        self.steps = math.ceil(recipe.drawn(images) / recipe.batch_size)  # of an epoch
        self.scheduler = make_scheduler(self.optimizer, recipe, self.steps)
        averaging = {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(recipe.average), "use_buffers": True}
        self.average = swa_utils.AveragedModel(model, **averaging) if recipe.average else None
        # order and augmentation have their own generators, which dropout, with the global one, can't affect
        self.order = torch.Generator().manual_seed(seed)
        self.numbers = torch.Generator(device).manual_seed(seed)
        self.augment = augmentation(recipe, self.numbers)
        self.loss_sum = torch.zeros((), device=device)  # over an epoch's images
        self.correct = torch.zeros((), device=device, dtype=torch.int64)
        self.history: list[Row] = []
        self.best: dict[str, Tensor] | None = None  # weights of the best validation epoch, for early stopping

    @property
    def tested(self) -> nn.Module:
        """The network whose accuracy counts: with the weights' running average if the recipe has one."""
        return self.average.module if self.average else self.model

    def state_dict(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "order": self.order.get_state(),
            "numbers": self.numbers.get_state(),
            "device": self.numbers.device.type,
            "processes": ddp.gather(ddp.random_state()),
            "history": self.history,
            "best": self.best,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from state_dict(), bit for bit on the same CPU or CUDA device. On another kind, augmentation's
        generator starts from the epoch's number, and dropout's from the seed. On MPS, dropout's always does.

        Raises an error of PyTorch's for a state of another network or optimizer.
        """
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.load_state_dict(state["average"])
        parameters = [one for group in self.optimizer.param_groups for one in group["params"]]
        for number, saved in state["optimizer"]["state"].items():
            tensors = {name: value for name, value in saved.items() if name != "step" and isinstance(value, Tensor)}
            saved |= {name: laid_out(value, parameters[number], name) for name, value in tensors.items()}
        for saved, own in zip(state["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True):
            saved["fused"] = own["fused"]  # the device's, not the checkpoint's
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.order.set_state(state["order"])
        self.history = list(state["history"])
        self.best = state["best"]
        if state["device"] == self.numbers.device.type:
            self.numbers.set_state(state["numbers"])
            if ddp.rank() < len(state["processes"]):  # else this process is new, and starts as it was seeded
                ddp.set_random_state(state["processes"][ddp.rank()])
        else:
            self.numbers.manual_seed(self.numbers.initial_seed() + len(self.history))


def laid_out(saved: Tensor, parameter: Tensor, name: str) -> Tensor:
    """A part of an optimizer's state in the memory layout of its parameter, without which a fused kernel crashes.
    Raises ValueError for another shape."""
    if saved.shape != parameter.shape:
        raise ValueError(f"the optimizer's {name} has the shape {tuple(saved.shape)}, not {tuple(parameter.shape)}")
    return torch.empty_like(parameter, dtype=saved.dtype).copy_(saved)


def fit(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    seed: int = 0,
    state: dict | None = None,
    after_epoch: Callable[[Training], None] = lambda training: None,
    echo: bool = True,
) -> list[Row]:
    """Train `model` in place for recipe.epochs and return one row per epoch.

    With recipe.patience, stop early and leave the weights of the best validation epoch; with recipe.average, leave the
    averaged weights, and with recipe.levels the rounded ones. Each epoch ends with the test set, or data.valid if
    images are held out. data: on the model's device. state: a Training.state_dict() to continue from. after_epoch:
    called after every epoch. echo: print progress and rows.

    Raises Diverged if a loss is not finite, and CheckpointMismatch for a state that does not fit.
    """
    training = Training(model, recipe, seed, len(data.train))
    if state:
        try:
            training.load_state_dict(state)
        except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:  # invalid states raise any
            raise CheckpointMismatch(one_line(f"{type(error).__name__}: {error}")) from error
    while not is_over(training.history, recipe):
        row = train_and_test(training, data, seed, echo)
        training.history.append(row)
        if recipe.patience and result_epoch(training.history, recipe) is row:
            training.best = {key: value.clone() for key, value in training.tested.state_dict().items()}
        after_epoch(training)  # before printing, which may fail
        if echo:
            print(describe(row), flush=True)
    model.load_state_dict(training.best or training.tested.state_dict())
    finish(model, recipe, data)
    return training.history


def finish(model: nn.Module, recipe: Recipe, data: Dataset) -> nn.Module:
    """The trained network as it is kept, in place: recalibrated, and rounded for its packed file, if the recipe says
    so."""
    if recipe.recalibrate:
        recalibrate(model, data.train.images[: recipe.recalibrate], data.mean, data.std)
    return quantize.end(model, recipe.levels)


@torch.no_grad()
def recalibrate(model: nn.Module, images: Tensor, mean: float, std: float) -> None:
    """Replace batch norm's running statistics, in place, by the means over batches of unchanged images; in eval mode.

    The running ones are of deformed copies, and of weights that an average or rounding has changed since.
    """
    model.eval()
    norms = [layer for layer in model.modules() if isinstance(layer, quantize.NORMS)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        norm.train()
    for batch in images.split(500):
        model(normalize(batch, mean, std))
    for norm, before in zip(norms, momentum, strict=True):
        norm.momentum = before
        norm.eval()


def is_over(history: list[Row], recipe: Recipe) -> bool:
    """Whether a run with these rows has finished its epochs, or its patience."""
    waited = len(history) - result_epoch(history, recipe)["epoch"] if history and recipe.patience else 0
    return len(history) >= recipe.epochs or waited >= recipe.patience > 0


def train_and_test(training: Training, data: Dataset, seed: int, echo: bool) -> Row:
    """One epoch: its row of the log. Raises Diverged if a loss is not finite."""
    recipe, epoch = training.recipe, len(training.history) + 1
    start, lr = time.perf_counter(), training.scheduler.get_last_lr()[0]
    train = train_epoch(training, data, echo)
    require_finite("training", train.loss, recipe, seed, epoch)
    part, split = ("valid", data.valid) if data.valid else ("test", data.test)
    tested = training.tested
    if recipe.levels or recipe.recalibrate:
        tested = finish(copy.deepcopy(tested), recipe, data)
    score = evaluate(tested, split, data.mean, data.std)
    require_finite({"valid": "validation"}.get(part, part), score.loss, recipe, seed, epoch)
    if recipe.schedule == "plateau":
        training.scheduler.step(score.loss)
    row = {"epoch": epoch, "lr": lr}
    row |= {f"train_{key}": value for key, value in asdict(train).items()}
    row |= {f"{part}_{key}": value for key, value in asdict(score).items()}
    return row | {"seconds": time.perf_counter() - start}


def require_finite(which: str, loss: float, recipe: Recipe, seed: int, epoch: int) -> None:
    """Raise Diverged for a loss that is not finite."""
    if not math.isfinite(loss):
        what = f"{recipe.model}, seed {seed}: the {which} loss became {loss} in epoch {epoch}"
        todo = f"Try a lower learning rate than {recipe.lr:g} (--lr {recipe.lr / 10:g})."
        raise Diverged(f"{what}, so the run was stopped and nothing of this epoch kept. {todo}")


def result_epoch(history: list[Row], recipe: Recipe) -> Row:
    """The epoch whose weights are the result: the last, or under early stopping the first of the best ones."""
    if not recipe.patience:
        return history[-1]
    return max(history, key=lambda row: row["valid_correct"] if recipe.keep == "accuracy" else -row["valid_loss"])


def train_epoch(training: Training, data: Dataset, echo: bool = False) -> Score:
    """One pass over the recipe's share of the training set, in a new order. Only a progress bar waits for the device.

    Several processes draw the same order, and each takes its shard of every batch (see utils.training.ddp). All return
    the score over all of it, with the plain cross-entropy even if the recipe smooths labels.
    """
    labels = data.train.labels
    order = torch.randperm(len(labels), generator=training.order)[: training.recipe.drawn(len(labels))]
    order = order.to(labels.device)
    training.wrapped.train()
    training.loss_sum.zero_()
    training.correct.zero_()
    with progress(order.split(training.recipe.batch_size), echo) as batches:
        for batch_id, rows in enumerate(batches):
            loss = train_batch(training, data, rows)
            if training.recipe.schedule != "plateau":
                training.scheduler.step()
            if training.average:
                training.average.update_parameters(training.model)
            if not batches.disable and (loss.device.type == "cpu" or batch_id + 1 == len(batches)):
                batches.set_description(f"loss={loss.item():.4f} batch_id={batch_id}", refresh=False)
    ddp.reduce_epoch(training.model, training.loss_sum, training.correct)
    if training.average:
        ddp.reduce_epoch(training.tested)
    return Score(training.loss_sum.item() / ddp.world_size() / len(order), int(training.correct), len(order))


def train_batch(training: Training, data: Dataset, rows: Tensor) -> Tensor:
    """One step of the optimizer; returns the batch's plain cross-entropy. Nothing here waits for the device."""
    shard, factor = ddp.shard(len(rows))  # of one process: all of it, and 1
    batch = training.augment(data.train.images.index_select(0, rows), rows, shard)
    targets = data.train.labels[rows[shard]]
    logits = training.forward(normalize(batch, data.mean, data.std))
    plain, loss = cross_entropies(logits, targets, training.recipe.label_smoothing)
    training.optimizer.zero_grad()
    (loss * factor).backward()
    training.optimizer.step()
    with torch.no_grad():
        training.loss_sum += plain * factor * len(rows)
        if factor:
            training.correct += (logits.argmax(1) == targets).sum()
    return plain.detach()


def progress(batches: Sequence[Tensor], echo: bool) -> tqdm:
    """A progress bar over batches in the reference's form; silent outside a terminal or a notebook."""
    watched = (sys.stdout is not None and sys.stdout.isatty()) or "ipykernel" in sys.modules
    return tqdm(batches, disable=not (echo and watched), file=sys.stdout, mininterval=0.25, ncols=88)


def describe(row: Row) -> str:
    """A row as log lines: `Epoch 1: Train set: Average loss: 0.3854, Accuracy: 52814/60000 (88.02%)` and so on."""

    def part(key: str) -> str:
        correct, total = int(row[f"{key}_correct"]), int(row[f"{key}_total"])
        return f"Average loss: {row[f'{key}_loss']:.4f}, Accuracy: {correct}/{total} ({100 * correct / total:.2f}%)"

    held, name = ("test", "Test set: ") if "test_loss" in row else ("valid", "Valid set:")
    head = f"Epoch {int(row['epoch'])}: "
    return f"{head}Train set: {part('train')}\n{' ' * len(head)}{name} {part(held)}, LR = [{row['lr']:.4g}]"
