"""Tables say what the records say: computed here from synthetic runs whose numbers fit on paper."""

import re
from dataclasses import astuple, replace
from types import SimpleNamespace

import pytest
import torch
from tiny import FACTS, TINY, tiny

from utils import files, models
from utils.data import datasets
from utils.experiments import EXPERIMENTS, Experiment
from utils.report import tables
from utils.runs import records
from utils.runs.facts import environment
from utils.runs.records import DataFacts, RunMetadata, RunPaths
from utils.training.loops import Score

SOLIDS = replace(TINY.recipe, model="tiny_voxels", data="mnist3d", rotate=0.0)
VOXELS = Experiment("tiny_voxels", SOLIDS, "voxels for tests", weights=False)
KEPT = replace(VOXELS, weights=True)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def alone(scratch, monkeypatch):
    """A repository that knows the tiny experiments only."""
    monkeypatch.setattr(tables, "EXPERIMENTS", {"tiny": TINY, "tiny_voxels": VOXELS})
    monkeypatch.setitem(EXPERIMENTS, "tiny_voxels", VOXELS)
    figure = tables.Figure("book", "page 7", None, 98.5, "best epoch")
    found = tables.References(
        {"book": tables.Reference("A book", "https://example.org/book")}, {"tiny": figure}, [], []
    )
    monkeypatch.setattr(tables, "references", lambda: found)


def row(epoch, train, held, part="test"):
    """Of 1,000 images each."""
    counts = {"train_loss": 0.1, "train_correct": train, "train_total": 1000}
    counts |= {f"{part}_loss": 0.1, f"{part}_correct": held, f"{part}_total": 1000}
    return {"epoch": epoch, "lr": 0.1, **counts, "seconds": 2.0}


def data(name, kind="images", fingerprint="0" * 64) -> DataFacts:
    return DataFacts(name, kind, (1, 28, 28), fingerprint, 1000, True)


def publish(experiment, seed, rows, test=None, root=None, **changes) -> RunMetadata:
    """Files of a finished run."""
    run, recipe, n = RunPaths.of(experiment, seed, root), experiment.recipe, len(rows)
    facts = replace(FACTS, name=experiment.name, seed=seed, recipe=recipe, continued=[], parts={}, bytes=2048)
    facts = replace(facts, data=data(recipe.data, recipe.kind, datasets.PUBLISHABLE[recipe.data]))
    facts = replace(facts, test=Score(0.1, test or rows[-1]["test_correct"], 1000), epochs=n, kept_epoch=n)
    facts = replace(facts, environment=environment(CPU), sha256=f"{seed}" * 64, seconds=6.0, parameters=2674)
    facts = replace(facts, **changes)
    records.write_log(run.log, rows)
    files.write_json(run.facts, facts)
    if seed == 0 and experiment.weights:
        files.write_json(run.weights.with_suffix(".json"), facts)
        if root is not None:  # a clone may leave a published state dict out
            files.write(run.weights, b"0" * 2048)
    return facts


def cells(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if re.match(rf"\| \[?{name}\b[\] ]", line)]
    return [" ".join(cell.split()) for cell in line.strip("|").split("|")]


def two_seeds():
    publish(TINY, 0, [row(1, 900, 950), row(2, 990, 985), row(3, 995, 980)])
    publish(TINY, 1, [row(1, 900, 950), row(2, 990, 970), row(3, 997, 990)])


LINKS = "[pth](../saved_dict/tiny.pth) [log](../logs/tiny) [png](../pngs/tiny_curves.png)"
BOOK = "[book](https://example.org/book), page 7"


