"""Every recipe of the course, one entry each: the next experiment is the delta to its predecessor."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields, replace

KINDS = {
    "mnist3d": "voxels",
    "mnist3d_all": "voxels",
    "mnist3d_published": "voxels",
}  # of data sets; all others hold images
OPTIMIZERS = ("adam", "adamw", "sgd", "heavy_ball")
SCHEDULES = ("constant", "step", "one_cycle", "plateau")
RANGES = {  # field → lowest and highest value that a run could use
    "epochs": (1, 100_000),
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
    """Everything that, with a seed, decides the trained weights, and nothing else. Every field is a flag of train.py, its comment the help.

    The default of a field that is added later must be what recipes did before: an older log, which lacks it, then means what it did.
    """

    model: str  # a network of utils/models.py, with its arguments if it takes any: separable(width=24)
    data: str = "mnist"  # a name that utils.data.datasets.load knows
    normalize: bool = True  # to mean 0 and standard deviation 1; otherwise the network sees 0…1
    valid: int = 0  # training images held out for choices (pinned split); 0 trains on all and tests every epoch
    epochs: int = 15  # passes over the training images
    images: int = 0  # how many training images an epoch draws, others in each; 0: all
    patience: int = 0  # stop after so many epochs that are no better on the held-out images and keep the best one's weights; 0: the last's
    keep: str = "accuracy"  # by what early stopping calls an epoch better: accuracy or loss
    batch_size: int = 1024  # images per step
    optimizer: str = "adam"  # adam, adamw, sgd (Nesterov's momentum) or heavy_ball (SGD with classical momentum)
    lr: float = 0.01  # learning rate; the peak, for one_cycle
    weight_decay: float = 0.0  # of the optimizer; also --l2
    decay_vectors: bool = True  # whether weight decay also pulls at biases and batch norm's factors
    momentum: float = 0.9  # of sgd and heavy_ball; 0 is plain SGD
    schedule: str = "step"  # constant, step (a tenth from epoch `drop_at`), one_cycle, or plateau (half, at the fourth epoch no better)
    drop_at: int = 12  # the epoch from which `step` takes a tenth
    warmup: float = 0.3  # one_cycle: fraction of all steps that climb to the peak
    average: float = 0.0  # test and keep the weights' running average over the steps, with this decay per step; 0: the last weights
    dropout: float = 0.0  # fraction of features set to 0 in training
    label_smoothing: float = 0.0  # fraction of each label that is spread over all classes
    rotate: float = 0.0  # augmentation, each drawn uniformly per image: ± degrees
    shift: float = 0.0  # ± pixels, each axis on its own
    scale: float = 0.0  # ± fraction of the size; of voxels along each axis on its own
    shear: float = 0.0  # ± degrees
    elastic: float = 0.0  # standard deviation in pixels of a smooth random displacement
    fresh: bool = False  # voxels: draw each grid anew whenever it is used, from its digit (which the augmentation deforms before)
    stroke: float = 0.0  # images: up to so far towards a pen that is two pixels wider, or thinner, drawn uniformly per image
    erase: float = 0.0  # images: side in pixels of a square that is blackened, anywhere in each image
    start: str = ""  # NAME-HASH of a published network, eight letters of its file's SHA-256: training begins with its weights
    levels: int = 0  # round weights, in training too, to so many values, an odd number (quantize.levels_of); 0: float32
    bfloat16: bool = False  # training multiplies numbers of 8 significant bits, where a device is built for it (steps.forward)

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
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"{name} = {value}: expected {low:g} to {high:g}")
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("keep", ("accuracy", "loss"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {getattr(self, name)!r}: expected one of {', '.join(known)}")
        for rejected, why in self._contradictions():
            if rejected:
                raise ValueError(why)

    def _contradictions(self) -> list[tuple[bool, str]]:
        """Which combinations of fields can't be meant, and what to say of them."""
        deformed = self.rotate or self.scale or self.shear or self.elastic
        return [
            (
                self.levels and not self.levels % 2,
                f"levels = {self.levels}: expected an odd number, as many values below 0 as above",
            ),
            (
                self.start and self.valid,
                f"start = {self.start!r} with valid = {self.valid}: a published network has learned the images that would be held out",
            ),
            (self.levels == 1, "levels = 1: expected 3 or more, or 0 for weights that are not rounded"),
            (
                self.patience and not self.valid,
                f"patience = {self.patience} with valid = 0: early stopping needs held-out images, never the test set's",
            ),
            (
                self.schedule == "plateau" and not self.valid,
                "schedule = 'plateau' with valid = 0: it goes by the loss of held-out images, never by the test set's",
            ),
            (
                self.fresh and self.kind != "voxels",
                f"data = {self.data!r} with fresh: expected mnist3d or mnist3d_all, whose grids it is about",
            ),
            (
                self.fresh and self.shift,
                f"shift = {self.shift} with fresh: a grid is cut out around its cloud, wherever that lies",
            ),
            (
                self.data == "mnist3d_all" and not self.fresh,
                "data = 'mnist3d_all' without fresh: its grids are only drawn, never stored",
            ),
            (
                self.data == "mnist3d_published" and self.fresh,
                "data = 'mnist3d_published' with fresh: expected mnist3d, whose digits are known",
            ),
            (
                self.kind == "voxels" and not self.fresh and deformed,
                f"data = {self.data!r} with rotate, scale, shear or elastic: expected fresh, for only digits drawn anew can be deformed",
            ),
            (
                self.kind == "voxels" and (self.stroke or self.erase),
                f"data = {self.data!r} with stroke = {self.stroke:g}, erase = {self.erase:g}: expected 0, they are for images",
            ),
            (
                self.kind == "voxels" and self.valid % 2,
                f"valid = {self.valid} with data = {self.data!r}: expected an even number, for both grids of a digit stay together",
            ),
        ]

    @property
    def kind(self) -> str:
        """What the network sees: "images" or "voxels"."""
        return KINDS.get(self.data, "images")

    def drawn(self, images: int) -> int:
        """How many of so many training images an epoch sees."""
        return min(self.images or images, images)

    def changes(self, before: "Recipe") -> dict[str, tuple]:
        """What differs from another recipe: field → (its value there, its value here)."""
        return {name: (getattr(before, name), value) for name, value in asdict(self).items() if value != getattr(before, name)}

    def digest(self) -> str:
        """Eight letters that tell one recipe from another; fields at their default don't count, so a new field changes no digest."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Range:
    """Any number from low to high, drawn evenly, or evenly in its logarithm where high is four times low or more."""

    low: float
    high: float


@dataclass(frozen=True)
class Experiment:
    """A recipe and what is said about it. What its reference reports stands in references.json, under the experiment's name."""

    name: str
    recipe: Recipe
    teaches: str  # one line: what changes against the predecessor
    notebook: str = ""  # stem of the notebook that shows it
    seeds: int = 5  # how many are published
    weights: bool = True  # whether seed 0's are published; False for what only measures a difference
    search: dict[str, tuple | Range] = field(default_factory=dict, hash=False)  # field → its choices, or Range, for --search

    def with_recipe(self, **changes) -> "Experiment":
        """The same experiment with another recipe. Raises ValueError for a value that no run could use."""
        return replace(self, recipe=replace(self.recipe, **changes))

    @property
    def key(self) -> str:
        """NAME-DIGEST: this very recipe."""
        return f"{self.name}-{self.recipe.digest()}"

    @property
    def registered(self) -> bool:
        """Whether this is an experiment of the course with its recipe as it stands here."""
        return self.name in EXPERIMENTS and EXPERIMENTS[self.name].recipe == self.recipe

    @property
    def chooses_on_held_out(self) -> bool:
        """Whether it holds out images that its recipe in the course does not: a choice is being made, and the test set stays closed."""
        return self.recipe.valid > 0 and not self.registered


