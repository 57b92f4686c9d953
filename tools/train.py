"""The command line: python train.py base dropout --seeds 5"""

from tools import command  # isort: skip

import io
import os
import re
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, fields
from typing import Annotated

import torch
import tyro
from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg
from tyro.constructors import PrimitiveConstructorSpec

from utils import ROOT, CourseError, Interrupted, closest, runs, smoke
from utils.experiments import EXPERIMENTS, Experiment, Recipe
from utils.report import tables
from utils.runs import job, records
from utils.training import ddp

Task = tuple[Experiment, int]  # an experiment and a seed
SEEDS = 10_000  # at most, in one command
NAMES = {"model": {"name": "network"}, "weight_decay": {"aliases": ["--l2"]}}  # of flags that differ from the field's


def flag_of(field: str) -> str:
    """The flag that overrides a field of the recipe."""
    return "--" + NAMES.get(field, {}).get("name", field.replace("_", "-"))


def yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"{text!r} is neither yes nor no")
    return text == "yes"


def seed_ranges(text: str) -> tuple[int, int | None]:
    """--seeds, first and last: "5" → (0, 4), "2-4" → (2, 4), "1-" → (1, None), where None is the last published one."""
    found = re.fullmatch(r"([0-9]{1,18})|([0-9]{1,18})-([0-9]{1,18})?", text)
    if not found:
        raise ValueError(f"{text[:40]!r} names no seeds: expected N, A-B or A-")
    count, first, last = found.groups()
    first, last = (0, int(count) - 1) if count else (int(first), int(last) if last else None)
    if last is not None and not 0 <= last - first < SEEDS:
        raise ValueError(f"{text!r} names {last - first + 1} seeds: expected 1 to {SEEDS:,} (one alone: --seed K)")
    return first, last


def address(*argv: str) -> str:
    """A Dask address like `tcp://192.168.0.2:8786`; "", without a word, is this machine."""
    text = " ".join(argv)
    if text and not re.fullmatch(r"(tcp|tls|ucx|ws|wss)://[^/\s]+:[0-9]+", text):
        raise ValueError(f"{text!r} is no address: expected one like tcp://HOST:8786, or none (experiments come first)")
    return text


def value(read: Callable[..., object], metavar: str, nargs: int | str = 1, **options) -> object:
    """The type of a flag with `nargs` words, which `read` converts; its value is None if the flag is missing."""
    spec = PrimitiveConstructorSpec(nargs, metavar, lambda argv: read(*argv), lambda _: True, lambda _: [""])
    return Annotated[object, spec, arg(help_behavior_hint="", **options)]


@dataclass(frozen=True)
class Changes(Recipe):
    """Override a field of the experiments' recipes."""

    __annotations__ = {  # each flag's help is the comment next to the field in Recipe
        name: value(
            yes_or_no if kind is bool else kind,
            "yes|no" if kind is bool else kind.__name__.upper(),
            **NAMES.get(name, {}),
        )
        for name, kind in ((field.name, field.type) for field in fields(Recipe))
    }
    vars().update(dict.fromkeys(__annotations__))  # None: as the recipe says

    def __post_init__(self):
        """Checked with the experiment that is changed."""


@dataclass(frozen=True)
class Options:
    """Train experiments of the course. An interrupted run continues, a finished one is read."""

    # from --list, or all
    names: Annotated[Positional[tuple[str, ...]], arg(metavar="EXPERIMENT …", help_behavior_hint="")] = ()
    # one more, as a flag
    model: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="EXPERIMENT", help_behavior_hint="")] = ()
    list: bool = False  # show all experiments and exit
    seed: value(int, "K") = None  # train with seed K alone (default: 0)
    seeds: value(seed_ranges, "N") = None  # N: seeds 0 to N−1; A-B: seeds A to B. A- ends with the last published seed
    device: str = "auto"  # cuda, mps or cpu; auto: the first one available
    threads: value(int, "N") = None  # threads of one training; the published runs used one (default: torch's)
    retrain: bool = False  # train again what is finished; without it only what is missing is trained
    publish: bool = False  # write logs/ and saved_dict/; with --valid or --search only logs/trials/
    search: value(int, "N") = None  # try N recipes on held-out images, drawn from the experiment's search space
    final_state: bool = False  # load the finished network, evaluate it and draw; don't train
    read: value(lambda *paths: paths, "PATH …", "*") = None  # read pictures of one digit each; don't train
    quiet: bool = False  # no line per epoch
    ngpus: value(int, "N") = None  # train each network on N GPUs of this machine at once
    cluster: value(address, "[ADDRESS]", "*") = None  # do the runs at once, on the Dask cluster at ADDRESS or one here
    recipe: OmitArgPrefixes[Changes] = Changes()


