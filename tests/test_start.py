"""A training that starts from a released checkpoint, with adapters or without."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from helpers import released
from helpers.errors import printed_field, refused
from helpers.paths import ROOT
from helpers.release_size import ANATOMY, SIZE
from helpers.studies import DATASET
from muvla.checkpoints import native as ckpt
from muvla.checkpoints.build import build_policy, get_prompts, stored_parameters
from muvla.checkpoints.native_policy import load_policy
from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config import (
    BudgetConfig,
    Cell,
    DataConfig,
    MemoryConfig,
    ModelConfig,
    OptimizerConfig,
    StartConfig,
    no_memory,
)
from muvla.config.serialization import flatten, replace
from muvla.config.sizes import OPENVLA_7B, SIZES
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import declared_protocols
from muvla.evaluation.protocol import Protocol
from muvla.models.lora import MergedParameters, adapter_targets, get_adapters
from muvla.runs.run import Run
from muvla.runs.train import train_cell
from muvla.training.interface import get_interface
from muvla.training.options import TrainingOptions
from muvla.training.resume import resume
from muvla.training.run import train_to_the_end
from muvla.training.trainer import Trainer
from sweeps.cells import train_id
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.sweep import SweepOptions, run_study

LORA = {"lora.rank": 4, "lora.alpha": 8.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("start")


@pytest.fixture(scope="module")
def oft(folder):
    """Of the recall suite's robot: 2 action numbers, 2 of proprio."""
    return released.write(folder / "oft", "oft", action=2, proprio=2, own=ANATOMY)


@pytest.fixture(scope="module")
def muvla(folder):
    return released.write(folder / "muvla", "muvla", action=2, proprio=2, own=ANATOMY)


@pytest.fixture
def cell(oft):
    return Cell(
        model=ModelConfig(size=SIZE, chunk=2, reserve=8, images="resized"),
        data=DataConfig(DATASET),
        memory=MemoryConfig("tokens", 5),
        truncation=4,
        budget=BudgetConfig(slots=4, window=4, updates=4),
        optimizer=OptimizerConfig(lr=1e-3),
        start=StartConfig(str(oft)),
    )


def with_adapters(cell, **changes):
    return replace(cell, LORA | changes)


def policy_of(cell, store):
    return build_policy(cell, get_interface(store, get_prompts(cell), cell))


def values(policy):
    return {name: p.detach().clone() for name, p in policy.named_parameters()}


def test_the_checkpoint_gives_what_it_has_and_the_seed_the_rest(cell, oft, store):
    policy = policy_of(cell, store)
    reference = replace(cell, {"start.checkpoint": None})
    drawn, loaded = values(policy_of(reference, store)), dict(_of_the_release(oft))
    for name, value in values(policy).items():
        expected = drawn[name] if name == "memory.initial" else loaded.get(name)
        if expected is None:
            assert name.endswith("mask_token")
        else:
            assert torch.equal(value, expected), name
    assert policy.prompts.template.startswith("In: What action")


def _of_the_release(path):
    """A release of two action numbers, loaded as it would be for evaluation."""
    return ReleasedCheckpoint(path).load_policy().named_parameters()


def test_weights_alone_leave_the_head_to_the_seed(cell, store):
    everything, weights = (values(policy_of(replace(cell, {"start.parts": p}), store)) for p in ("all", "weights"))
    assert {n for n in weights if not torch.equal(weights[n], everything[n])} == {
        n for n in weights if n.startswith(("head.", "proprio."))
    } - {n for n in weights if torch.equal(weights[n], everything[n])}
    assert not torch.equal(weights["head.fc_in.weight"], everything["head.fc_in.weight"])
    drawn = values(policy_of(replace(cell, {"start.checkpoint": None}), store))
    assert torch.equal(weights["head.fc_in.weight"], drawn["head.fc_in.weight"])


def test_a_muvla_checkpoint_brings_its_memory_where_there_is_a_place(cell, muvla, store):
    here = replace(cell, {"start.checkpoint": str(muvla)})
    memory = dict(_of_the_release(muvla))["memory.initial"]
    assert torch.equal(policy_of(here, store).memory.initial, memory)
    assert not torch.equal(policy_of(replace(here, {"start.parts": "weights"}), store).memory.initial, memory)
    assert policy_of(replace(here, no_memory()), store).memory.tokens == 0, "a declared ablation"
    with pytest.raises(MuvlaError) as info:
        policy_of(replace(here, {"memory.m": 3}), store)
    assert info.value.field.endswith("muvla")