def test_each_table_shows_means_over_the_seeds_of_the_last_and_the_best_epoch_beside_the_reference_s_figure():
    two_seeds()
    before, against, parameters = tables.networks("../"), tables.against_references(), models.count_parameters(tiny())
    for text, shown in (
        (before, ["**98.50 ± 0.71**", "2", "2,674", "3", LINKS, "98.50*"]),
        (tables.details(), ["99.60 ± 0.14", "**98.50 ± 0.71**", "1.10", "98.75 (99.00)", "2", "0.1"]),
        (against, ["98.50*", "**98.50 ± 0.71**", "98.75 (99.00)", BOOK]),
        (tables.family([TINY]), [f"{parameters:,}", f"{parameters - 8:,}", "5", "98.50", "**98.50 ± 0.71** (2 seeds)"]),
    ):
        assert cells(text, "tiny")[1 : 1 + len(shown)] == shown
    assert "\n- tiny: best epoch\n" in against and "\n- book: “A book”" in against and "†" not in before
    publish(TINY.with_recipe(lr=0.5), 2, [row(1, 1, 1)])  # runs of an earlier recipe and of other data do not count
    publish(TINY, 3, [row(1, 1, 1)], data=data("digits"))
    assert tables.networks("../") == before
    publish(TINY, 2, [row(1, 900, 950), row(2, 990, 970), row(3, 997, 999)])  # the control: one more published seed
    assert cells(tables.networks(), "tiny")[1:3] == ["**98.97 ± 0.95**", "3"]


def test_the_table_of_networks_is_sorted_best_first_within_images_and_then_voxels(monkeypatch):
    better, kinds = replace(TINY, name="better"), ("tiny_voxels", "tiny", "better")
    for experiment, correct in zip((KEPT, TINY, better), (999, 950, 980), strict=True):
        monkeypatch.setitem(tables.EXPERIMENTS, experiment.name, experiment)
        publish(experiment, 0, [row(1, 900, correct)])
    lines = tables.networks().splitlines()
    found = [next(name for name in (*kinds, "**") if name in line) for line in lines[2:]]
    assert found == ["**", "better", "tiny", "**", "tiny_voxels"]


def test_where_images_are_held_out_the_test_set_is_evaluated_once(monkeypatch):
    stopping = TINY.with_recipe(valid=1000, patience=1)
    monkeypatch.setitem(EXPERIMENTS, "tiny", stopping)
    monkeypatch.setattr(tables, "EXPERIMENTS", {"tiny": stopping})
    rows = [row(1, 900, 970, "valid"), row(2, 990, 960, "valid")]
    publish(stopping, 0, rows, test=955, kept_epoch=1)
    assert cells(tables.networks(), "tiny")[1] == "**95.50**†" and "† Early stopping" in tables.networks()
    assert cells(tables.against_references(), "tiny")[3] == "not evaluated"
    assert tables.train_percents(records.published(stopping)) == [90.0]


def test_voxels_show_upright_and_rotated_rows_apart():
    parts = {"upright": Score(0.1, 990, 1000), "rotated": Score(0.1, 900, 1000)}
    publish(VOXELS, 0, [row(1, 999, 945)], parts=parts)
    found = cells(tables.voxels(), "tiny_voxels")
    assert found[1:7] == ["**94.50**", "99.00", "90.00", "99.90", "–", "1"] and "saved_dict" not in found[8]


def test_the_frontier_has_each_network_on_images_with_its_spread_and_every_figure_of_others(monkeypatch):
    two_seeds()
    publish(VOXELS, 0, [row(1, 999, 945)])
    claim = tables.Claim("somebody's", 1000, 99.1, False, "one run")
    file = tables.Claim("a file", None, 99.2, False, "one run", bytes=5000)
    known = replace(tables.references(), field=[claim], files=[file])
    monkeypatch.setattr(tables, "references", lambda: known)
    ours, theirs = tables.frontier()
    assert [astuple(point) for point in ours] == [("tiny", 2674, 98.5, pytest.approx(0.5**0.5), 6.0, False, 4 * 2674)]
    assert theirs == [
        tables.Point("somebody's", 1000, 99.1, selected_on_test=False),
        tables.Point("a file", None, 99.2, bytes=5000),
        tables.Point("tiny, reported", 2674, 98.5, selected_on_test=True),
    ]