def parse(argv: list[str]) -> Options:
    """The command line. Raises CourseError for a mistake."""
    message = io.StringIO()
    try:
        with redirect_stderr(message):
            options = tyro.cli(Options, prog="train.py", args=argv, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        lines = [line.strip("│| ") for line in message.getvalue().splitlines()[1:] if not re.search(r"──|--\s*$", line)]
        text = re.split(r"Argument helptext|For full helptext", " ".join(" ".join(lines).split()))[0].rstrip()
        raise CourseError(f"{text[:400]} (--help explains each flag)") from None
    if options.seed is not None and options.seeds:
        raise CourseError("--seed K and --seeds N: expected one of them")
    return options


def chosen(options: Options) -> list[Experiment]:
    """The experiments named, with the overridden fields. Raises CourseError."""
    names = options.names + options.model
    names = tuple(EXPERIMENTS) if "all" in names else names
    for name in names:
        if name not in EXPERIMENTS:
            raise CourseError(f"no experiment is called {name[:80]!r}: expected {closest(name, [*EXPERIMENTS, 'all'])}")
    changes = {name: value for name, value in asdict(options.recipe).items() if value is not None}
    try:
        return [EXPERIMENTS[name].with_recipe(**changes) for name in names]
    except ValueError as error:
        raise CourseError(error) from error


def tasks_of(experiments: list[Experiment], options: Options) -> list[Task]:
    """All requested runs. Raises CourseError if the first seed is beyond all published seeds."""
    first, last = options.seeds or (options.seed or 0, options.seed or 0)
    tasks = [(e, seed) for e in experiments for seed in range(first, (e.seeds - 1 if last is None else last) + 1)]
    if not tasks:
        most = max(e.seeds for e in experiments)
        raise CourseError(f"--seeds {first}- names no seed: the last that is published is {most - 1}")
    return list(dict.fromkeys(tasks))


def relaunch(ngpus: int, device: str, argv: list[str]) -> str:
    """Replace this process by torchrun with `ngpus` processes; return the device if this process should go on."""
    found = torch.cuda.device_count()
    if ngpus > found and not ddp.launched():
        text = f"train.py: --ngpus {ngpus}, but found {found} of them: going on with the CPU, in one process"
        print(text, file=sys.stderr)
        return "cpu"
    if ngpus > 1 and not ddp.launched():
        if command.interactive():
            raise CourseError(f"--ngpus {ngpus} starts processes in the place of this one: use a terminal")
        sys.stdout.flush()
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ngpus}"]
        os.execv(sys.executable, [sys.executable, *torchrun, str(ROOT / "train.py"), *argv])
    return device


def require_alone(options: Options) -> None:
    """Raise CourseError for flags that exclude each other."""
    flags = ("read", "final_state", "search", "cluster", "publish", "retrain", "ngpus")
    given = [f"--{flag.replace('_', '-')}" for flag in flags if getattr(options, flag) not in (None, False)]
    if given[1:] and given[0] in ("--read", "--final-state"):
        raise CourseError(f"{given[0]} trains nothing: leave out {', '.join(given[1:])}")
    if options.read == ():
        raise CourseError("--read: expected the path of a picture, or of several")
    others = ("cluster", "ngpus", "seeds", "seed", "retrain")
    taken = ddp.launched() or any(getattr(options, flag) not in (None, False) for flag in others)
    if options.search is not None and taken:
        named = ", ".join(f"--{flag}" for flag in others)
        raise CourseError(f"--search trains seed 0 in this process: leave out {named} and torchrun")
    if options.ngpus is not None and options.ngpus < 1:
        raise CourseError(f"--ngpus {options.ngpus}: expected 1 or more")
    if options.threads is not None and not 1 <= options.threads <= 1024:
        raise CourseError(f"--threads {options.threads}: expected 1 to 1024")
    if options.cluster is not None and (options.ngpus is not None or ddp.launched()):
        raise CourseError("--cluster trains each network in one process: leave out --ngpus and torchrun")


def require_not_drawn(experiments: list[Experiment], options: Options) -> None:
    """Raise CourseError for a flag that sets what --search draws."""
    given = {name for name, value in asdict(options.recipe).items() if value is not None}
    for experiment in experiments:
        if both := sorted(given & experiment.search.keys()):
            raise CourseError(f"--search draws {', '.join(both)} of {experiment.name}: leave its flag out")