def test_an_openvla_checkpoint_is_a_base(cell, folder, store):
    path = released.write(folder / "openvla", "openvla", own=ANATOMY)
    assert policy_of(replace(cell, {"start.checkpoint": str(path)}), store).interface.action_dim == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model.size.layers": 3}, "model.size"),
        ({"start.checkpoint": "/nowhere"}, "/nowhere/config.json"),
    ],
)
def test_a_start_that_does_not_fit_is_one_error(cell, store, changes, field):
    with refused(field):
        policy_of(replace(cell, changes), store)


def test_another_robots_head_is_named_with_the_way_out(cell, folder, store):
    path = released.write(folder / "seven", "oft", own=ANATOMY)
    with pytest.raises(MuvlaError) as info:
        policy_of(replace(cell, {"start.checkpoint": str(path)}), store)
    assert info.value.field.endswith("seven")


# --- adapters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "count"), [(OPENVLA_7B, 6 * 23 + 6 * 26 + 3 + 7 * 32), (SIZE, 12 + 12 + 3 + 14)])
def test_every_linear_layer_that_computes_has_an_adapter(size, count):
    """Of 7B: 521 of them."""
    assert len(adapter_targets(size)) == len(set(adapter_targets(size))) == count


def test_adapters_add_nothing_at_the_start_and_train_alone(cell, store):
    """The policy computes what it computed; what is trained: A and B of every target, head, proprio, memory."""
    plain, policy = policy_of(cell, store), policy_of(with_adapters(cell), store)
    assert set(get_adapters(policy)) == set(adapter_targets(SIZE))
    before, after = values(plain), MergedParameters(policy)
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    trained = {n for n, p in policy.named_parameters() if p.requires_grad}
    rest = {n for n in trained if ".lora_" not in n}
    assert len(trained - rest) == 2 * len(adapter_targets(SIZE))
    assert rest == {n for n in before if n.startswith(("head.", "proprio.", "memory."))}
    assert set(stored_parameters(policy, with_adapters(cell))) == trained


def test_an_update_moves_the_adapters_and_leaves_what_is_frozen(cell, store):
    trainer = Trainer(with_adapters(cell), store)
    before = values(trainer.policy)
    for _ in range(2):  # in the first, A has no gradient: B is zero
        trainer.step()
    for name, value in values(trainer.policy).items():
        moves = name in trainer.names
        assert torch.equal(value, before[name]) != moves, name


def test_merged_and_unmerged_actions_agree(cell, store):
    """The adapters' product added to the weights, in a policy without adapters."""
    trainer = Trainer(with_adapters(cell, **{"optimizer.lr": 1e-2}), store)
    for _ in range(3):
        trainer.step()
    merged = policy_of(cell, store)
    values = dict(MergedParameters(trainer.policy))
    merged.load_state_dict(values)
    window = trainer.stream.window(1)
    outputs = []
    for policy in (trainer.policy, merged, policy_of(cell, store)):
        frames = (t.flatten(0, 1) for t in (window.images, window.proprio, window.text_ids))
        with torch.no_grad():
            encoded = policy.encode(*frames, window.text_lengths.flatten())
            outputs.append(policy.step(encoded, values["memory.initial"].expand(4, -1, -1)).actions)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    assert (outputs[0] - outputs[2]).abs().max() > 1e-2, "or the adapters would not have been tested"


@pytest.mark.parametrize("knob", ["lora.rank", "lora.alpha", "start.parts"])
def test_the_knobs_bite(cell, store, knob):
    def trained(changes):
        trainer = Trainer(with_adapters(cell, **changes), store)
        for _ in range(2):
            trainer.step()
        return dict(MergedParameters(trainer.policy))

    turned = {"lora.rank": 2, "lora.alpha": 1.0, "start.parts": "weights"}[knob]
    one, other = trained({}), trained({knob: turned})
    assert any(not torch.equal(one[n], other[n]) for n in one)


def test_half_precision_keeps_what_is_trained_in_single(cell, store):
    """Frozen matrices in bfloat16; memory, adapters, head and everything that is summed in float32; and the actions are
    near those of float32, but not they."""
    trainers = [Trainer(with_adapters(cell, **{"model.precision": p}), store) for p in ("float32", "bfloat16")]
    half = trainers[1].policy
    for name, p in half.named_parameters():
        frozen_matrix = not p.requires_grad and p.ndim > 1 and not name.endswith("mask_token")  # never read
        assert p.dtype == (torch.bfloat16 if frozen_matrix else torch.float32), name
    losses = [trainer.backward(trainer.stream.window(4)) for trainer in trainers]
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.05)
    assert trainers[1].recurrence.state["tokens"].dtype == torch.float32
    assert {p.grad.dtype for p in trainers[1].parameters if p.grad is not None} == {torch.float32}


