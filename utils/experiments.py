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
    valid: int = 0  # training images held out for choices (pinned split); 0 trains on all and tests every epoch
    epochs: int = 15
    batch_size: int = 1024
    optimizer: str = "adam"  # adam, adamw or sgd (Nesterov momentum 0.9)
    lr: float = 0.01  # the peak, for one_cycle
    weight_decay: float = 0.0
    schedule: str = "step"  # constant, step (a tenth from epoch `drop_at`) or one_cycle
    drop_at: int = 12
    warmup: float = 0.2  # one_cycle: fraction of all steps that climb to the peak
    dropout: float = 0.0
    label_smoothing: float = 0.0
    rotate: float = 0.0  # augmentation, each drawn uniformly per image: ± degrees
    shift: float = 0.0  # ± pixels, each axis on its own
    scale: float = 0.0  # ± fraction of the size
    shear: float = 0.0  # ± degrees
    reported_train: float | None = None  # the reference's own figures (%), as printed there
    reported_test: float | None = None
    reported_note: str = ""

    def __post_init__(self):
        """Raise ValueError, naming the field, for a value that no run could use."""
        for field, low, high in (
            ("epochs", 1, 100_000),
            ("batch_size", 1, 1_000_000),
            ("valid", 0, 1_000_000),
            ("weight_decay", 0, 1e6),
            ("warmup", 0, 1),
            ("label_smoothing", 0, 1),
        ):
            value = getattr(self, field)
            if not low <= value <= high:
                raise ValueError(f"{field} = {value}: expected {low} to {high}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout}: expected 0 up to (not including) 1")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr = {self.lr}: expected a positive number")
        for field, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, field) not in known:
                raise ValueError(f"{field} = {getattr(self, field)!r}: expected one of {', '.join(known)}")

    def recipe(self) -> dict:
        """The fields that decide the weights: all but the texts and the reference's figures."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in TEXTS}


TEXTS = ("teaches", "notebook", "reported_train", "reported_test", "reported_note")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "step", "one_cycle")


BASE = Experiment(
    "base",
    model="base",
    notebook="01_base",
    teaches="a plain network of 7,034 parameters learns its training set by heart",
    reported_train=99.92,
    reported_test=99.17,
)

DROPOUT = replace(
    BASE,
    name="dropout",
    notebook="02_dropout",
    teaches="one change: dropout before each pool",
    dropout=0.1,
    reported_train=99.43,
    reported_test=99.23,
    reported_note="printed as 98.43 / 99.44: the reference exchanged the blocks of its last two experiments, as its own log shows",
)

BN_AUGMENTATION = replace(
    DROPOUT,
    name="bn_augmentation",
    model="bn_augmentation",
    notebook="03_bn_augmentation",
    teaches="batch norm, and copies of the digits that are turned, moved and resized",
    batch_size=128,
    optimizer="adamw",
    schedule="one_cycle",
    weight_decay=0.01,
    dropout=0.0,
    rotate=10.0,
    shift=2.0,
    scale=0.1,
    reported_train=98.43,
    reported_test=99.44,
)

EXPERIMENTS = {experiment.name: experiment for experiment in (BASE, DROPOUT, BN_AUGMENTATION)}
