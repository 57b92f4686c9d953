"""Every recipe of the course, one row each: the next experiment is the delta to its predecessor."""

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Experiment:
    """A recipe: everything that, with a seed, decides the trained weights. The recipe's fields are train.py's flags."""

    name: str
    model: str  # a key of utils.models.MODELS
    teaches: str  # one line: what changes against the predecessor
    notebook: str = ""  # stem of the notebook that runs it
    data: str = "mnist"  # a name that utils.data.load knows
    normalise: bool = True  # to mean 0 and standard deviation 1; otherwise the network sees 0…1
    valid: int = 0  # training images held out for choices (pinned split); 0 trains on all and tests every epoch
    epochs: int = 15
    patience: int = 0  # stop after so many epochs that are no better on the held-out images and keep the best one's weights; 0: the last's
    keep: str = "accuracy"  # by what early stopping calls an epoch better: accuracy or loss
    batch_size: int = 1024
    optimizer: str = "adam"  # adam, adamw, sgd (Nesterov's momentum) or heavy_ball (SGD with classical momentum)
    lr: float = 0.01  # the peak, for one_cycle
    weight_decay: float = 0.0
    momentum: float = 0.9  # of sgd and heavy_ball; 0 is plain SGD
    schedule: str = "step"  # constant, step (a tenth from epoch `drop_at`), one_cycle, or plateau (half, after three no better epochs)
    drop_at: int = 12
    warmup: float = 0.3  # one_cycle: fraction of all steps that climb to the peak
    dropout: float = 0.0
    label_smoothing: float = 0.0
    rotate: float = 0.0  # augmentation, each drawn uniformly per image: ± degrees
    shift: float = 0.0  # ± pixels, each axis on its own
    scale: float = 0.0  # ± fraction of the size; of voxels along each axis on its own
    shear: float = 0.0  # ± degrees
    fresh: bool = False  # voxels: draw each grid anew whenever it is used, from its digit (which the augmentation deforms before)
    seeds: int = 5  # how many are published
    weights: bool = True  # whether seed 0's are published; False for what only measures a difference
    reported_train: float | None = None  # the reference's own figures (%); the note says where they were printed otherwise
    reported_valid: float | None = None
    reported_test: float | None = None
    reported_note: str = ""

    def __post_init__(self):
        """Raise ValueError, naming the field, for a value that no run could use."""
        for field, low, high in (
            ("epochs", 1, 100_000),
            ("batch_size", 1, 1_000_000),
            ("valid", 0, 1_000_000),
            ("patience", 0, 100_000),
            ("weight_decay", 0, 1e6),
            ("label_smoothing", 0, 1),
        ):
            value = getattr(self, field)
            if not low <= value <= high:
                raise ValueError(f"{field} = {value}: expected {low} to {high}")
        for field in ("dropout", "warmup", "momentum"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"{field} = {getattr(self, field)}: expected 0 up to (not including) 1")
        if self.patience and not self.valid:
            raise ValueError(f"patience = {self.patience} with valid = 0: early stopping needs held-out images, never the test set's")
        if self.fresh and not self.data.startswith("mnist3d"):
            raise ValueError(f"data = {self.data!r} with fresh: expected mnist3d or mnist3d_all, whose grids it is about")
        if self.fresh and self.shift:
            raise ValueError(f"shift = {self.shift} with fresh: a grid is cut out around its cloud, wherever that lies")
        if self.data == "mnist3d_all" and not self.fresh:
            raise ValueError("data = 'mnist3d_all' without fresh: its grids are only drawn, never stored")
        if self.data == "mnist3d" and not self.fresh and (self.rotate or self.scale or self.shear):
            raise ValueError(
                "data = 'mnist3d' with rotate, scale or shear: expected fresh, for only digits that are drawn anew can be deformed"
            )
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr = {self.lr}: expected a positive number")
        if self.schedule == "plateau" and not self.valid:
            raise ValueError("schedule = 'plateau' with valid = 0: it goes by the loss of held-out images, never by the test set's")
        for field, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("keep", ("accuracy", "loss"))):
            if getattr(self, field) not in known:
                raise ValueError(f"{field} = {getattr(self, field)!r}: expected one of {', '.join(known)}")

    def recipe(self) -> dict:
        """The fields that decide the weights: all but the texts and the reference's figures."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in TEXTS}

    def changes(self, before: "Experiment") -> dict[str, tuple]:
        """What differs from another recipe: field → (its value there, its value here)."""
        return {name: (getattr(before, name), value) for name, value in self.recipe().items() if value != getattr(before, name)}


TEXTS = ("teaches", "notebook", "seeds", "weights", "reported_train", "reported_valid", "reported_test", "reported_note")
RETIRED = {"turn": False}  # fields that recorded recipes may still name, and the value at which they did nothing
OPTIMIZERS = ("adam", "adamw", "sgd", "heavy_ball")
SCHEDULES = ("constant", "step", "one_cycle", "plateau")


# Chosen on 10,000 held-out training images (--valid 10000), last epoch of 15, one seed each, warm-up 0.2 (published with 0.3: the trials
# ran before a defect was found that had kept the field from the schedule). Validation accuracy in %:
# batch 1,024, Adam 0.01, a tenth from epoch 12 (the reference's schedule) 98.92; one-cycle Adam from here on: batch 256 at 0.006
# 98.95, at 0.01 99.03, with label smoothing 0.1 98.85; batch 128 at 0.006 99.07 (kept), at 0.01 99.04. AdamW 0.005 with weight
# decay 0.3 98.81; SGD 0.03 with weight decay 5e-4 98.86; SGD 0.1 at batch 1,024 diverged.
BASE = Experiment(
    "base",
    model="base",
    notebook="01_base",
    teaches="a plain network of 7,034 parameters learns its training set by heart",
    batch_size=128,
    optimizer="adam",
    lr=0.006,
    schedule="one_cycle",
    reported_train=99.92,
    reported_test=99.17,
)

# Tried as above: batch 1,024 with the reference's schedule 98.90; one-cycle at batch 256 99.09; the recipe of BASE with
# dropout 0.1 99.10, with 0.2 99.14 and the smaller gap (kept).
DROPOUT = replace(
    BASE,
    name="dropout",
    notebook="02_dropout",
    teaches="one change: dropout before each pool",
    dropout=0.2,
    reported_train=99.43,
    reported_test=99.23,
    reported_note="printed as 98.43 / 99.44: the reference exchanged the blocks of its last two experiments, as its own log shows",
)

# Tried as above (rotate 10, shift 2, scale 0.1 unless said): AdamW 0.01 with weight decay 0.01 99.43, with shift 1 99.41, with scale
# 0.15 and shear 10 99.36; AdamW 0.02 99.37, its weights' running average 99.39; SGD 0.2 with weight decay 2e-4 99.46 (kept), with
# the last two epochs on images as they are 99.47 (no more than chance, so left out), SGD 0.3 with 5e-4 99.34, linear instead of
# cosine 99.37, batch 64 at 0.15 with scale 0.15 and shear 8 99.43. The code of the average, of the last epochs and of linear is not kept.
BN_AUGMENTATION = replace(
    DROPOUT,
    name="bn_augmentation",
    model="bn_augmentation",
    notebook="03_bn_augmentation",
    teaches="batch norm, and copies of the digits that are turned, moved and resized",
    optimizer="sgd",
    lr=0.2,
    weight_decay=2e-4,
    dropout=0.0,
    rotate=10.0,
    shift=2.0,
    scale=0.1,
    reported_train=98.43,
    reported_test=99.44,
    reported_note="printed as 99.43 / 99.23: the other half of that exchange",
)

# Chosen as above, 19 epochs: the recipe of BN_AUGMENTATION with the reference's dropout of 0.1 99.45, with shift 1 99.46 (kept).
UNDER_20K = replace(
    BN_AUGMENTATION,
    name="under_20k",
    model="under_20k",
    notebook="04_under_20k",
    teaches="more parameters where they are cheap: wide 3×3 and 5×5 convolutions between 1×1 bottlenecks",
    epochs=19,
    dropout=0.1,
    shift=1.0,
    reported_train=None,
    reported_test=99.40,
    reported_note="99.4 is the reference's target; it prints no result",
)

# Chosen as above, 19 epochs: the recipe of BN_AUGMENTATION 99.39, with batch 64 at 0.15 99.46 (kept).
MNIST_MEDIUM = replace(
    BN_AUGMENTATION,
    name="mnist_medium",
    model="mnist_medium",
    notebook="05_small_family",
    teaches="convolutions only: the average of each map decides, in three blocks",
    epochs=19,
    batch_size=64,
    lr=0.15,
    reported_train=None,
    reported_test=99.44,
    reported_note="the best of 19 epochs, the last is 99.32; the state dict that comes with it is untrained and scores 8.28",
)
# As MNIST_MEDIUM 99.26; batch 32 at 0.1 99.21, BN_AUGMENTATION's batch 128 at 0.2 99.25; with rotate 7, shift 1, scale 0.07 and weight
# decay 1e-4 99.18; taught by under_20k's answers (distillation at temperature 4, a tenth of the loss from the labels; code not kept) 99.23.
MNIST_SMALL = replace(
    MNIST_MEDIUM,
    name="mnist_small",
    model="mnist_small",
    teaches="two blocks, the last convolution takes steps of two pixels",
    reported_test=99.25,
    reported_note="the state dict that comes with it scores 99.15",
)
# As MNIST_MEDIUM 99.00; with BN_AUGMENTATION's batch 128 at 0.2 99.14 (kept).
MNIST_ULTRASMALL = replace(
    MNIST_MEDIUM,
    name="mnist_ultrasmall",
    model="mnist_ultrasmall",
    teaches="4,464 parameters: narrow, early to a quarter of the side",
    batch_size=128,
    lr=0.2,
    reported_test=99.00,
    reported_note="the state dict that comes with it is untrained and scores 9.58",
)

# The references' own recipes. Medium's says batch 128, but its log counts 938 batches an epoch: 64.
MNIST_MEDIUM_REFERENCE = replace(
    MNIST_MEDIUM,
    name="mnist_medium_reference",
    teaches="mnist_medium by the reference's recipe",
    batch_size=64,
    optimizer="heavy_ball",
    lr=0.04104,
    weight_decay=0.0,
    schedule="constant",
    dropout=0.1,
    rotate=0.0,
    shift=0.0,
    scale=0.0,
    seeds=1,
    reported_note="",
)
MNIST_SMALL_REFERENCE = replace(
    MNIST_MEDIUM_REFERENCE,
    name="mnist_small_reference",
    model="mnist_small",
    teaches="mnist_small by the reference's recipe",
    batch_size=32,
    lr=0.061,
    dropout=0.02,
    rotate=5.0,
    reported_test=99.25,
)
MNIST_ULTRASMALL_REFERENCE = replace(
    MNIST_SMALL_REFERENCE,
    name="mnist_ultrasmall_reference",
    model="mnist_ultrasmall",
    teaches="mnist_ultrasmall by the reference's recipe",
    batch_size=64,
    lr=0.025,
    reported_test=99.00,
)

# The reference's recipe as it ran: its L2 of 1 never reached the optimizer. How it scales the images it does not say. With normalised
# ones the double softmax saturates in medium_cnn: 97.48 in epoch 6 (validation), from epoch 10 on one class for all, and no way out.
SMALL_CNN = Experiment(
    "small_cnn",
    model="small_cnn",
    notebook="06_kernels",
    teaches="one convolution and a large linear layer; cross-entropy on top of a softmax",
    normalise=False,
    valid=10_000,
    epochs=50,
    patience=30,
    batch_size=64,
    optimizer="sgd",
    momentum=0.0,
    lr=0.5,
    schedule="constant",
    seeds=3,
    reported_test=98.50,
)
MEDIUM_CNN = replace(
    SMALL_CNN,
    name="medium_cnn",
    model="medium_cnn",
    teaches="a second convolution, and twice the parameters",
    reported_test=98.33,
)
# Best validation epoch of one seed each, one-cycle, 15 epochs. The two repairs alone learn the training set by heart: weight decay 1e-3 at
# 0.1 98.68, at 0.3 98.74; 3e-3 at 0.2 98.75; 5e-3 at 0.3 98.67; 1e-2 at 0.1 98.12. 2e-3 at 0.1 with label smoothing 0.1 98.78, with
# dropout 0.5 98.78, with shift 1 98.94. The recipe below, 20 epochs with turned, moved and resized copies, 99.07.
SMALL_CNN_REPAIRED = replace(
    SMALL_CNN,
    name="small_cnn_repaired",
    model="small_cnn_logits",
    teaches="logits into the cross-entropy, weight decay that reaches the optimizer; then augmentation can help",
    normalise=True,
    epochs=20,
    lr=0.1,
    weight_decay=1e-3,
    schedule="one_cycle",
    rotate=10.0,
    shift=1.0,
    scale=0.1,
    reported_test=None,
)
MEDIUM_CNN_REPAIRED = replace(
    SMALL_CNN_REPAIRED,
    name="medium_cnn_repaired",
    model="medium_cnn_logits",
    teaches="the same two repairs in medium_cnn",
)

# Validation accuracy, three or four seeds, one epoch: batch 128 at 0.3 99.00 (at 0.4 98.97, warm-up 0.2 98.94, 0.4 98.94, batch 96 98.97,
# batch 64 99.00, AdamW 0.01 98.91), with label smoothing 0.05 99.10, 0.1 99.13, 0.2 99.12; with 0.1 batch 192 at 0.4 99.11 (kept: fewer
# batches, less time), batch 256 at 0.5 99.02. Two epochs without smoothing 99.20 (two seeds, linear schedule).
SPRINT = Experiment(
    "sprint",
    model="sprint",
    notebook="08_sprint",
    teaches="99 % in the least time: one epoch of a network built for speed",
    epochs=1,
    batch_size=192,
    optimizer="sgd",
    lr=0.4,
    weight_decay=1e-3,
    schedule="one_cycle",
    label_smoothing=0.1,
    seeds=20,
)
# Validation accuracy, two to four seeds: eight epochs 99.58, six and five 99.45, four 99.40; four with weight decay 5e-4 99.43 (kept), with
# 2e-4 99.44; with lr 0.6, batch 128 at 0.3, label smoothing 0.05 or less augmentation 99.39 to 99.42. Three epochs with 5e-4 or 2e-4 99.41.
SPRINT_994 = replace(
    SPRINT,
    name="sprint_994",
    teaches="99.4 % in the least time: four epochs, with turned, moved and resized copies",
    epochs=4,
    weight_decay=5e-4,
    rotate=10.0,
    shift=1.0,
    scale=0.1,
)

# 15 % of the digits are held out, the epoch of the lowest validation loss is kept.
VOXEL_REFERENCE = Experiment(
    "voxel_reference",
    model="voxel_reference",
    notebook="07_voxels",
    teaches="the third dimension: convolutions over coloured voxels, and a linear layer that learns them by heart",
    data="mnist3d",
    valid=1500,
    epochs=80,
    patience=80,
    keep="loss",
    batch_size=64,
    optimizer="adam",
    lr=1e-3,
    schedule="plateau",
    dropout=0.25,
    seeds=2,
    reported_train=91.0,
    reported_valid=78.0,
    reported_test=75.0,
)
VOXEL_DENSITY = replace(
    VOXEL_REFERENCE,
    name="voxel_density",
    model="voxel_density",
    teaches="the same without the colour map, which adds no information",
    seeds=1,
    weights=False,
    reported_train=None,
    reported_valid=None,
    reported_test=None,
)
# Chosen on the 2,000 grids of 1,000 held-out digits, one seed, 24 epochs: this recipe 94.4 (upright 98.6, rotated 90.2). A network of
# 281,802 parameters whose first convolution has steps of two pixels: 12 epochs 91.8, 24 epochs 93.9, both without scale and shear. The same
# recipe for five convolutions over three dimensions (461,450 parameters, not kept), which must learn all three angles: 86.7.
VOXEL_BEST = replace(
    VOXEL_REFERENCE,
    name="voxel_best",
    model="voxel_best",
    teaches="each body is turned face-on by its principal axes, and every epoch draws new copies of the same 5,000 digits",
    valid=0,
    patience=0,
    keep="accuracy",
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
    seeds=3,
    reported_train=None,
    reported_valid=None,
    reported_test=78.2,
    reported_note="the best result of other authors that was found",
)
VOXEL_MORE_DIGITS = replace(
    VOXEL_BEST,
    name="voxel_more_digits",
    data="mnist3d_all",
    teaches="extra data: the same network and number of batches, but clouds of all 60,000 training digits of MNIST",
    epochs=3,
    seeds=2,
    reported_test=None,
    reported_note="",
)
EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        BASE,
        DROPOUT,
        BN_AUGMENTATION,
        UNDER_20K,
        MNIST_MEDIUM,
        MNIST_SMALL,
        MNIST_ULTRASMALL,
        MNIST_MEDIUM_REFERENCE,
        MNIST_SMALL_REFERENCE,
        MNIST_ULTRASMALL_REFERENCE,
        SMALL_CNN,
        MEDIUM_CNN,
        SMALL_CNN_REPAIRED,
        MEDIUM_CNN_REPAIRED,
        SPRINT,
        SPRINT_994,
        VOXEL_REFERENCE,
        VOXEL_DENSITY,
        VOXEL_BEST,
        VOXEL_MORE_DIGITS,
    )
}