@pytest.mark.parametrize("lora", [{}, LORA], ids=["full", "lora"])
def test_resume_equals_uninterrupted_bit_for_bit(cell, store, tmp_path, lora):
    cell = replace(cell, {**lora, "budget.updates": 5})
    whole = train_to_the_end(Trainer(cell, store), tmp_path / "whole")
    stops = iter([False, True])
    train_to_the_end(Trainer(cell, store), tmp_path / "cut", should_stop=lambda: next(stops))
    cut = train_to_the_end(Trainer(cell, store), tmp_path / "cut")
    one, two = (ckpt.load(p).tensors for p in (whole, cut))
    for part in one:
        assert one[part].keys() == two[part].keys() and all(torch.equal(one[part][n], two[part][n]) for n in one[part])
    assert all(not n.endswith("mask_token") for n in one["model"]), "what is frozen is not written"


def test_identity_is_the_content_and_not_the_place(cell, folder, oft, store, tmp_path):
    import shutil

    moved = Path(shutil.copytree(oft, tmp_path / "elsewhere"))
    (moved / "README.md").write_text("a model card")
    there = replace(cell, {"start.checkpoint": str(moved)})
    assert train_id(there, store) == train_id(cell, store)
    train_to_the_end(Trainer(cell, store), tmp_path / "run")
    resume(Trainer(there, store), ckpt.load(ckpt.latest(tmp_path / "run" / "checkpoints")))
    meta = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(meta | {"transformers_version": "9.9"}))
    assert train_id(there, store) != train_id(cell, store)
    with pytest.raises(MuvlaError) as info:
        resume(Trainer(there, store), ckpt.load(ckpt.latest(tmp_path / "run" / "checkpoints")))
    assert info.value.field == "checkpoint start"


def test_what_it_started_from_must_still_be_there(cell, store, tmp_path):
    path = released.write(tmp_path / "oft", "oft", action=2, proprio=2, own=ANATOMY)
    here = with_adapters(cell, **{"start.checkpoint": str(path)})
    saved = ckpt.load(train_to_the_end(Trainer(here, store), tmp_path / "run"))
    one, again = load_policy(saved), Trainer(here, store)
    resume(again, saved)
    assert all(torch.equal(p, dict(again.policy.named_parameters())[n]) for n, p in one.named_parameters())
    (path / "tokenizer.json").write_text((path / "tokenizer.json").read_text() + " ")
    with pytest.raises(MuvlaError) as info:
        load_policy(saved)
    assert info.value.field.endswith("oft")


# --- from the command line --------------------------------------------------------------------------------------------

STUDY = """
from muvla.config import *
from muvla.evaluation.catalog import declared_protocols
from muvla.evaluation.protocol import Protocol
from muvla.config.sizes import SIZES
from sweeps.study import Study

dataset = DatasetConfig(task=TaskConfig("RecallPosition3-v0"), episodes=24)
base = Cell(
    model=ModelConfig(size=SIZES["fixture"], chunk=2, reserve=8, images="resized"),
    data=DataConfig(dataset),
    memory=MemoryConfig("tokens", 5),
    truncation=4,
    budget=BudgetConfig(slots=8, window=4, updates=60),
    optimizer=OptimizerConfig(lr=3e-3),
    start=StartConfig({checkpoint!r}),
    lora=LoraConfig(rank=4, alpha=8.0),
)
study = Study(
    name="start", title="from a release", base=base, variants={{"K=4": {{}}, "none": no_memory()}},
    factors=("memory.kind", "memory.m"), seeds=(0,),
    protocols=(Protocol("start", 1, TaskConfig("RecallPosition3-v0"), episodes=4, slots=2),),
)
"""


