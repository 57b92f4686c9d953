"""run(): the one place where a recipe becomes files (log, state dict, facts), and where it continues after a kill."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from .. import ROOT, files, models, smoke, CourseError, Interrupted
from ..report import tables
from . import facts, records, trials
from ..training import cpu, ddp
from ..data.datasets import Dataset, Split
from ..experiments import Experiment
from ..files import shown
from ..training.loops import Row, Score, Training, Unfit, describe, evaluate, fit, kept
from .plans import Plan, as_run, load, make_plan, refuse_other_data, refuse_uncommitted, require_writable
from .pretrained import load_model
from .records import Begun, DataFacts, Facts, Normalisation, Record, Run


@dataclass(frozen=True)
class Result:
    """A finished run. model: trained, in eval mode, on the CPU (None where its weights are not kept); history: one row per epoch."""

    experiment: Experiment
    seed: int
    model: nn.Module | None
    data: Dataset
    history: list[Row]
    facts: Facts
    weights: Path
    log: Path


@dataclass(frozen=True)
class Decision:
    """What is to be done: read what is finished, or train from the beginning (state None), or from a checkpoint."""

    finished: Record | None
    begun: Begun
    state: dict | None


def run(
    experiment: Experiment,
    seed: int = 0,
    device: str = "auto",
    publish: bool | None = None,
    retrain: bool = True,
    again: bool = False,
    root: Path | None = None,
    echo: bool = True,
    after_epoch: Callable[[list[Row]], None] = lambda history: None,
) -> Result:
    """Train one experiment with one seed and file the result; continue where an earlier, interrupted call stopped.
    Where several processes train together, all of them call it and process 0 alone reads and writes files.

    publish: write logs/ and saved_dict/ of the repository (default: whether COURSE_PUBLISH is 1). retrain=False: read the published
    run and train nothing. again: train anew what is finished. root: where the files go instead of runs/ (see utils.runs.records).
    after_epoch: called with the rows so far, once they are safe on disk.

    Raises CourseError for a folder that can't be written (before training), a loss that is not finite, processes that
    hold different recipes or data, or a publication of anything but a full run of an unchanged recipe on the real data; locks.Held
    while another process is at the same run; Interrupted, which holds the rows so far, at Ctrl-C.
    """
    if not retrain:
        return read_published(experiment, seed, echo)
    plan = make_plan(experiment, seed, device, publish, again, root, echo)
    data = ddp.in_turns(lambda: load(plan.experiment))
    if plan.publish:
        ddp.together(lambda: refuse_other_data(plan.experiment, data))
    with plan.lock:
        decision = decide(plan, data)
        if decision.finished:
            return show_finished(plan.experiment, decision.finished, plan.run, data, echo)
        if plan.echo and decision.state:
            tell_continued(plan, decision)
        return file(plan, decision.begun, data, *train(plan, decision, data, after_epoch))


def decide(plan: Plan, data: Dataset) -> Decision:
    """Look once, in process 0, at what is there. Raises CourseError, in all processes, for what can't be continued."""
    begun = Begun(
        name=plan.experiment.name,
        seed=plan.seed,
        recipe=plan.experiment.recipe,
        data=DataFacts.of(data),
        normalisation=Normalisation(data.mean, data.std),
        environment=facts.environment(plan.device, ddp.world_size(), plan.experiment.recipe.bfloat16),
        code=facts.code(),
        started=facts.now(),
        continued=[],
    )
    ddp.require_same({**asdict(begun.recipe), "seed": plan.seed, "data": begun.data, "device": plan.device.type})

    def look() -> Decision:
        root = None if plan.run.root == ROOT else plan.own.root

        def finished() -> Record | None:
            return None if plan.again else records.finished(plan.experiment, plan.seed, root, begun.data)

        found = finished()
        if not found:
            if plan.publish:
                refuse_uncommitted(plan.experiment)
            require_writable(plan.run, plan.own)
            plan.lock.acquire()
            found = finished()  # perhaps by the process that just released it
        saved = None if found else records.read_checkpoint(plan.own.checkpoint)
        if not saved or saved[0].data != begun.data:
            return Decision(found, begun, None)
        before, state = saved
        now = facts.Continued(len(state["history"]), begun.code, begun.environment)
        if plan.publish and any(differs(part, begun) for part in (before, *before.continued)):
            raise CourseError(
                f"{plan.title} began with other sources, or on another machine, device, number of threads or versions than are here "
                f"now: it can't be published. Delete {shown(plan.own.checkpoint)} to start it anew, or go on where it began."
            )
        return Decision(None, replace(before, continued=[*before.continued, now]), state)

    return ddp.on_rank0(look)


