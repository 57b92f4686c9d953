"""All experiments of the course. Each entry states only what differs from its predecessor."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace

# of data sets; all others hold images
KINDS = {"mnist3d": "voxels", "mnist3d_all": "voxels", "mnist3d_published": "voxels"}
FRESH = ("mnist3d", "mnist3d_all")  # of which the digits are known, so that new grids can be drawn
AUGMENTATION = ("rotate", "shift", "scale", "shear", "elastic", "stroke", "erase")
FOR_IMAGES = ("shift", "stroke", "erase")  # alone, not for grids
OPTIMIZERS = ("adam", "adamw", "sgd", "heavy_ball")
SCHEDULES = ("constant", "step", "one_cycle", "plateau")
RANGES = {  # field → lowest and highest value that a run could use
    "epochs": (1, 10_000),  # the rows of the longest log, which is read in a moment
    "images": (0, 100_000_000),
    "batch_size": (1, 1_000_000),
    "valid": (0, 1_000_000),
    "patience": (0, 100_000),
    "drop_at": (1, 100_000),
    "weight_decay": (0, 1e6),
    "lr": (1e-12, 1e6),
    "label_smoothing": (0, 1),
    "warmup": (0, 0.99),
    "momentum": (0, 0.9999),
    "dropout": (0, 0.99),
    "average": (0, 0.99999),
    "levels": (0, 255),
    "recalibrate": (0, 100_000_000),
    "rotate": (0, 360),
    "shift": (0, 28),
    "scale": (0, 0.99),
    "shear": (0, 89),
    "elastic": (0, 28),
    "stroke": (0, 1),
    "erase": (0, 28),
}


@dataclass(frozen=True)
class Recipe:
    """Everything that, together with a seed, determines the trained weights.

    Each field is a flag of train.py, and its comment is the help. A new field needs a default that keeps the old
    behavior, because older logs lack the field.
    """

    model: str  # a network of utils/models.py, with its arguments if it takes any: separable(width=24)
    data: str = "mnist"  # a name that utils.data.datasets.load knows
    normalize: bool = True  # to mean 0 and standard deviation 1; otherwise the network sees 0…1
    valid: int = 0  # training images held out for choices (pinned split); 0 trains on all and tests every epoch
    epochs: int = 15  # passes over the training images
    images: int = 0  # how many training images an epoch draws, others in each; 0: all
    # stop after this many epochs without held-out improvement, and keep the best epoch's weights; 0: the last's
    patience: int = 0
    keep: str = "accuracy"  # what early stopping compares: accuracy or loss
    batch_size: int = 1024  # images per step
    optimizer: str = "adam"  # adam, adamw, sgd (Nesterov's momentum) or heavy_ball (SGD with classical momentum)
    lr: float = 0.01  # learning rate; the peak, for one_cycle
    weight_decay: float = 0.0  # of the optimizer; also --l2
    decay_vectors: bool = True  # whether weight decay also applies to biases and batch norm's factors
    momentum: float = 0.9  # of sgd and heavy_ball; 0 is plain SGD
    # constant, step (a tenth from epoch `drop_at`), one_cycle, or plateau (half, at the fourth epoch no better)
    schedule: str = "step"
    drop_at: int = 12  # the epoch from which `step` takes a tenth
    warmup: float = 0.3  # one_cycle: fraction of all steps that climb to the peak
    # test and keep the weights' running average over the steps, with this decay per step; 0: the last weights
    average: float = 0.0
    dropout: float = 0.0  # fraction of features set to 0 in training
    label_smoothing: float = 0.0  # fraction of each label that is spread over all classes
    rotate: float = 0.0  # augmentation, each drawn uniformly per image: ± degrees
    shift: float = 0.0  # ± pixels, each axis on its own
    scale: float = 0.0  # ± fraction of the size; of voxels along each axis on its own
    shear: float = 0.0  # ± degrees
    elastic: float = 0.0  # standard deviation in pixels of a smooth random displacement
    fresh: bool = False  # voxels: build a new grid from the deformed digit each time it is used
    stroke: float = 0.0  # images: largest change toward a pen two pixels wider or thinner (0 to 1), uniform per image
    erase: float = 0.0  # images: side in pixels of a square set to black, anywhere in each image
    # NAME-HASH of a published network, eight letters of its file's SHA-256: training begins with its weights
    start: str = ""
    levels: int = 0  # round weights to this odd number of values, in training too (quantize.levels_of); 0: float32
    # test and keep the network with batch norm's statistics of this many unchanged training images; 0: the running ones
    recalibrate: int = 0
    bfloat16: bool = False  # train in bfloat16 on devices with hardware support for it (loops.forward)

    def __post_init__(self):
        """Raise ValueError, naming the field, for a value or a combination that no run could use."""
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type is float and type(value) is int:
                object.__setattr__(self, f.name, float(value))  # 1 and 1.0 are one recipe
            elif type(value) is not f.type:
                raise ValueError(f"{f.name} = {value!r}: expected {f.type.__name__}")
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:  # NaN fails, too
                raise ValueError(f"{name} = {str(value)[:40]}: expected {low:g} to {high:g}")
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("keep", ("accuracy", "loss"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {getattr(self, name)!r}: expected one of {', '.join(known)}")
        for why in self._contradictions():
            raise ValueError(why)

    def _contradictions(self) -> Iterator[str]:
        """A message for each invalid combination of fields."""
        data, held = f"data = {self.data!r}", f"valid = {self.valid}"
        if self.levels == 1 or (self.levels and not self.levels % 2):
            yield f"levels = {self.levels}: expected an odd number from 3 on, to include 0, or 0 for no rounding"
        if self.start and self.valid:
            yield f"start = {self.start!r} with {held}: a published network has learned the images to hold out"
        if (self.patience or self.schedule == "plateau") and not self.valid:
            found = f"patience = {self.patience}, schedule = {self.schedule!r} with {held}"
            yield f"{found}: early stopping and plateau need held-out images, never the test set's"
        if self.fresh and self.data not in FRESH:
            yield f"{data} with fresh: expected {' or '.join(FRESH)}, whose digits are known"
        if self.data == "mnist3d_all" and not self.fresh:
            yield f"{data} without fresh: its grids are never stored"
        if self.fresh and self.recalibrate:
            yield f"{data} with fresh and recalibrate = {self.recalibrate}: expected 0, for no grid is stored"
        if self.kind == "voxels":
            for name in FOR_IMAGES if self.fresh else AUGMENTATION:
                if getattr(self, name):
                    todo = "expected 0 (grids drawn with fresh can be rotated, scaled, sheared and deformed)"
                    yield f"{data} with {name} = {getattr(self, name):g}: {todo}"
            if self.valid % 2:
                yield f"{held} with {data}: expected an even number, to keep a digit's grids together"

    @property
    def kind(self) -> str:
        """What the network sees: "images" or "voxels"."""
        return KINDS.get(self.data, "images")

    def drawn(self, images: int) -> int:
        """How many training images an epoch uses, out of `images`."""
        return min(self.images or images, images)

    def changes(self, before: "Recipe") -> dict[str, tuple]:
        """What differs from another recipe: field → (its value there, its value here)."""
        pairs = {name: (getattr(before, name), value) for name, value in asdict(self).items()}
        return {name: (old, new) for name, (old, new) in pairs.items() if old != new}

    def digest(self) -> str:
        """Eight letters that identify a recipe; fields at their default don't count, so new fields change no digest."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Range:
    """Any number from low to high, log-uniform if high is at least four times low, else uniform."""

    low: float
    high: float