def main(argv: list[str]) -> dict[str, object]:
    """Run a command line. Returns model, history and data of the last run, for the prompt of `python -i train.py …`."""
    options = parse(argv)
    experiments = chosen(options)
    if options.list or not experiments:
        print(tables.list_experiments())
        return {}
    require_alone(options)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.search is not None:
        require_not_drawn(experiments, options)
        from tools import search  # Optuna is an optional package

        for experiment in experiments:
            print(search.run(experiment, options.search, options.device, options.publish or None, not options.quiet))
        return {}
    tasks = tasks_of(experiments, options)
    if options.read is not None:
        from tools import photographs  # takes a second to import

        results = in_turn(tasks, lambda *task: print(photographs.read_all(task[0], list(options.read), task[1])))
    elif options.final_state:
        results = in_turn(tasks, show)
    else:
        results = train(tasks, options, argv)
    last = results[-1] if results else None
    return {name: getattr(last, name) for name in ("model", "history", "data")} if last else {}


def train(tasks: list[Task], options: Options, argv: list[str]) -> list[runs.Result]:
    """Train what is missing and print a table. Raises CourseError before the first run if one is impossible."""
    device, publish = options.device, options.publish or None
    if options.ngpus is not None:
        device = relaunch(options.ngpus, device, argv)
    for experiment, seed in tasks:
        job.check(experiment, seed, publish)
    if options.cluster is not None:
        from tools import cluster  # Dask is an optional package

        commands = {task: argv_of(*task, options) for task in tasks}
        results, failures = cluster.run_all(commands, options.cluster, device, options.quiet)
        summarize(results)
        report_failures(failures, len(tasks))
        return []

    def run(experiment: Experiment, seed: int) -> runs.Result:
        print(f"{experiment.name}, seed {seed}: {experiment.teaches}")
        return runs.run(experiment, seed, device, publish=publish, retrain=options.retrain, echo=not options.quiet)

    return in_turn(tasks, run, summarize)


def argv_of(experiment: Experiment, seed: int, options: Options) -> list[str]:
    """The arguments of train.py for one task: name, seed, flags, and changes of the recipe."""
    argv = [experiment.name, "--seed", str(seed), "--device", options.device]
    argv += [f"--{flag}" for flag in ("publish", "retrain") if getattr(options, flag)]
    argv += ["--threads", str(options.threads)] if options.threads else []
    for field, (_, value) in experiment.recipe.changes(EXPERIMENTS[experiment.name].recipe).items():
        argv += [flag_of(field), ("no", "yes")[value] if isinstance(value, bool) else str(value)]
    return argv


def in_turn(
    tasks: list[Task], action: Callable[[Experiment, int], object], after: Callable[[list], None] = lambda done: None
) -> list:
    """The results of action(*task), one after another; then after(results). Failures are raised at the end."""
    done, failures = [], []
    for experiment, seed in tasks:
        try:
            done.append(action(experiment, seed))
        except CourseError as error:
            if len(tasks) == 1 or isinstance(error, Interrupted):
                raise
            failures.append(f"{experiment.name}, seed {seed}, failed: {error}")
    after(done)
    report_failures(failures, len(tasks))
    return done


def summarize(results: list[runs.Result]) -> None:
    """Print the table of results, and what to know about them."""
    if not results:
        return
    print(tables.summary(results))
    stand_ins = ", ".join(sorted({run.experiment.name for run in results if records.stand_in(run.facts)}))
    if stand_ins:
        print(f"{stand_ins}: scikit-learn's 1,797 digits replaced the data. Do not compare these figures with others.")
    if smoke():
        print("This was a smoke run (COURSE_SMOKE): a few hundred images and one epoch. Its accuracies mean nothing.")
    name = results[-1].weights.stem
    if results[-1].model is not None and records.stays(results[-1].weights):
        print(f"To use it: utils.runs.load_pretrained({name!r}). To draw it, repeat the command with --final-state.")


def report_failures(failures: list[str], tasks: int) -> None:
    """Print what failed. Raises CourseError if anything did."""
    for failure in failures:
        print(failure, file=sys.stderr)
    if failures:
        raise CourseError(f"{len(failures)} of {tasks} runs failed; the same command does only what is missing")


def show(experiment: Experiment, seed: int) -> runs.Result:
    """--final-state: evaluate and draw the reader's finished run, or the published one."""
    from tools import report  # and with it all that draws

    result = runs.load(experiment, seed)
    print(report.portrait(result))
    return result


if __name__ == "__main__":  # one task of a cluster: it ends with its worker, which keeps this standard input open
    threading.Thread(target=lambda: os.read(0, 1) or os._exit(143), daemon=True).start()
    command.main("train.py", main)