def differs(part: Begun | facts.Continued, now: Begun) -> bool:
    """Whether a part of a run was computed elsewhere than now, or by deciding sources that are in no commit or others than now."""
    in_commit = part.code is not None and part.code.commit != "unknown" and not part.code.commit.endswith("+changes")
    return not in_commit or (part.code.sources, part.environment) != (now.code.sources, now.environment)


def tell_continued(plan: Plan, decision: Decision) -> None:
    """The rows so far, and a warning where the bits will differ from an uninterrupted run's."""
    before, now = decision.begun, decision.begun.continued[-1]
    print(f"{plan.title}: continuing after epoch {now.after_epoch} of {plan.experiment.recipe.epochs}")
    for row in decision.state["history"]:
        print(describe(row))
    if (before.code.sources, before.environment) != (now.code.sources, now.environment):
        print(
            "It began with other sources, or on another machine, device or number of threads or processes: "
            "the result will not be bit for bit the same."
        )


def train(plan: Plan, decision: Decision, data: Dataset, after_epoch: Callable) -> tuple[nn.Module, list[Row]]:
    """The trained network, plain and on the CPU, and its rows. Raises Interrupted when it is; what was saved stays."""
    recipe, safe = plan.experiment.recipe, list(decision.state["history"]) if decision.state else []
    if plan.device.type == "cpu":
        cpu.keep_memory()
    torch.backends.cudnn.deterministic = True  # same seed, same bits on CUDA too
    torch.manual_seed(plan.seed)
    model = cpu.prepare(models.build(recipe.model, recipe.dropout), plan.device)
    if ddp.rank():
        torch.manual_seed(plan.seed + ddp.rank())  # equal weights to begin with, but other masks of dropout

    def save(training: Training) -> None:
        state = training.state_dict()  # every process's, not only the one's that writes

        def write() -> None:
            plan.lock.require()
            records.write_checkpoint(plan.own.checkpoint, decision.begun, state)
            records.write_log(plan.own.log, training.history)

        ddp.on_rank0(write)
        safe[:] = training.history
        after_epoch(training.history)

    try:
        history = fit(model, data.to(plan.device), recipe, plan.seed, decision.state, save, plan.echo)
    except KeyboardInterrupt:
        done = "after its last finished epoch" if safe else "from the start (no epoch was finished)"
        raise Interrupted(f"{plan.title}: interrupted. The same command continues it {done}.", safe) from None
    except Unfit as error:
        raise CourseError(f"{shown(plan.own.checkpoint)} does not fit this run ({error}). Delete it to start anew.") from error
    plain = models.build(recipe.model, recipe.dropout)
    plain.load_state_dict(model.to("cpu", memory_format=torch.contiguous_format).state_dict())
    return plain.eval(), history


def file(plan: Plan, begun: Begun, data: Dataset, model: nn.Module, history: list[Row]) -> Result:
    """Score a trained network, write log, state dict and facts, and add its trial to the study. Raises CourseError where that fails."""
    experiment, recipe, content = plan.experiment, plan.experiment.recipe, files.to_bytes(model.state_dict())

    def score(split: Split) -> Score:
        return evaluate(model, split, data.mean, data.std)

    best = kept(history, recipe)
    done = Facts(
        **{name: getattr(begun, name) for name in Begun.__dataclass_fields__},
        parameters=models.count_parameters(model),
        epochs=len(history),
        kept_epoch=best["epoch"],
        test=None if plan.closed else score(data.test),
        parts={} if plan.closed else {name: score(split) for name, split in data.parts.items()},
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        seconds=round(sum(row["seconds"] for row in history), 1),
        finished=facts.now(),
    )

    def write() -> None:
        plan.lock.require()
        records.write_log(plan.run.log, history)
        if plan.run == plan.own or (plan.seed == 0 and experiment.weights):
            files.write(plan.run.weights, content)
            files.write_json(plan.run.weights.with_suffix(".json"), done)
        if recipe.valid:
            trials.add(trial(done, history), plan.publish, plan.own.root)
        files.write_json(plan.run.facts, done)  # last: its presence says that all the rest is there
        plan.own.checkpoint.unlink(missing_ok=True)
        if plan.run != plan.own:
            plan.own.log.unlink(missing_ok=True)

    ddp.on_rank0(write)
    if plan.echo and ddp.rank() == 0 and plan.run == plan.own and not smoke():
        print(tables.against_published(experiment, done))
    return Result(experiment, plan.seed, model, data, history, done, plan.run.weights, plan.run.log)