# What was tried for each recipe, and what held-out images said of it, stands in logs/trials/ and is shown by its notebook.

BASE = Experiment(
    "base",
    Recipe("base", batch_size=128, lr=0.006, schedule="one_cycle"),
    teaches="a plain network of 7,034 parameters learns its training set by heart",
    notebook="01_base",
)
DROPOUT = Experiment(
    "dropout",
    replace(BASE.recipe, dropout=0.2),
    teaches="one change: dropout before each pool",
    notebook="03_dropout",
)
# Adam leaves the augmented network a little short of what Nesterov's momentum reaches at a high rate; more augmentation than this costs
# more than it gives in 15 epochs.
BN_AUGMENTATION = Experiment(
    "bn_augmentation",
    replace(
        BASE.recipe,
        model="bn_augmentation",
        optimizer="sgd",
        lr=0.2,
        weight_decay=2e-4,
        rotate=10.0,
        shift=2.0,
        scale=0.1,
    ),
    teaches="batch norm, and copies of the digits that are rotated, shifted and scaled",
    notebook="04_bn_augmentation",
)
# What each of its changes does alone: the same network as `base` but for the part named, so that one thing changes at a time.
AUGMENTED = {"rotate": 10.0, "shift": 2.0, "scale": 0.1}
BATCH_NORM_ALONE = Experiment(
    "batch_norm_alone",
    replace(BASE.recipe, model="base(batch_norm=True)"),
    teaches="base with batch norm, and nothing else changed",
    notebook="04_bn_augmentation",
    seeds=3,
    weights=False,
)
AUGMENTATION_ALONE = Experiment(
    "augmentation_alone",
    replace(BASE.recipe, **AUGMENTED),
    teaches="base on rotated, shifted and scaled copies, and nothing else changed",
    notebook="04_bn_augmentation",
    seeds=3,
    weights=False,
)
# At bn_augmentation's rate of 0.2 this network collapses without batch norm (it answers one class for all images): the rate is halved.
OPTIMIZER_ALONE = Experiment(
    "optimizer_alone",
    replace(BASE.recipe, optimizer="sgd", lr=0.1, weight_decay=2e-4),
    teaches="base with SGD, its learning rate and weight decay, and nothing else changed",
    notebook="04_bn_augmentation",
    seeds=3,
    weights=False,
)
ALL_THREE = Experiment(
    "all_three",
    replace(BN_AUGMENTATION.recipe, model="base(batch_norm=True)"),
    teaches="base with batch norm, augmentation and SGD: bn_augmentation before one layer becomes wider",
    notebook="04_bn_augmentation",
    seeds=3,
    weights=False,
)
UNDER_20K = Experiment(
    "under_20k",
    replace(BN_AUGMENTATION.recipe, model="under_20k", epochs=19, dropout=0.1, shift=1.0),
    teaches="more parameters where they are cheap: wide 3×3 and 5×5 convolutions between 1×1 bottlenecks",
    notebook="07_under_20k",
)