@pytest.mark.slow
def test_a_release_is_fine_tuned_with_adapters_and_memory(oft, tmp_path, monkeypatch, capsys):
    """Issue: the loss falls. Then it is evaluated, inspected, and not trained again."""
    monkeypatch.setitem(SIZES, "fixture", SIZE)
    file = tmp_path / "study.py"
    file.write_text(STUDY.format(checkpoint=str(oft)))
    folders = ["--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data")]
    assert main(["train", str(file), "--variant", "K=4", *folders]) == 0
    (run,) = (p for p in (tmp_path / "runs").iterdir() if p.is_dir())
    losses = [json.loads(line)["loss"] for line in (run / "train.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.7 * losses[0]
    logged = (run / "train.jsonl").stat().st_mtime_ns
    assert main(["train", str(file), "--variant", "K=4", *folders]) == 0
    assert (run / "train.jsonl").stat().st_mtime_ns == logged, "what is trained is not trained again"
    assert main(["inspect", str(run)]) == 0
    out = capsys.readouterr().out
    for fact in (str(oft), "rank 4", "H = 2", "l1", "float32"):
        assert fact in out
    assert main(["sweep", str(file), "--no-tracking", "--processes", "1", *folders]) == 0
    monkeypatch.setitem(declared_protocols(), "start@1", Protocol("start", 1, DATASET.task, episodes=4, slots=2))
    assert main(["evaluate", run.name, "--protocol", "start@1", *folders]) == 0
    assert main(["intervene", run.name, "zero", "--protocol", "start@1", *folders]) == 0
    out = capsys.readouterr().out
    assert "start@1 none" in out and "start@1 zero" in out
    assert main(["report", str(file), *folders]) == 0
    assert "K=4" in (tmp_path / "runs" / "report" / "start" / "main.md").read_text()
    for option in (["--precision", "bfloat16"], ["--without-memory"], ["--statistics", "x"], ["--size", "tiny"]):
        assert main(["evaluate", run.name, *option, "--protocol", "start@1", *folders]) == EXIT_BAD_INPUT
        assert printed_field(capsys) == option[0]


def test_what_changes_between_plan_and_training_is_refused(cell, store, tmp_path):
    """A branch of the hub that moves, a folder that is written over: the run folder of one id never holds another."""
    path = released.write(tmp_path / "oft", "oft", action=2, proprio=2, own=ANATOMY)
    here = replace(cell, {"start.checkpoint": str(path)})
    run = Run(tmp_path / "runs", store.path.parent, train_id(here, store))
    (path / "config.json").write_text((path / "config.json").read_text() + " ")
    with refused(f"start.checkpoint {path}"), run.working():
        train_cell(run, here, store, "cpu")


def test_one_checkpoint_at_two_places_is_one_computation(oft, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setitem(SIZES, "fixture", SIZE)
    (tmp_path / "study.py").write_text(STUDY.format(checkpoint=str(oft)))
    study = load_study(tmp_path)
    copy = str(shutil.copytree(oft, tmp_path / "copy"))
    twice = dataclasses.replace(
        study, variants={"one": {}, "two": {"start.checkpoint": copy}}, factors=("start.checkpoint",)
    )
    with pytest.raises(MuvlaError) as info:
        twice.check()
    assert info.value.field == "study start"


def test_frames_of_another_size_in_training_than_in_evaluation_are_refused(oft, tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "fixture", SIZE)
    (tmp_path / "study.py").write_text(STUDY.format(checkpoint=str(oft)))
    study = load_study(tmp_path)
    study.check()
    with pytest.raises(MuvlaError) as info:
        study.with_base({"data.dataset.image_size": 8}).check()
    assert info.value.field.endswith("image_size") and info.value.got == 32


def test_a_relative_place_is_found_from_anywhere(cell, oft, store, tmp_path, monkeypatch):
    monkeypatch.chdir(oft.parent)
    here = replace(cell, {"start.checkpoint": "./oft", "budget.updates": 1})
    run = Run(tmp_path / "runs", store.path.parent, train_id(here, store))
    with run.working():
        train_cell(run, here, store, "cpu")
    monkeypatch.chdir(tmp_path)
    assert run.load_policy("cpu").memory.tokens == 5


def test_a_study_whose_start_is_missing_fails_before_anything(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SIZES, "fixture", SIZE)
    file = tmp_path / "study.py"
    file.write_text(STUDY.format(checkpoint=str(tmp_path / "nowhere")))
    assert main(["sweep", str(file), "--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "d")]) == EXIT_BAD_INPUT
    assert "nowhere" in capsys.readouterr().err and not (tmp_path / "d").exists()


def test_flattened_cells_show_where_they_start(cell):
    assert {"start.checkpoint", "start.parts", "lora.rank", "lora.alpha"} <= set(flatten(cell))


@pytest.mark.slow
def test_the_study_of_the_published_size_runs_on_a_tiny_checkpoint(folder, tmp_path):
    """experiments/openvla_remember with a tiny OpenVLA, the embedded suite and a tiny budget in place of the real ones;
    every variant, to the table."""
    path = released.write(folder / "base", "openvla", own=ANATOMY)
    study = load_study(ROOT / "experiments" / "openvla_remember")
    tiny = {
        "model.size": SIZE,
        "start.checkpoint": str(path),
        "data.dataset": DATASET,
        "lora.rank": 4,
        "budget.updates": 2,
    }
    protocol = Protocol("tiny", 1, DATASET.task, episodes=2, slots=2)
    study = dataclasses.replace(study.with_base(tiny), protocols=(protocol,)).narrowed(seeds=(0,))
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    said: list[str] = []
    options = SweepOptions(processes=2, track=False, training=TrainingOptions(checkpoint_gradients=True))
    result = run_study(study, ledger, options, said.append)
    assert not result.failed and not result.not_run and len(result.entries) == 6, "\n".join(said)
    rows = [row for entry in result.entries for of_one in entry.complete_rows().values() for row in of_one]
    assert len(rows) == 2 * (1 + 5 * 5) and not any(row.error for row in rows)