def trial(done: Begun, history: list[Row], pruned: bool = False) -> trials.Trial:
    """A run with held-out images as a line of its experiment's study."""
    best = history[-1] if pruned else kept(history, done.recipe)
    return trials.Trial(
        name=done.name,
        recipe=done.recipe,
        seed=done.seed,
        valid=Score(best["valid_loss"], int(best["valid_correct"]), int(best["valid_total"])),
        epoch=int(best["epoch"]),
        pruned=pruned,
        seconds=round(sum(row["seconds"] for row in history), 1),
        fingerprint=done.data.fingerprint,
        code=done.code,
        environment=done.environment,
        finished=facts.now(),
    )


def give_up(experiment: Experiment, seed: int, history: list[Row], publish: bool | None = None) -> None:
    """End a run with held-out images that is not worth going on with: a line of the study says so, the checkpoint goes."""
    own = Run.of(experiment, seed, records.own_root())
    saved = records.read_checkpoint(own.checkpoint)
    if saved:
        trials.add(trial(saved[0], history, pruned=True), bool(publish))
    own.checkpoint.unlink(missing_ok=True)
    own.log.unlink(missing_ok=True)


def read_published(experiment: Experiment, seed: int, echo: bool = True) -> Result:
    """The published run of this recipe and seed. Raises CourseError for a recipe that was changed, or a seed that is not published."""

    def read() -> Result:
        found = records.finished(experiment, seed)
        if found is None:
            said = "its recipe was changed" if not experiment.registered else f"seed {seed} is not published by its present recipe"
            raise CourseError(f"{experiment.name}: {said}, so there is no published run to read. Train it (RETRAIN = True).")
        mine = own_run(experiment, seed)
        if mine and echo:
            print(f"A run of your own lies in {shown(mine.log)}: RETRAIN = True reads it.")
        return show_finished(experiment, found, Run.of(experiment, seed), load(experiment), echo)

    return ddp.on_rank0(read)


def own_run(experiment: Experiment, seed: int) -> Run | None:
    """A reader's own finished run of this very recipe; None if there is none."""
    own, root = as_run(experiment), records.own_root()
    return Run.of(own, seed, root) if records.finished(own, seed, root) else None


def read_own_or_published(experiment: Experiment, seed: int, echo: bool = True) -> Result:
    """A reader's own finished run of this very recipe, else the published one. Raises CourseError if there is neither."""
    mine = own_run(experiment, seed)
    if mine:
        return show_finished(as_run(experiment), records.read_record(mine), mine, load(as_run(experiment)), echo)
    return read_published(experiment, seed, echo)


def show_finished(experiment: Experiment, record: Record, run: Run, data: Dataset, echo: bool) -> Result:
    """A finished run, its first, best and last epoch printed; of published runs the weights are there for seed 0 only."""
    if echo:
        began = f"trained {record.facts.started[:10]}, {record.facts.environment.device}"
        print(f"Read from {shown(record.log)} ({began}), not trained again (again=True, or --again, does):")
        part = "test" if "test_correct" in record.history[0] else "valid"
        best = max(record.history, key=lambda row: row[f"{part}_correct"])
        shown_rows = {row["epoch"]: row for row in (record.history[0], best, record.history[-1])}
        print(*(describe(shown_rows[epoch]) for epoch in sorted(shown_rows)), sep="\n")
    published = run.root == ROOT
    model = load_model(run.weights)[0] if not published or (run.seed == 0 and experiment.weights) else None
    return Result(experiment, run.seed, model, data, record.history, record.facts, run.weights, record.log)