MNIST_MEDIUM = Experiment(
    "mnist_medium",
    replace(BN_AUGMENTATION.recipe, model="mnist_medium", epochs=19, batch_size=64, lr=0.15),
    teaches="convolutions only: the average of each map decides, in three blocks",
    notebook="08_small_family",
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
        rotate=6.0,
        shift=1.5,
        scale=0.08,
    ),
    teaches="two blocks, the last convolution takes steps of two pixels",
    notebook="08_small_family",
)
MNIST_ULTRASMALL = Experiment(
    "mnist_ultrasmall",
    replace(MNIST_MEDIUM.recipe, model="mnist_ultrasmall", batch_size=128, lr=0.2),
    teaches="4,464 parameters: narrow, early to a quarter of the side",
    notebook="08_small_family",
)

# The references' own recipes; of small's seeds enough to ask what luck explains.
# Medium's says batch 128, but its log counts 938 batches an epoch: 64.
MNIST_MEDIUM_REFERENCE = Experiment(
    "mnist_medium_reference",
    Recipe("mnist_medium", epochs=19, batch_size=64, optimizer="heavy_ball", lr=0.04104, schedule="constant", dropout=0.1),
    teaches="mnist_medium by the reference's recipe",
    notebook="08_small_family",
    seeds=1,
)
MNIST_SMALL_REFERENCE = Experiment(
    "mnist_small_reference",
    replace(MNIST_MEDIUM_REFERENCE.recipe, model="mnist_small", batch_size=32, lr=0.061, dropout=0.02, rotate=5.0),
    teaches="mnist_small by the reference's recipe",
    notebook="08_small_family",
    seeds=20,
)
MNIST_ULTRASMALL_REFERENCE = Experiment(
    "mnist_ultrasmall_reference",
    replace(MNIST_SMALL_REFERENCE.recipe, model="mnist_ultrasmall", batch_size=64, lr=0.025),
    teaches="mnist_ultrasmall by the reference's recipe",
    notebook="08_small_family",
    seeds=1,
)

