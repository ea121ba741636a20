"""Trained policies with an action expert: evaluated on a recall task, intervened upon, and exported."""

import pytest
import torch

from helpers.experts import COGACT, CRONUSVLA, MEMORYVLA, with_expert_output
from helpers.runs import trained
from muvla.checkpoints.build import build_policy
from muvla.checkpoints.opening import open_checkpoint
from muvla.config import TaskConfig
from muvla.data.normalization import Statistics
from muvla.envs.registry import make_env
from muvla.errors import MuvlaError
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.rollout import Rollout
from muvla.interventions import parse_intervention
from muvla.models.prompts import built_in_prompts
from muvla.runs.export import export
from muvla.runs.export_expert import require_published_expert
from muvla.training.interface import get_interface

PROTOCOL = Protocol("experts", 1, TaskConfig("RecallPosition3-v0"), episodes=2, slots=2)


@pytest.fixture(scope="module")
def run_of(store, cell_with, tmp_path_factory):
    """A trained cell of three updates."""
    made = {}

    def run(name, policy):
        if name not in made:
            made[name] = trained(cell_with(policy | {"budget.updates": 3}), store, tmp_path_factory.mktemp(name))
        return made[name]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("intervention", [None, "zero_perception", "empty", "noise_relative(1)/read"])
def test_a_policy_plays_the_recall_task_and_takes_interventions(store, cell_with, intervention):
    """By the rollout of every policy: writes are counted, the leak test runs, the memory moves or is frozen."""
    cell = cell_with(MEMORYVLA | {"model.chunk": 1})
    policy = with_expert_output(build_policy(cell, get_interface(store, built_in_prompts(), cell)))
    statistics = Statistics.from_store(store)
    actor = PolicyActor(policy, statistics, PROTOCOL, intervention and parse_intervention(intervention))
    outcomes = []
    Rollout(actor, lambda: make_env(PROTOCOL.task, None)).run([900, 901], outcomes.append)
    assert [outcome.error for outcome in outcomes] == [None, None] and actor.ticks > 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "policy"), [("cogact", COGACT), ("memoryvla", MEMORYVLA), ("cronusvla", CRONUSVLA)])
def test_an_exported_cell_is_a_training_of_the_published_code(run_of, tmp_path, name, policy):
    run = run_of(name, policy)
    export(run, tmp_path / "out", "recall")
    directory = open_checkpoint(tmp_path / "out")
    assert directory.family == name and directory.differences() == [] and list(directory.statistics) == ["recall"]
    ours, theirs = run.load_policy("cpu"), directory.load_policy()
    assert theirs.config.expert == ours.config.expert and theirs.config.chunk == ours.config.chunk
    values = dict(theirs.named_parameters())
    for parameter_name, parameter in ours.named_parameters():
        if not parameter_name.startswith("vision.dino.embeddings."):  # the class token has one form in the release
            torch.testing.assert_close(values[parameter_name], parameter, rtol=0, atol=0, msg=parameter_name)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"memory.details": "dexbotic", "memory.heads": 4}, "memory.details"),
        ({"memory.consolidation": "counted_merge"}, "memory.consolidation"),
        ({"memory.emptied": True}, "memory.emptied"),
        ({"memory.place": "fuse"}, "memory.place"),
        ({"model.causal": False}, "model.causal"),
        ({"model.proprio": True}, "model.proprio"),
    ],
)
def test_a_cell_that_the_published_code_cannot_compute_is_refused(cell_with, changes, field):
    require_published_expert(cell_with(MEMORYVLA))
    with pytest.raises(MuvlaError) as info:
        require_published_expert(cell_with(MEMORYVLA | changes))
    assert info.value.field == field
