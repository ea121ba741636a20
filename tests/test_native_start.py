"""A training that starts from the weights of a training of this project."""

import dataclasses
import shutil

import pytest
import torch

from muvla.checkpoints.build import build_policy, get_prompts, hash_start
from muvla.config import StartConfig, no_memory, tbptt
from muvla.config.serialization import replace
from muvla.errors import MuvlaError
from muvla.runs.export import export
from muvla.runs.run import Run
from muvla.runs.train import train_cell
from muvla.training.interface import get_interface
from muvla.training.options import TrainingOptions
from muvla.training.trainer import Trainer
from sweeps.cells import train_id

SEEING = no_memory() | {"data.first_image": True, "data.cameras": [1], "model.proprio": False, "budget.updates": 2}


def trained(cell, store, root, options=TrainingOptions()) -> Run:  # noqa: B008
    run = Run(root, store.path.parent, train_id(cell, store))
    train_cell(run, cell, store, "cpu", options=options)
    return run


@pytest.fixture(scope="module")
def seen(store, base, tmp_path_factory):
    """A policy without memory that has the first image and one camera."""
    return trained(replace(base, SEEING), store, tmp_path_factory.mktemp("seeing"))


def remembering(base, run, **changes):
    """A cell with a memory, without the first image, from the weights of a run."""
    start = {"start.checkpoint": str(run.folder)}
    return replace(base, {**SEEING, "data.first_image": False, **tbptt(8, 4), **start, **changes})


def values(cell, store):
    policy = build_policy(cell, get_interface(store, get_prompts(cell), cell))
    return {name: parameter.detach() for name, parameter in policy.named_parameters()}


def test_weights_come_from_the_run_and_the_memory_from_the_seed(store, base, seen):
    cell = remembering(base, seen)
    learned, drawn = (
        dict(seen.load_policy().named_parameters()),
        values(replace(cell, {"start.checkpoint": None}), store),
    )
    started = values(cell, store)
    assert any(not torch.equal(learned[name], drawn[name]) for name in learned), "else nothing was learned"
    for name, value in started.items():
        assert torch.equal(value, drawn[name] if name.startswith("memory.") else learned[name]), name
    assert "memory.initial" in started
    alone = values(replace(cell, {"start.parts": "weights"}), store)
    for name, value in alone.items():
        from_run = name.startswith(("vision.", "language."))
        assert torch.equal(value, learned[name] if from_run else drawn[name]), name


def test_a_later_stage_takes_the_memory_too_and_is_loaded_again(store, base, seen, tmp_path):
    """Three stages; the last one starts from the second's memory."""
    second = trained(remembering(base, seen), store, tmp_path)
    third = remembering(base, second, **{"budget.window": 16, "truncation": 16})
    after = dict(second.load_policy().named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in values(third, store).items())
    run = trained(third, store, tmp_path)
    assert not torch.equal(run.load_policy().memory.initial, after["memory.initial"]), "it trained on"


def test_the_train_id_holds_the_content_and_not_the_place(store, base, seen, tmp_path):
    moved = tmp_path / "stage-0"
    shutil.copytree(seen.folder, moved)
    cell = remembering(base, seen)
    copied = replace(cell, {"start.checkpoint": str(moved)})
    by_seed = replace(cell, {"start.checkpoint": str(tmp_path / "stage-{seed}")})
    ids = {train_id(each, store) for each in (cell, copied, by_seed)}
    assert len(ids) == 1 and train_id(replace(cell, {"start.checkpoint": None}), store) not in ids
    assert hash_start(by_seed) == hash_start(cell)
    with pytest.raises(MuvlaError) as info:
        hash_start(dataclasses.replace(by_seed, seed=1))
    assert "stage-1" in info.value.field, "every training seed has a start of its own"
    Run(tmp_path, store.path.parent, "a" * 12).create(by_seed, store)
    assert Run(tmp_path, store.path.parent, "a" * 12).cell.start.checkpoint == str(moved)


def test_what_cannot_be_a_start_is_refused(store, base, seen, tmp_path):
    paused = trained(replace(base, SEEING), store, tmp_path, TrainingOptions(until=0.5))
    with pytest.raises(MuvlaError) as info:
        hash_start(remembering(base, paused))
    assert info.value.field == "start.checkpoint"
    wider = remembering(base, seen, **{"model.size.width": 48})
    with pytest.raises(MuvlaError) as info:
        hash_start(wider)
    assert info.value.field == "model.size"
    remembered = trained(replace(base, {"budget.updates": 1}), store, tmp_path)
    narrower = replace(base, {"start.checkpoint": str(remembered.folder), "memory.m": 2})
    with pytest.raises(MuvlaError) as info:
        Trainer(narrower, store)
    assert info.value.field == "start.checkpoint"
    Trainer(replace(narrower, {"start.parts": "weights"}), store)


def test_the_published_code_cannot_run_such_a_cell(store, base, seen, tmp_path):
    run = Run(tmp_path, store.path.parent, "b" * 12)
    cell = remembering(base, seen)
    assert isinstance(cell.start, StartConfig)
    run.create(cell, store)
    with pytest.raises(MuvlaError):
        export(run, tmp_path / "release", "recall")
