"""Which checkpoints stay, and which of them counts."""

import shutil

import pytest
import torch

from muvla.checkpoints import native as ckpt
from muvla.config import SELECTIONS, canonical, train_id
from muvla.config.serialization import replace
from muvla.errors import MuvlaError
from muvla.runs.run import Run
from muvla.runs.train import train_cell
from muvla.training.options import TrainingOptions
from muvla.training.run import train_to_the_end
from muvla.training.selection import Selection
from muvla.training.trainer import Trainer


class Scripted(Trainer):
    """Trains as ever and reports losses that were written down."""

    losses = ()

    def step(self, diagnosis=None):
        _, norm = super().step(diagnosis)
        return self.losses[self.update - 1], norm


def kept(folder):
    return sorted(int(p.name.removeprefix("update-")) for p in (folder / "checkpoints").glob("update-*"))


def scripted(monkeypatch, losses):
    monkeypatch.setattr(Scripted, "losses", losses)


@pytest.mark.parametrize(
    ("keep", "left"),
    [pytest.param(1, [8], marks=pytest.mark.slow), (2, [6, 8]), pytest.param(9, [2, 4, 6, 8], marks=pytest.mark.slow)],
)
def test_the_newest_checkpoints_stay(store, cell_with, tmp_path, keep, left):
    train_to_the_end(Trainer(cell_with({"budget.updates": 8}), store), tmp_path, options=TrainingOptions(keep=keep))
    assert kept(tmp_path) == left
    assert ckpt.selected(tmp_path / "checkpoints").name == "update-000008", "without a declared reading the last counts"


def test_the_best_stays_and_is_what_is_evaluated(store, cell_with, tmp_path, monkeypatch):
    """Means of two updates each: 3, 1, 2, 1. The earlier of the equal ones counts."""
    scripted(monkeypatch, [4.0, 2.0, 1.5, 0.5, 2.0, 2.0, 0.0, 2.0])
    cell = cell_with({"budget.updates": 8, "selection": "loss"})
    monkeypatch.setattr("muvla.runs.train.Trainer", Scripted)
    run = Run(tmp_path / "runs", store.path.parent, train_id(cell, store.sha256, None))
    train_cell(run, cell, store, "cpu")
    assert kept(run.folder) == [4, 8] and run.is_trained
    assert run.checkpoint().update == 4
    trainer = Trainer(cell, store)
    for _ in range(4):
        trainer.step()
    for name, parameter in run.load_policy("cpu").named_parameters():
        assert torch.equal(parameter, trainer.policy.get_parameter(name)), name
    final = cell_with({"budget.updates": 8})
    assert train_id(final, store.sha256, None) != run.train, "another checkpoint is another result"
    shutil.rmtree(run.folder / "checkpoints" / "update-000004")
    with pytest.raises(MuvlaError) as info:
        run.checkpoint()
    assert info.value.field.endswith("update-000004")


@pytest.mark.parametrize("stop", [3, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (1, 4, 5))])
def test_what_is_selected_does_not_depend_on_interruptions(store, cell_with, tmp_path, monkeypatch, stop):
    scripted(monkeypatch, [0.3, 0.1, 0.7, 0.2, 0.1, 0.3, 0.4, 0.6])
    cell = cell_with({"budget.updates": 8, "selection": "loss"})
    train_to_the_end(Scripted(cell, store), tmp_path / "whole")
    seen = []
    train_to_the_end(Scripted(cell, store), tmp_path / "cut", should_stop=lambda: seen.append(0) or len(seen) == stop)
    assert ckpt.load(ckpt.latest(tmp_path / "cut" / "checkpoints")).update == stop
    train_to_the_end(Scripted(cell, store), tmp_path / "cut")
    whole, cut = (ckpt.load(ckpt.selected(tmp_path / name / "checkpoints")) for name in ("whole", "cut"))
    assert whole.update == cut.update == 2 and kept(tmp_path / "whole") == kept(tmp_path / "cut") == [2, 8]
    for part in ckpt.FILES:
        assert all(torch.equal(value, cut.tensors[part][name]) for name, value in whole.tensors[part].items()), part
    last = [ckpt.load(ckpt.latest(tmp_path / name / "checkpoints")) for name in ("whole", "cut")]
    assert last[0].selection == last[1].selection


def test_a_selection_continues_where_it_was_saved():
    whole, cut = Selection(None), Selection(None)
    for i, loss in enumerate([0.1, 0.2, 0.7, 0.1], start=1):
        for one in (whole, cut):
            one.add(loss)
            if i % 2 == 0:
                one.candidate(i)
        cut = Selection(cut.state())
    assert whole.state() == cut.state() and whole.best == 2


@pytest.mark.parametrize("reading", ["success", "touch_rate", "choice_accuracy", "best"])
def test_a_reading_of_the_test_selects_nothing(cell_with, reading):
    with pytest.raises(MuvlaError) as info:
        cell_with({"selection": reading})
    assert info.value.field == "selection"


def test_selection_is_part_of_what_a_cell_is(cell_with, base):
    assert base.selection == SELECTIONS[0] and canonical(cell_with({"selection": "loss"})) != canonical(base)
    only = cell_with({"budget.updates": 1})
    assert canonical(replace(only, {"selection": "loss"})) == canonical(only), "one checkpoint leaves no choice"


def test_a_checkpoint_from_before_there_was_a_selection_is_read(store, base, tmp_path):
    from muvla.utils.io import read_json, write_json

    path = train_to_the_end(Trainer(base, store), tmp_path)
    meta = read_json(path / ckpt.META)
    del meta["selection"], meta["cell"]["selection"]
    write_json(path / ckpt.META, meta)
    assert ckpt.load(path).selection is None and ckpt.selected(path.parent) == path


def test_no_checkpoint_at_all_is_refused():
    with pytest.raises(MuvlaError) as info:
        TrainingOptions(keep=0)
    assert info.value.field == "--keep-checkpoints"