@dataclass(frozen=True)
class Experiment:
    """A recipe and its description. references.json lists what its reference reports, under the experiment's name."""

    name: str
    recipe: Recipe
    teaches: str  # one line: what changes against the predecessor
    notebook: str = ""  # stem of the notebook that shows it
    seeds: int = 5  # how many are published
    weights: bool = True  # whether weights are published; False for ablations
    search: dict[str, tuple | Range] = field(default_factory=dict, hash=False)  # --search: field → choices or Range

    def with_recipe(self, **changes) -> "Experiment":
        """The same experiment with another recipe. Raises ValueError for a value that no run could use."""
        return replace(self, recipe=replace(self.recipe, **changes))

    @property
    def key(self) -> str:
        """NAME-DIGEST, which identifies this recipe."""
        return f"{self.name}-{self.recipe.digest()}"

    @property
    def registered(self) -> bool:
        """Whether the course lists this experiment with this very recipe."""
        return self.name in EXPERIMENTS and EXPERIMENTS[self.name].recipe == self.recipe

    @property
    def chooses_on_held_out(self) -> bool:
        """Whether it holds out images that the course's recipe does not; such a run never uses the test set."""
        return self.recipe.valid > 0 and not self.registered


# logs/trials/ lists the trials for each recipe with their held-out results. The notebooks show them.