# The reference's recipe as it ran: its L2 of 1 never reached the optimizer. How it scales the images it does not say; on normalized ones
# the double softmax saturates in medium_cnn, and no gradient leads out of it.
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
    teaches="one convolution and a large linear layer; cross-entropy on top of a softmax",
    notebook="02_kernels",
    seeds=20,
)
MEDIUM_CNN = Experiment(
    "medium_cnn",
    replace(SMALL_CNN.recipe, model="medium_cnn"),
    teaches="a second convolution, and twice the parameters",
    notebook="02_kernels",
    seeds=3,
)
# The two repairs alone learn the training set by heart, whatever the weight decay; only augmentation takes them further.
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
        rotate=10.0,
        shift=1.0,
        scale=0.1,
    ),
    teaches="logits into the cross-entropy, weight decay that reaches the optimizer; then augmentation can help",
    notebook="06_two_mistakes",
    seeds=3,
)
# What each repair does alone, by the reference's recipe in everything else.
LOGITS_ALONE = Experiment(
    "logits_alone",
    replace(SMALL_CNN.recipe, model="small_cnn_logits"),
    teaches="small_cnn without its softmax, and nothing else changed",
    notebook="06_two_mistakes",
    seeds=3,
    weights=False,
)
WEIGHT_DECAY_ALONE = Experiment(
    "weight_decay_alone",
    replace(SMALL_CNN.recipe, weight_decay=1e-3),
    teaches="small_cnn with a weight decay that reaches the optimizer, and nothing else changed",
    notebook="06_two_mistakes",
    seeds=3,
    weights=False,
)
BOTH_REPAIRS = Experiment(
    "both_repairs",
    replace(LOGITS_ALONE.recipe, weight_decay=1e-3),
    teaches="logits and weight decay together, and nothing else changed",
    notebook="06_two_mistakes",
    seeds=3,
    weights=False,
)
BOTH_AND_AUGMENTATION = Experiment(
    "both_and_augmentation",
    replace(BOTH_REPAIRS.recipe, rotate=10.0, shift=1.0, scale=0.1),
    teaches="both repairs, and augmentation",
    notebook="06_two_mistakes",
    seeds=3,
    weights=False,
)
MEDIUM_CNN_REPAIRED = Experiment(
    "medium_cnn_repaired",
    replace(SMALL_CNN_REPAIRED.recipe, model="medium_cnn_logits"),
    teaches="the same two repairs in medium_cnn",
    notebook="06_two_mistakes",
    seeds=3,
)

# A little more than half of the images are enough, where the rate climbs for nearly half of the steps. Label smoothing is what so short
# a training gains most from. Larger batches mean fewer steps and less time, but more images to the same accuracy.
SPRINT = Experiment(
    "sprint",
    Recipe(
        "sprint",
        epochs=1,
        images=33_000,
        batch_size=128,
        optimizer="sgd",
        lr=0.3,
        weight_decay=3e-4,
        decay_vectors=False,
        schedule="one_cycle",
        warmup=0.45,
        label_smoothing=0.1,
    ),
    teaches="99 % in the least time: not even one epoch of a network built for speed",
    notebook="12_sprint",
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
        optimizer="sgd",
        lr=0.4,
        weight_decay=5e-4,
        schedule="one_cycle",
        label_smoothing=0.1,
        rotate=10.0,
        shift=1.0,
        scale=0.1,
    ),
    teaches="99.4 % in the least time: three whole epochs, with rotated, shifted and scaled copies",
    notebook="12_sprint",
    seeds=20,
    search={
        "lr": Range(0.2, 0.8),
        "weight_decay": (2e-4, 5e-4, 1e-3),
        "label_smoothing": Range(0.05, 0.1),
        "batch_size": (128, 192),
    },
)

# 15 % of the digits are held out, the epoch of the lowest validation loss is kept.
VOXEL_REFERENCE = Experiment(
    "voxel_reference",
    Recipe(
        "voxel_reference",
        data="mnist3d",
        valid=1500,
        epochs=80,
        patience=80,
        keep="loss",
        batch_size=64,
        lr=1e-3,
        schedule="plateau",
        dropout=0.25,
    ),
    teaches="the third dimension: convolutions over colored voxels, and a linear layer that learns them by heart",
    notebook="13_voxels",
    seeds=2,
)
VOXEL_DENSITY = Experiment(
    "voxel_density",
    replace(VOXEL_REFERENCE.recipe, model="voxel_density"),
    teaches="the same without the color map, which adds no information",
    notebook="13_voxels",
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
    teaches="each body is turned face-on by its principal axes, and every epoch draws new copies of the same 5,000 digits",
    notebook="14_principal_view",
    seeds=3,
)
VOXEL_MORE_DIGITS = Experiment(
    "voxel_more_digits",
    replace(VOXEL_BEST.recipe, data="mnist3d_all", epochs=3),
    teaches="extra data: the same network and number of batches, but clouds of all 60,000 training digits of MNIST",
    notebook="14_principal_view",
    seeds=2,
)

