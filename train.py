"""Train experiments of the course: `python train.py base dropout --seeds 5`. `--list` shows them all."""

from tools import command  # isort: skip

import argparse
import inspect
import os
import re
import sys
from dataclasses import fields
from difflib import get_close_matches

import torch

from utils import CourseError, Interrupted, printable
from utils.experiments import EXPERIMENTS, Experiment, Recipe
from utils.report import tables
from utils.runs import plans, runs
from utils.training import ddp

FLAGS = {"model": ["--network"], "weight_decay": ["--weight-decay", "--l2"]}  # --model is one more experiment
Task = tuple[Experiment, int]  # an experiment and a seed


def comments() -> dict[str, str]:
    """What stands beside each field of Recipe: its flag's help."""
    return dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(Recipe), re.MULTILINE))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help="names from --list, or all")
    parser.add_argument("--model", action="append", default=[], dest="more", metavar="EXPERIMENT", help="one more name, as a flag")
    parser.add_argument("--list", action="store_true", help="show all experiments and exit")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=seed_range, dest="seeds", metavar="K", help="train with seed K alone (default: 0)")
    seeds.add_argument("--seeds", type=seed_ranges, metavar="N", help="N: seeds 0 to N−1; A-B; A-: to the last that is published")
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto, in that order)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of one training; the published runs used one (default: torch's)")
    parser.add_argument("--again", action="store_true", help="train anew what is finished; without it only what is missing is trained")
    parser.add_argument("--publish", action="store_true", help="write logs/ and saved_dict/; with --valid or --search only logs/trials/")
    parser.add_argument(
        "--search", type=int, metavar="N", help="try N recipes on held-out images, drawn from the experiment's search space"
    )
    parser.add_argument("--final-state", action="store_true", help="load the published network, evaluate it and draw; don't train")
    parser.add_argument("--read", nargs="+", metavar="PATH", help="read photographs or drawings of one digit each; don't train")
    parser.add_argument("--quiet", action="store_true", help="no line per epoch")
    parser.add_argument("--ngpus", type=int, metavar="N", help="train each network on N GPUs of this machine at once")
    parser.add_argument(
        "--cluster",
        nargs="?",
        const="",
        type=address,
        metavar="ADDRESS",
        help="do the runs side by side on the Dask cluster at ADDRESS, or on one of this machine's cores or GPUs",
    )
    recipe = parser.add_argument_group("recipe", "override a field of the experiments")
    explained = comments()
    for field in fields(Recipe):
        flags = FLAGS.get(field.name, [f"--{field.name.replace('_', '-')}"])
        kind = yes_or_no if field.type is bool else field.type
        text = explained[field.name].replace("%", "%%")
        recipe.add_argument(*flags, type=kind, default=argparse.SUPPRESS, dest=field.name, metavar=kind.__name__.upper(), help=text)
    parser.error = fail
    return parser


def parse(words: list[str]) -> argparse.Namespace:
    """The command line; a mistake ends with one line and exit status 2."""
    parser = make_parser()
    options, unknown = parser.parse_known_args(words)
    if unknown:
        known = [flag for action in parser._actions for flag in action.option_strings]
        parser.error(f"{unknown[0]} is not a flag: {did_you_mean(unknown[0].split('=')[0], known)}")
    return options


def yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither yes nor no")
    return text == "yes"


def fail(message: object) -> None:
    """One line (of several processes only one says it) and exit status 2, as shells expect of a mistake in the command."""
    if ddp.rank() == 0:
        print(f"train.py: {printable(str(message))}", file=sys.stderr)
    sys.exit(2)


def seed_range(text: str) -> tuple[int, int]:
    """--seed: "3" → 3, 3."""
    if not re.fullmatch(r"\d{1,19}", text) or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no seed: expected a number from 0 to {2**63 - 1}")
    return int(text), int(text)


def seed_ranges(text: str) -> tuple[int, int | None]:
    """--seeds, first and last: "5" → 0, 4; "2-4" → 2, 4; "1-" → 1 and None, for the last seed that an experiment publishes."""
    found = re.fullmatch(r"(\d{1,18})|(\d{1,18})-(\d{1,18})?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} names no seeds: expected N, A-B or A-")
    count, first, last = found.groups()
    chosen = (0, int(count) - 1) if count else (int(first), int(last) if last else None)
    if chosen[1] is not None and not 0 <= chosen[1] - chosen[0] < 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} names {chosen[1] - chosen[0] + 1} seeds: expected 1 to 10,000 (one alone: --seed K)")
    return chosen