# The copies that augmentation draws, from the slightest to the strongest.
SLIGHT = {"rotate": 6.0, "shift": 1.5, "scale": 0.08}
USUAL = {"rotate": 10.0, "shift": 1.0, "scale": 0.1}
SHIFTED = {"rotate": 10.0, "shift": 2.0, "scale": 0.1}
STRONG = {"rotate": 18.0, "shift": 3.0, "scale": 0.16, "shear": 12.0}
ABLATION = {"seeds": 3, "weights": False}

BASE = Experiment(
    "base",
    Recipe("base", batch_size=128, lr=0.006, schedule="one_cycle"),
    "a plain network of 7,034 parameters memorizes its training set",
    "01_base",
)
DROPOUT = Experiment("dropout", replace(BASE.recipe, dropout=0.2), "one change: dropout before each pool", "03_dropout")
# Nesterov's momentum at a high rate is slightly better than Adam for the augmented network. In 15 epochs, more
# augmentation than this lowers the accuracy.
BN_AUGMENTATION = Experiment(
    "bn_augmentation",
    replace(BASE.recipe, model="bn_augmentation", optimizer="sgd", lr=0.2, weight_decay=2e-4, **SHIFTED),
    "batch norm, and copies of the digits that are rotated, shifted and scaled",
    "04_bn_augmentation",
)
# Ablations: `base` with one change each.
BATCH_NORM_ALONE = Experiment(
    "batch_norm_alone",
    replace(BASE.recipe, model="base(batch_norm=True)"),
    "base with batch norm, and nothing else changed",
    "04_bn_augmentation",
    **ABLATION,
)
AUGMENTATION_ALONE = Experiment(
    "augmentation_alone",
    replace(BASE.recipe, **SHIFTED),
    "base on rotated, shifted and scaled copies, and nothing else changed",
    "04_bn_augmentation",
    **ABLATION,
)
# At bn_augmentation's rate of 0.2, base collapses without batch norm: it predicts one class for all images. At 0.1, one
# of three seeds learned, one collapsed, and the loss of one became NaN. Hence a quarter of the rate.
OPTIMIZER_ALONE = Experiment(
    "optimizer_alone",
    replace(BASE.recipe, optimizer="sgd", lr=0.05, weight_decay=2e-4),
    "base with SGD, its learning rate and weight decay, and nothing else changed",
    "04_bn_augmentation",
    **ABLATION,
)
ALL_THREE = Experiment(
    "all_three",
    replace(BN_AUGMENTATION.recipe, model="base(batch_norm=True)"),
    "base with batch norm, augmentation and SGD: bn_augmentation before one layer becomes wider",
    "04_bn_augmentation",
    **ABLATION,
)
UNDER_20K = Experiment(
    "under_20k",
    replace(BN_AUGMENTATION.recipe, model="under_20k", epochs=19, dropout=0.1, **USUAL),
    "more parameters where they are cheap: wide 3×3 and 5×5 convolutions between 1×1 bottlenecks",
    "07_under_20k",
)

MNIST_MEDIUM = Experiment(
    "mnist_medium",
    replace(BN_AUGMENTATION.recipe, model="mnist_medium", epochs=19, batch_size=64, lr=0.15),
    "convolutions only: three blocks, then the average of each map",
    "08_small_family",
)
MNIST_SMALL = Experiment(
    "mnist_small",
    replace(
        MNIST_MEDIUM.recipe,
        model="mnist_small",
        lr=0.3,
        weight_decay=5e-5,
        decay_vectors=False,
        average=0.998,
        **SLIGHT,
    ),
    "two blocks; the last convolution has stride 2",
    "08_small_family",
)
MNIST_ULTRASMALL = Experiment(
    "mnist_ultrasmall",
    replace(MNIST_MEDIUM.recipe, model="mnist_ultrasmall", batch_size=128, lr=0.2),
    "4,464 parameters: narrow layers, and maps that become small early",
    "08_small_family",
)

