"""Held-out demonstrations: their error at the first decision step is right, and measuring it changes nothing."""

import dataclasses

import numpy as np
import pytest
import torch

from analysis.figures.style import assign_colours
from analysis.report.folder import ReportFolder
from analysis.report.training import training_section
from analysis.training_log import training_frame
from helpers.experts import MEMORYVLA
from helpers.paths import ROOT
from helpers.rows import records
from muvla.config import DatasetConfig, TaskConfig, no_memory, tbptt, train_id
from muvla.config.serialization import replace
from muvla.data.collect import collect
from muvla.data.store import EpisodeStore
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError
from muvla.interventions import parse_intervention
from muvla.runs.learning_curve import learning_curve
from muvla.runs.run import Run
from muvla.runs.train import train_cell
from muvla.training import run as training
from muvla.training.held_out import HeldOut
from muvla.training.trainer import Trainer
from muvla.utils.io import read_lines
from sweeps.ledger import Ledger
from sweeps.loader import load_study

HELD_OUT = DatasetConfig(TaskConfig("RecallPosition3-v0", delay=(1, 3)), episodes=6, seed=50_000)


@pytest.fixture(scope="module")
def held_out(data_root):
    return collect(HELD_OUT, data_root)


def changed(store: EpisodeStore, **columns: np.ndarray) -> EpisodeStore:
    copy = EpisodeStore(store.path)
    copy._columns = copy._columns | columns
    return copy


def first_decisions(store: EpisodeStore) -> np.ndarray:
    """Rows of the store."""
    phases = np.asarray(store["phase"])
    ends = store.starts + store.lengths
    return np.array([s + np.flatnonzero(phases[s:e] == Phase.DECISION)[0] for s, e in zip(store.starts, ends)])  # noqa: B905


def played_alone(trainer: Trainer, store: EpisodeStore) -> float:
    """The mean over episodes that are played one after the other, each in a batch of its own."""
    errors = []
    for episode, first in enumerate(first_decisions(store)):
        alone = HeldOut(trainer, store)
        alone.episodes, alone.first = np.array([episode]), np.array([first - store.starts[episode]])
        errors.append(alone.measure())
    return float(np.mean(errors))


def test_training_is_the_same_bit_for_bit(store, base, data_root, held_out, tmp_path, monkeypatch):
    """A whole training in a run folder; the declaration moves no train id, and the log has one more column."""
    monkeypatch.setattr(training, "LOG_EVERY", 2)
    declared = replace(base, {"data.held_out": HELD_OUT})
    ids = [train_id(cell, store.sha256, None) for cell in (base, declared)]
    assert ids[0] == ids[1]
    runs = [Run(tmp_path / name, data_root, ids[0]) for name in ("without", "with")]
    for run, cell in zip(runs, (base, declared), strict=True):
        train_cell(run, cell, store, "cpu")
    without, measured = (read_lines(run.folder / "train.jsonl") for run in runs)
    assert [row["update"] for row in measured] == [2, 4]
    for a, b in zip(without, measured, strict=True):
        assert b.keys() - a.keys() == {"loss_at_first_decision_held_out"}
        apart = ("frames_per_second", "peak_memory_mb")
        assert all(a[name] == b[name] for name in a if name not in apart)
    curve = learning_curve(runs[1])
    assert len(curve["loss_at_first_decision_held_out"]) == 2 and "loss_at_first_decision" in curve
    tensors = [run.checkpoint().tensors for run in runs]
    for part, values in tensors[0].items():
        assert all(torch.equal(value, tensors[1][part][name]) for name, value in values.items())


@pytest.mark.parametrize(
    "change",
    [
        {},
        no_memory(),
        {"model.head": "diffusion", "data.tail": "repeat"},
        {"data.decision_steps": 1, "data.order": "grouped", "data.group": 3},
        {"model.images": "released", "data.augmentation": "frame", "data.cameras": [1]},
        {"intervention": "zero@cue_end.."},
        MEMORYVLA,
    ],
    ids=["tokens", "none", "diffusion", "grouped", "augmented", "intervention", "expert"],
)
def test_the_error_is_that_of_episodes_played_alone(store, cell_with, held_out, change):
    cell = cell_with(change)
    trainer = Trainer(cell, store, parse_intervention(cell.intervention))
    stream, memory = trainer.stream.state(), trainer.recurrence.state
    before = torch.get_rng_state()
    error = HeldOut(trainer, held_out).measure()
    assert error > 0 and HeldOut(trainer, held_out).measure() == error
    assert trainer.stream.state() == stream and trainer.recurrence.state is memory
    assert torch.equal(before, torch.get_rng_state()), "no global random number is drawn"
    if cell.model.head == "l1":  # noise is keyed by the slot
        assert error == pytest.approx(played_alone(trainer, held_out), rel=1e-5)