def test_an_experiment_that_is_not_published_is_in_the_list_and_in_no_table_of_results():
    assert cells(tables.list_experiments(), "tiny")[4:6] == ["0", TINY.teaches]
    assert "tiny" not in tables.networks() + tables.voxels()
    assert cells(tables.compare({TINY: []}), "tiny")[1:] == ["0", "none", "none", "none"]


def result(experiment, seed, rows, test):
    facts, run = replace(FACTS, kept_epoch=len(rows), test=test), RunPaths.of(experiment, seed, records.own_root())
    told = {"experiment": experiment, "seed": seed, "history": rows, "facts": facts}
    return SimpleNamespace(**told, weights=run.weights, log=run.log)


def test_summary_of_held_out_images_is_a_mean_over_the_seeds_and_no_test_figure():
    held = TINY.with_recipe(valid=1000)
    text = tables.summary([result(held, seed, [row(1, 900, 940 + 10 * seed, "valid")], None) for seed in (0, 1)])
    found = [cells(line, "tiny")[2:5] for line in text.splitlines() if line.startswith("| tiny")]
    assert found == [["90.00", "94.00", "closed"], ["90.00", "95.00", "closed"]]
    assert text.endswith("tiny, held-out images: 94.50 ± 0.71 % (2 seeds)")
    text = tables.summary([result(TINY, 0, [row(1, 900, 940)], Score(0.1, 940, 1000))])
    found = cells(text, "tiny")
    assert found[2:6] == ["90.00", "–", "94.00", "94.00 in epoch 1"] and found[7] == "not kept"
    assert "held-out images" not in text


def yours(correct=985, seed=0, sha256="0" * 64, **changes) -> RunMetadata:
    facts = publish(TINY, 9, [row(1, 900, correct)], root=records.own_root())
    return replace(facts, seed=seed, sha256=sha256, **changes)


def test_a_run_is_compared_with_the_published_ones_in_one_line():
    two_seeds()
    compared = "tiny, seed 0: yours 98.50 %, published 98.50 ± 0.71 % (2 seeds); "
    there = yours().environment
    assert records.against_published(TINY, yours()).startswith(f"{compared}the same bits as its seed 0, ")
    told = yours(sha256="f" * 64, environment=replace(there, threads=64, torch="1.0"))
    changed = f"threads 64 (there {there.threads}), torch 1.0 (there {there.torch})"
    expected = f"{compared}not the same bits as its seed 0, with other {changed};"
    assert records.against_published(TINY, told).startswith(expected)


@pytest.mark.parametrize(
    ("seeds", "correct", "within"), [(2, 958, True), (2, 956, False), (1, 968, True), (1, 955, False)]
)
def test_the_spread_is_four_standard_deviations(seeds, correct, within):
    """Of two seeds 98.5 ± 0.707: 95.67 to 101.3; of one that of 1,000 images at 98 %, ± 0.443: 96.2 to 99.8."""
    two_seeds() if seeds == 2 else publish(TINY, 0, [row(1, 900, 980)])
    line = records.against_published(TINY, yours(correct))
    assert line.endswith("within the spread." if within else "OUTSIDE the spread.")


def test_other_data_other_recipes_and_held_out_images_are_not_compared():
    two_seeds()
    stand_in = yours(recipe=replace(TINY.recipe, data="mnist"))  # of the digits
    for experiment, facts, told in (
        (TINY, yours(100, data=data("fallback")), "10.00 % on other data than the published runs',"),
        (TINY, stand_in, "1,797 digits as a stand-in for mnist; compared with nothing."),
        (TINY.with_recipe(lr=0.5), yours(), "tiny, seed 0: 98.50 %; no published run has this recipe."),
        (TINY.with_recipe(valid=10), yours(test=None), "the test set stays closed while images are held out"),
    ):
        assert told in records.against_published(experiment, facts)
    assert "%" not in records.against_published(TINY.with_recipe(valid=10), yours(test=None))