# The frontier: the fewest parameters that reach what an experiment is named for, and the best of so many parameters, or of one core in an
# evening.
# Networks this small need time, a high rate that falls to nothing, and augmentation that fits both: what is too much for ten epochs is too
# little for sixty, in which even the smallest one begins to learn by heart. frontier_99 trains at the edge: at a rate of 0.4 one of five
# seeds broke off, for the loss was no longer finite.
FRONTIER_99 = Experiment(
    "frontier_99",
    replace(MNIST_SMALL.recipe, model="recurrent(position_weighted=True)", epochs=60, batch_size=128),
    teaches="99 % with as few numbers as possible: one separable convolution, used six times, and two thin kernels that weigh places",
    notebook="09_fewest_parameters",
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
    teaches="99.4 % below 3,600 parameters: depthwise-separable residual blocks, and two thin kernels that weigh places",
    notebook="09_fewest_parameters",
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
FRONTIER_99_5 = Experiment(
    "frontier_99_5",
    replace(
        FRONTIER_99_4.recipe,
        model="separable(stem=16,width=32,position_weighted=True)",
        epochs=80,
        rotate=8.0,
        scale=0.1,
    ),
    teaches="99.5 % below 6,000 parameters: the same, a third wider",
    notebook="09_fewest_parameters",
    search=FRONTIER_99_4.search
    | {
        "model": (
            "separable(stem=10,width=28,position_weighted=True)",
            "separable(stem=16,width=32,position_weighted=True)",
        )
    },
)
# The fewest bytes instead of the fewest parameters: weights of few levels. A trained network learns to do with fifteen of them in a few
# epochs; all seeds begin with seed 0 of frontier_99_5, so they differ in what rounding and further training do, not in the first training.
# Smaller files hold more of a network that is a little wider and has still fewer levels, and is trained with them from the beginning.
BYTES_99_5 = Experiment(
    "bytes_99_5",
    replace(FRONTIER_99_5.recipe, start="frontier_99_5-60020dd0", levels=15, epochs=4, lr=0.01),
    teaches="small enough for one QR code: frontier_99_5, trained on with weights that are whole numbers from -7 to 7",
    notebook="10_bytes",
)
BYTES_99_4 = Experiment(
    "bytes_99_4",
    replace(FRONTIER_99_4.recipe, model="separable(stem=16,width=26,position_weighted=True)", levels=7, epochs=20, lr=0.1),
    teaches="below 1,700 bytes: wider than frontier_99_4, with weights from -3 to 3 from the first step on",
    notebook="10_bytes",
    search={
        "model": ("separable(stem=15,width=23,position_weighted=True)", "separable(stem=16,width=26,position_weighted=True)"),
        "levels": (5, 7, 9, 11, 15),
        "lr": (0.1, 0.4),
    },
)
BYTES_99 = Experiment(
    "bytes_99",
    replace(BYTES_99_4.recipe, model="separable(stem=8,width=16,position_weighted=True)", epochs=24),
    teaches="below 900 bytes: the same, narrower",
    notebook="10_bytes",
    search=BYTES_99_4.search | {"model": ("recurrent(position_weighted=True)", "separable(stem=8,width=16,position_weighted=True)")},
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
        rotate=18.0,
        shift=3.0,
        scale=0.16,
        shear=12.0,
        bfloat16=True,
    ),
    teaches="the best of up to 100,000 parameters: five layers of 5×5 at full resolution, and a weight for each place that is left",
    notebook="11_best_network",
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
FRONTIER_BEST = Experiment(
    "frontier_best",
    replace(FRONTIER_100K.recipe, model="unpadded(width=32, step=32, depth=5, kernel=5)"),
    teaches="the best single network that one core trains in an evening: the same five layers, twelve times the parameters",
    notebook="11_best_network",
    search=FRONTIER_100K.search | {"model": ("residual(width=64)", "unpadded", "unpadded(width=32, step=32, depth=5, kernel=5)")},
)
MNIST_SMALL_LONG = Experiment(
    "mnist_small_long",
    replace(FRONTIER_99_4.recipe, model="mnist_small"),
    teaches="mnist_small without its reference's limit of 19 epochs",
    notebook="09_fewest_parameters",
    seeds=3,
)
VOXEL_FRONTIER = Experiment(
    "voxel_frontier",
    replace(VOXEL_BEST.recipe, epochs=72, batch_size=64, lr=2e-3, average=0.998, elastic=0.4),
    teaches="the best of 5,000 digits as voxels: bodies that bend, four times the steps, and averaged weights",
    notebook="14_principal_view",
    seeds=3,
)

EXPERIMENTS = {entry.name: entry for entry in tuple(globals().values()) if isinstance(entry, Experiment)}