def test_the_error_is_of_the_first_decision_step_alone(store, cell_with, held_out):
    """Its labels count, with the scale of the loss; those of other steps do not."""
    trainer = Trainer(cell_with({"model.chunk": 1}), store)
    error = HeldOut(trainer, held_out).measure()
    first, actions = first_decisions(held_out), np.array(held_out["executed_action"])
    others = np.setdiff1d(np.arange(held_out.frames), first)
    elsewhere = actions.copy()
    elsewhere[others] += 0.3
    assert HeldOut(trainer, changed(held_out, executed_action=elsewhere)).measure() == error
    there = actions.copy()
    there[first] = 0
    assert HeldOut(trainer, changed(held_out, executed_action=there)).measure() != pytest.approx(error)


def test_the_error_needs_the_frames_before_the_decision(store, cell_with, held_out):
    """The memory has played the episode: another cue gives another error with a memory, and the same without."""
    images = np.array(held_out["images"])
    images[np.asarray(held_out["phase"]) == Phase.CUE] = 0
    blind = changed(held_out, images=images)
    for change, moves in ((tbptt(8, 4), True), (no_memory(), False)):
        trainer = Trainer(cell_with(change), store)
        pair = [HeldOut(trainer, each).measure() for each in (held_out, blind)]
        assert (pair[0] != pair[1]) == moves


def test_what_cannot_be_held_out_is_refused(store, base, held_out, data_root):
    seen = dataclasses.replace(base.data.dataset, episodes=3)
    with pytest.raises(MuvlaError) as info:
        replace(base, {"data.held_out": seen})
    assert info.value.field == "data.held_out"
    trainer = Trainer(base, store)
    undecided = np.full_like(held_out["phase"], Phase.DELAY)
    for broken in (
        changed(held_out, phase=undecided),
        changed(held_out, images=held_out["images"][:, :1]),
    ):
        with pytest.raises(MuvlaError) as info:
            HeldOut(trainer, broken)
        assert info.value.field == "data.held_out"


def test_an_evaluation_on_held_out_episodes_is_refused():
    study = load_study(ROOT / "experiments/recall_quick")
    declared = dataclasses.replace(HELD_OUT, seed=study.protocols[0].seed)
    with pytest.raises(MuvlaError) as info:
        study.with_base({"data.held_out": declared}).check()
    assert info.value.field.endswith(": seed")


def test_a_study_collects_what_it_holds_out(tmp_path):
    study = load_study(ROOT / "experiments/recall_quick")
    study = study.with_base({"data.held_out": HELD_OUT, "data.dataset.episodes": 4})
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    stores = ledger.stores(study)
    assert ledger.has_data(study) and len(list((tmp_path / "data").glob("*/meta.json"))) == 2
    assert {len(store) for store in stores.values()} == {4}, "the training plays its own dataset alone"


def test_the_report_draws_both_errors(base, tmp_path):
    curve = {"update": [25, 50], "loss_at_first_decision": [0.4, 0.1], "loss_at_first_decision_held_out": [0.4, 0.3]}
    cells = [dataclasses.replace(records(base, "K=8", tbptt(8, 4), seed, 8, 2, 0), curve=curve) for seed in (0, 1)]
    frame = training_frame(cells)
    assert len(frame) == 8 and set(frame["demonstrations"]) == {"training", "held-out demonstrations"}
    folder = ReportFolder(tmp_path, "a study", assign_colours(["K=8"]), print)
    text = training_section(folder, cells)
    assert (tmp_path / "first-decision.png").exists() and (tmp_path / "first-decision.csv").exists()
    assert any("first-decision.png" in line for line in text)
    plain = [dataclasses.replace(cell, curve={"update": [25], "loss_at_first_decision": [0.4]}) for cell in cells]
    assert training_section(folder, plain) == [], "nothing was held out"