# The references' own recipes. mnist_small has twenty seeds, to test whether a lucky seed explains the reported figure.
# The reference of mnist_medium states batches of 128, but its log counts 938 batches per epoch, which means 64.
MNIST_MEDIUM_REFERENCE = Experiment(
    "mnist_medium_reference",
    Recipe(
        "mnist_medium", epochs=19, batch_size=64, optimizer="heavy_ball", lr=0.04104, schedule="constant", dropout=0.1
    ),
    "mnist_medium by the reference's recipe",
    "08_small_family",
    seeds=1,
)
MNIST_SMALL_REFERENCE = Experiment(
    "mnist_small_reference",
    replace(MNIST_MEDIUM_REFERENCE.recipe, model="mnist_small", batch_size=32, lr=0.061, dropout=0.02, rotate=5.0),
    "mnist_small by the reference's recipe",
    "08_small_family",
    seeds=20,
)
MNIST_ULTRASMALL_REFERENCE = Experiment(
    "mnist_ultrasmall_reference",
    replace(MNIST_SMALL_REFERENCE.recipe, model="mnist_ultrasmall", batch_size=64, lr=0.025),
    "mnist_ultrasmall by the reference's recipe",
    "08_small_family",
    seeds=1,
)

# The reference's recipe as it ran: its L2 of 1 never reached the optimizer. It does not state how it scales the images.
# With normalized images, the double softmax of medium_cnn saturates, and its gradient vanishes.
SMALL_CNN = Experiment(
    "small_cnn",
    Recipe(
        "small_cnn",
        normalize=False,
        valid=10_000,
        epochs=50,
        patience=30,
        batch_size=64,
        optimizer="sgd",
        momentum=0.0,
        lr=0.5,
        schedule="constant",
    ),
    "one convolution and a large linear layer; cross-entropy on top of a softmax",
    "02_kernels",
    seeds=20,
)
MEDIUM_CNN = Experiment(
    "medium_cnn",
    replace(SMALL_CNN.recipe, model="medium_cnn"),
    "a second convolution, and twice the parameters",
    "02_kernels",
    seeds=3,
)
# With the two repairs alone, the networks memorize the training set at every weight decay tried. Augmentation adds the
# rest.
SMALL_CNN_REPAIRED = Experiment(
    "small_cnn_repaired",
    replace(
        SMALL_CNN.recipe,
        model="small_cnn_logits",
        normalize=True,
        epochs=20,
        lr=0.1,
        weight_decay=1e-3,
        schedule="one_cycle",
        **USUAL,
    ),
    "logits into the cross-entropy, weight decay that reaches the optimizer; then augmentation can help",
    "06_two_mistakes",
    seeds=3,
)
# Ablations: the reference's recipe with one repair, or with both.
LOGITS_ALONE = Experiment(
    "logits_alone",
    replace(SMALL_CNN.recipe, model="small_cnn_logits"),
    "small_cnn without its softmax, and nothing else changed",
    "06_two_mistakes",
    **ABLATION,
)
WEIGHT_DECAY_ALONE = Experiment(
    "weight_decay_alone",
    replace(SMALL_CNN.recipe, weight_decay=1e-3),
    "small_cnn with a weight decay that reaches the optimizer, and nothing else changed",
    "06_two_mistakes",
    **ABLATION,
)
BOTH_REPAIRS = Experiment(
    "both_repairs",
    replace(LOGITS_ALONE.recipe, weight_decay=1e-3),
    "logits and weight decay together, and nothing else changed",
    "06_two_mistakes",
    **ABLATION,
)
BOTH_AND_AUGMENTATION = Experiment(
    "both_and_augmentation",
    replace(BOTH_REPAIRS.recipe, **USUAL),
    "both repairs, and augmentation",
    "06_two_mistakes",
    **ABLATION,
)
MEDIUM_CNN_REPAIRED = Experiment(
    "medium_cnn_repaired",
    replace(SMALL_CNN_REPAIRED.recipe, model="medium_cnn_logits"),
    "the same two repairs in medium_cnn",
    "06_two_mistakes",
    seeds=3,
)