def address(text: str) -> str:
    """Dask's own form, like tcp://192.168.0.2:8786; "" is this machine."""
    if text and not re.match(r"(tcp|tls|ucx|ws|wss)://[^/]+:\d+$", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no address: expected one like tcp://HOST:8786, or none (experiments come first)")
    return text


def did_you_mean(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, 3, 0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(known)}"


def chosen(options: argparse.Namespace) -> list[Experiment]:
    """The experiments named, with the overridden fields. Raises CourseError."""
    names = options.names + options.more
    names = list(EXPERIMENTS) if names == ["all"] else names
    for name in names:
        if name not in EXPERIMENTS:
            raise CourseError(f"no experiment is called {name!r}: {did_you_mean(name, [*EXPERIMENTS, 'all'])}")
    changes = {field.name: getattr(options, field.name) for field in fields(Recipe) if hasattr(options, field.name)}
    try:
        return [EXPERIMENTS[name].but(**changes) for name in names]
    except ValueError as error:
        raise CourseError(error) from error


def tasks_of(experiments: list[Experiment], options: argparse.Namespace) -> list[Task]:
    """Every run that is asked for. Raises CourseError if one of them can't be meant, before the first one starts."""
    first, last = options.seeds or (0, 0)
    tasks = [(e, seed) for e in experiments for seed in range(first, (e.seeds - 1 if last is None else last) + 1)]
    if not tasks:
        most = max(e.seeds for e in experiments)
        raise CourseError(f"--seeds {first}- names no seed: the last that is published is {most - 1}")
    for experiment, seed in tasks:
        plans.refuse(experiment, seed, options.publish or None)
    return list(dict.fromkeys(tasks))


def relaunch(options: argparse.Namespace, words: list[str]) -> None:
    """Put torchrun with --ngpus processes in this one's place; without enough GPUs say so, and let it go on with the CPU."""
    wanted, found = options.ngpus, torch.cuda.device_count()
    if ddp.launched():
        if str(wanted) != os.environ.get("LOCAL_WORLD_SIZE"):
            raise CourseError(f"--ngpus {wanted} under a torchrun of another number of processes: leave --ngpus out")
        return
    if wanted < 1 or options.device not in ("auto", "cuda"):
        raise CourseError(f"--ngpus {wanted} --device {options.device}: expected 1 or more GPUs, and no other device")
    if wanted > found:
        print(f"train.py: --ngpus {wanted}, but found {found} of them: going on with the CPU, in one process", file=sys.stderr)
        options.device = "cpu"
    elif wanted > 1:
        sys.stdout.flush()
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={wanted}"]
        os.execv(sys.executable, [sys.executable, *torchrun, __file__, *words])


def main(words: list[str]) -> None:
    options = parse(words)
    experiments = chosen(options)
    if options.list or not experiments:
        print(tables.list_experiments())
        return
    if options.threads is not None:
        if not 1 <= options.threads <= 1024:
            raise CourseError(f"--threads {options.threads}: expected 1 to 1024")
        torch.set_num_threads(options.threads)
    if options.read:
        read_pictures(experiments, options)
        return
    if options.final_state:
        results = show_published(experiments, options)
    elif options.search is not None:
        from tools import search  # Optuna is an extra: only who asks for it needs it

        for experiment in experiments:
            print(search.run(experiment, options.search, options.device, options.publish or None, not options.quiet))
        return
    else:
        if options.ngpus is not None and options.cluster is None:
            relaunch(options, words)
        tasks = tasks_of(experiments, options)
        if options.cluster is not None:
            run_on_cluster(tasks, options)
            return
        results = run_in_turn(tasks, options)
    # what `python -i train.py …` finds at its prompt: of the last run
    globals().update(model=results[-1].model, history=results[-1].history, data=results[-1].data)


def run_in_turn(tasks: list[Task], options: argparse.Namespace) -> list[runs.Result]:
    """One run after another; one that fails leaves the others to finish, and is told at the end."""
    results, failures = [], []
    for experiment, seed in tasks:
        print(f"{experiment.name}, seed {seed}: {experiment.teaches}")
        how = {"device": options.device, "publish": options.publish or None, "again": options.again, "echo": not options.quiet}
        try:
            results.append(runs.run(experiment, seed, **how))
        except CourseError as error:
            if len(tasks) == 1 or isinstance(error, Interrupted):
                raise
            failures.append(f"{experiment.name}, seed {seed}, failed: {error}")
    tell(results, failures, len(tasks))
    return results


def tell(results: list[runs.Result], failures: list[str], tasks: int) -> None:
    """The table of what was done, and what was not. Raises CourseError if anything failed."""
    if results:
        print(tables.summary(results))
        last = results[-1]
        if last.model is not None:
            print(f"To use it: utils.runs.load_pretrained({last.weights.stem!r}). To draw it: the same words and --final-state.")
    for failure in failures:
        print(printable(failure), file=sys.stderr)
    if failures:
        raise CourseError(f"{len(failures)} of {tasks} runs failed; the same command does only what is missing")


def show_published(experiments: list[Experiment], options: argparse.Namespace) -> list[runs.Result]:
    """--final-state: the finished run that the words name, one's own where there is one, else the published one; evaluated, drawn."""
    from tools import report

    if options.publish or options.cluster is not None or options.search is not None:
        raise CourseError("--final-state trains nothing: leave out --publish, --cluster and --search")
    results = []
    for experiment in experiments:
        for seed in range((options.seeds or (0, 0))[0], ((options.seeds or (0, 0))[1] or 0) + 1):
            results.append(runs.read_own_or_published(experiment, seed))
            print(report.portrait(results[-1]))
    return results


def read_pictures(experiments: list[Experiment], options: argparse.Namespace) -> None:
    """--read: one line per picture and network."""
    from tools import read  # needs a second to import, and only this flag needs it

    if options.publish or options.final_state or options.cluster is not None or options.search is not None:
        raise CourseError("--read trains nothing: leave out --publish, --final-state, --cluster and --search")
    for experiment in experiments:
        for seed in range((options.seeds or (0, 0))[0], ((options.seeds or (0, 0))[1] or 0) + 1):
            print(read.run(experiment, options.read, seed))


def run_on_cluster(tasks: list[Task], options: argparse.Namespace) -> None:
    """All tasks at once; those that fail leave the others alone, and are told at the end."""
    if options.ngpus is not None or ddp.launched():
        raise CourseError("--cluster trains each network in one process: leave out --ngpus and torchrun")
    from tools import cluster  # Dask is an extra: only who asks for it needs it

    results, failures = cluster.run_all(tasks, options.cluster, cluster.words_of(options), echo=not options.quiet)
    tell(results, failures, len(tasks))


if __name__ == "__main__":
    with ddp.joined():
        status = command.run("train.py", main, sys.argv[1:], speaks=lambda: ddp.rank() == 0)
        if status:
            sys.exit(status)
