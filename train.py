"""Train experiments of the course: `python train.py base dropout --seeds 5`. `--list` shows them all."""

import argparse
import os
import sys
from dataclasses import fields, replace
from difflib import get_close_matches

import torch

from utils import CourseError, distributed, report, runs
from utils.experiments import EXPERIMENTS, TEXTS, Experiment

FLAGS = [field for field in fields(Experiment) if field.name not in (*TEXTS, "name", "model")]


def parse(words: list[str]) -> argparse.Namespace:
    """The command line; a mistake ends with one line and exit status 2."""
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help="names from --list, or all")
    parser.add_argument("--model", action="append", default=[], metavar="EXPERIMENT", help="one more name, as a flag")
    parser.add_argument("--list", action="store_true", help="show all experiments and exit")
    parser.add_argument(
        "--seeds", type=seeds, default=(0, 0), help="N: seeds 0 to N−1; A-B; A-: to the last that is published (default: seed 0)"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto, in that order)")
    parser.add_argument("--publish", action="store_true", help="write logs/ and saved_dict/, skipping what is complete there")
    parser.add_argument("--final-state", action="store_true", help="load the published network, evaluate it and draw; don't train")
    parser.add_argument("--quiet", action="store_true", help="no line an epoch")
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
    for field in FLAGS:
        flags = [f"--{field.name.replace('_', '-')}", *(["--l2"] if field.name == "weight_decay" else [])]
        kind = yes_or_no if field.type is bool else field.type
        recipe.add_argument(*flags, type=kind, default=argparse.SUPPRESS, metavar=kind.__name__.upper())
    parser.error = fail
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
    if distributed.rank() == 0:
        print(f"train.py: {message}", file=sys.stderr)
    sys.exit(2)


def seeds(text: str) -> tuple[int, int | None]:
    """First and last seed: "5" → 0, 4; "2-4" → 2, 4; "1-" → 1 and None, for the last seed that an experiment publishes."""
    first, dash, last = text.partition("-")
    chosen = (int(first), int(last) if last else None) if dash else (0, int(first) - 1)
    if chosen[1] is not None and chosen[1] < chosen[0]:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: expected N, A-B or A-")
    return chosen


def address(text: str) -> str:
    """Dask's own form, like tcp://192.168.0.2:8786; "" is this machine."""
    if text and ":" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no address: expected one like tcp://HOST:8786, or none (experiments come first)")
    return text


def did_you_mean(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, 3, 0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(known)}"


def chosen(options: argparse.Namespace) -> list[Experiment]:
    """The experiments named, with the overridden fields."""
    names = options.names + options.model
    names = list(EXPERIMENTS) if names == ["all"] else names
    for name in names:
        if name not in EXPERIMENTS:
            raise CourseError(f"no experiment is called {name!r}: {did_you_mean(name, [*EXPERIMENTS, 'all'])}")
    changes = {field.name: getattr(options, field.name) for field in FLAGS if hasattr(options, field.name)}
    try:
        return [replace(EXPERIMENTS[name], **changes) for name in names]
    except ValueError as error:
        raise CourseError(error) from error


def published(experiments: list[Experiment], options: argparse.Namespace) -> list[Experiment]:
    """What --final-state loads: seed 0 by the course's recipe, whatever flags of the recipe stand beside it."""
    if options.publish or options.cluster is not None or options.seeds != (0, 0):
        raise CourseError("--final-state trains nothing: leave out --publish, --cluster and --seeds")
    found = [EXPERIMENTS[experiment.name] for experiment in experiments]
    if found != experiments:
        print("train.py: --final-state loads what the published recipe gave: the recipe's flags are ignored", file=sys.stderr)
    return found


def relaunch(options: argparse.Namespace, words: list[str]) -> None:
    """Put torchrun with --ngpus processes in this one's place; without enough GPUs say so, and let it go on with the CPU."""
    wanted, found = options.ngpus, torch.cuda.device_count()
    if distributed.launched():
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
        print(report.list_experiments())
        return
    if options.final_state:
        experiments = published(experiments, options)
    if options.ngpus is not None and options.cluster is None:
        relaunch(options, words)
    first, last = options.seeds
    tasks = [(e, seed) for e in experiments for seed in range(first, (e.seeds - 1 if last is None else last) + 1)]
    if options.cluster is not None:
        run_on_cluster(tasks, options)
        return
    results = []
    for experiment, seed in tasks:
        print(f"{experiment.name}, seed {seed}: {experiment.teaches}")
        retrain = not options.final_state
        results.append(runs.run(experiment, seed, options.device, options.publish or None, retrain, echo=not options.quiet))
        if options.final_state:
            print(report.portrait(results[-1]))
    print(report.summary(results))
    # what `python -i train.py …` finds at its prompt: of the last run
    globals().update(model=results[-1].model, history=results[-1].history, data=results[-1].data)


def run_on_cluster(tasks: list[tuple[Experiment, int]], options: argparse.Namespace) -> None:
    """All tasks at once; those that fail leave the others alone, and are told at the end."""
    if options.ngpus is not None or distributed.launched():
        raise CourseError("--cluster trains each network in one process: leave out --ngpus and torchrun")
    from utils import cluster  # Dask is an extra: only who asks for it needs it

    results, failures = cluster.run_all(tasks, options.cluster, options.device, options.publish or None, None, not options.quiet)
    print(report.summary(results))
    print(*failures, sep="\n", end="\n" * bool(failures), file=sys.stderr)
    if failures:
        raise CourseError(f"{len(failures)} of {len(tasks)} runs failed; the same command does only what is missing")


if __name__ == "__main__":
    with distributed.joined():
        refusal = None
        try:
            main(sys.argv[1:])
        except CourseError as error:
            refusal = str(error)  # the error itself would keep all that was trained alive (see distributed.leave)
        if refusal:
            fail(refusal)