# About half of the images are enough if the rate climbs for nearly half of the steps. Such a short training gains most
# from label smoothing. Larger batches mean fewer steps and less time, but need more images for the same accuracy.
SPRINT = Experiment(
    "sprint",
    Recipe(
        "sprint",
        lr=0.3,
        weight_decay=3e-4,
        decay_vectors=False,
        optimizer="sgd",
        schedule="one_cycle",
        label_smoothing=0.1,
        epochs=1,
        images=33_000,
        batch_size=128,
        warmup=0.45,
    ),
    "99 % in the least time: not even one epoch of a network built for speed",
    "12_sprint",
    seeds=20,
    search={
        "images": (24_000, 30_000, 33_000, 36_000),
        "batch_size": (96, 128, 160, 192),
        "lr": Range(0.2, 0.6),
        "label_smoothing": (0.05, 0.1, 0.15),
        "warmup": (0.3, 0.4, 0.45, 0.5),
    },
)
SPRINT_994 = Experiment(
    "sprint_994",
    Recipe(
        "sprint",
        epochs=3,
        batch_size=192,
        lr=0.4,
        weight_decay=5e-4,
        optimizer="sgd",
        schedule="one_cycle",
        label_smoothing=0.1,
        **USUAL,
    ),
    "99.4 % in the least time: three whole epochs, with rotated, shifted and scaled copies",
    "12_sprint",
    seeds=20,
    search={
        "lr": Range(0.2, 0.8),
        "weight_decay": (2e-4, 5e-4, 1e-3),
        "label_smoothing": Range(0.05, 0.1),
        "batch_size": (128, 192),
    },
)

# 15 % of the digits are held out. The epoch with the lowest held-out loss is kept.
VOXEL_REFERENCE = Experiment(
    "voxel_reference",
    Recipe(
        "voxel_reference",
        data="mnist3d",
        batch_size=64,
        lr=1e-3,
        dropout=0.25,
        valid=1500,
        epochs=80,
        patience=80,
        keep="loss",
        schedule="plateau",
    ),
    "the third dimension: convolutions over colored voxels, and a linear layer that memorizes them",
    "13_voxels",
    seeds=2,
)
VOXEL_DENSITY = Experiment(
    "voxel_density",
    replace(VOXEL_REFERENCE.recipe, model="voxel_density"),
    "the same without the color map, which adds no information",
    "13_voxels",
    seeds=1,
    weights=False,
)
VOXEL_BEST = Experiment(
    "voxel_best",
    Recipe(
        "voxel_best",
        data="mnist3d",
        epochs=36,
        batch_size=128,
        optimizer="adamw",
        lr=3e-3,
        weight_decay=0.01,
        schedule="one_cycle",
        dropout=0.2,
        label_smoothing=0.05,
        scale=0.1,
        shear=6.0,
        fresh=True,
    ),
    "each solid is seen along its shortest principal axis, and every epoch draws new copies of the same 5,000 digits",
    "14_principal_view",
    seeds=3,
)

# The frontier: the fewest parameters that reach the accuracy in an experiment's name, and the best accuracy for a
# number of parameters. Such small networks need many epochs, a high rate that falls to 0, and augmentation that fits
# both. Augmentation that is too much for ten epochs is too little for sixty, in which even the smallest network begins
# to memorize. frontier_99 trains at the edge: with a rate of 0.4, the loss of one of five seeds became NaN.
FRONTIER_99 = Experiment(
    "frontier_99",
    replace(MNIST_SMALL.recipe, model="recurrent(position_weighted=True)", epochs=60, batch_size=128),
    "99 % with as few parameters as possible: a separable convolution, used six times, and two kernels that weight "
    "positions",
    "09_fewest_parameters",
    search={
        "model": (
            "recurrent(kernel=5)",
            "recurrent(position_weighted=True)",
            "recurrent(width=17,repeats=2,position_weighted=True)",
        ),
        "lr": Range(0.1, 0.4),
        "rotate": Range(0.0, 10.0),
        "shift": Range(0.0, 2.0),
        "scale": Range(0.0, 0.12),
    },
)
FRONTIER_99_4 = Experiment(
    "frontier_99_4",
    replace(FRONTIER_99.recipe, model="separable(stem=15,width=23,position_weighted=True)", lr=0.2),
    "99.4 % below 3,600 parameters: depthwise-separable residual blocks, and two depthwise kernels that weight "
    "positions",
    "09_fewest_parameters",
    search={
        "model": (
            "separable()",
            "separable(position_weighted=True)",
            "separable(stem=15,width=23,position_weighted=True)",
        ),
        "lr": Range(0.1, 0.4),
        "rotate": Range(2.0, 10.0),
        "shift": Range(0.5, 2.0),
        "scale": Range(0.02, 0.12),
        "elastic": Range(0.0, 0.5),
    },
)
WIDER = "separable(stem=10,width=28,position_weighted=True)", "separable(stem=16,width=32,position_weighted=True)"
FRONTIER_99_5 = Experiment(
    "frontier_99_5",
    replace(FRONTIER_99_4.recipe, model=WIDER[1], epochs=80, rotate=8.0, scale=0.1),
    "99.5 % below 6,000 parameters: the same, a third wider",
    "09_fewest_parameters",
    search=FRONTIER_99_4.search | {"model": WIDER},
)
# The fewest bytes instead of the fewest parameters: networks slightly wider than the frontier's, with weights of few
# levels from the first step on. For 99 %, 15 levels read more held-out images than a wider network with seven.
BYTES_99_5 = Experiment(
    "bytes_99_5",
    replace(
        FRONTIER_99_5.recipe, model="separable(stem=16,width=39,position_weighted=True)", levels=7, epochs=40, lr=0.1
    ),
    "small enough for one QR code: wider than frontier_99_5, with weights of seven levels",
    "10_bytes",
)
BYTES_99_4 = Experiment(
    "bytes_99_4",
    replace(BYTES_99_5.recipe, model="separable(stem=16,width=26,position_weighted=True)", epochs=80, scale=0.08),
    "below 1,700 bytes: wider than frontier_99_4, with the same seven levels",
    "10_bytes",
)
BYTES_99 = Experiment(
    "bytes_99",
    replace(
        FRONTIER_99.recipe, model="recurrent(width=20,repeats=2,position_weighted=True)", levels=15, recalibrate=10_000
    ),
    "below 900 bytes: wider than frontier_99, with weights of 15 levels",
    "10_bytes",
)
FRONTIER_100K = Experiment(
    "frontier_100k",
    replace(
        FRONTIER_99.recipe,
        model="unpadded(width=16,step=5,depth=5,kernel=5)",
        epochs=40,
        lr=0.2,
        weight_decay=5e-4,
        label_smoothing=0.05,
        bfloat16=True,
        **STRONG,
    ),
    "the best of up to 100,000 parameters: five 5×5 layers at full resolution, and a weight for each remaining "
    "position",
    "11_best_network",
    search={
        "model": ("residual(width=24)", "unpadded(width=16,step=5,depth=5,kernel=5)"),
        "lr": Range(0.1, 0.4),
        "weight_decay": (2e-4, 5e-4, 1e-3),
        "elastic": (0.0, 0.5, 1.0),
        "label_smoothing": (0.0, 0.05, 0.1),
        "dropout": (0.0, 0.1, 0.2),
        "stroke": Range(0.0, 0.5),
        "erase": Range(0.0, 6.0),
    },
)
LARGE = ("residual(width=64)", "unpadded", "unpadded(width=32, step=32, depth=5, kernel=5)")
FRONTIER_BEST = Experiment(
    "frontier_best",
    replace(FRONTIER_100K.recipe, model=LARGE[2]),
    "the best single network: the same five layers with twelve times the parameters",
    "11_best_network",
    search=FRONTIER_100K.search | {"model": LARGE},
)
MNIST_SMALL_LONG = Experiment(
    "mnist_small_long",
    replace(FRONTIER_99_4.recipe, model="mnist_small"),
    "mnist_small without its reference's limit of 19 epochs",
    "09_fewest_parameters",
    seeds=3,
)
VOXEL_FRONTIER = Experiment(
    "voxel_frontier",
    replace(
        VOXEL_BEST.recipe,
        model="voxel_best(turned=True)",
        epochs=72,
        batch_size=64,
        lr=2e-3,
        average=0.998,
        elastic=0.4,
    ),
    "the best accuracy with 5,000 digits: rotated solids read in four turns, elastic solids, and averaged weights",
    "14_principal_view",
    seeds=3,
)
VOXEL_MORE_DIGITS = Experiment(
    "voxel_more_digits",
    replace(VOXEL_FRONTIER.recipe, data="mnist3d_all", epochs=10),
    "extra data: the recipe of voxel_frontier for ten epochs with clouds of all 60,000 training digits of MNIST",
    "14_principal_view",
    seeds=2,
)

EXPERIMENTS = {entry.name: entry for entry in tuple(globals().values()) if isinstance(entry, Experiment)}
