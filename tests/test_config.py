"""Strict configurations, canonical identities, differences."""

import math

import pytest

from experiments.recall_quick.study import study
from helpers.errors import refused
from muvla.config import Cell, MemoryConfig, canonical, dummy, ema, no_memory, tbptt
from muvla.config.serialization import (
    content_hash,
    difference,
    flatten,
    from_dict,
    identity,
    parse_assignments,
    replace,
    to_dict,
)
from muvla.errors import MuvlaError


def test_round_trip_and_hash_do_not_depend_on_field_order(base):
    shuffled = lambda data: dict(reversed(list(data.items())))  # noqa: E731
    assert from_dict(Cell, shuffled(to_dict(base))) == base
    assert content_hash(shuffled(identity(base))) == content_hash(base)


def test_identities_outlive_new_fields(base):
    """Of published cells, as they were before fields were added; a field added later, once it is used, counts."""
    cells = {c.variant: content_hash(canonical(c.cell)) for c in study.cells() if c.cell.seed == 0}
    assert (cells["none"], cells["K=8"], cells["H=4, K=2"]) == ("ba0b21ce9368", "2fb6a2676472", "bd82562ac9a2")
    assert content_hash(replace(base, {"model.images": "released"})) != content_hash(base)
    assert content_hash(replace(base, {"start.checkpoint": "x", "lora.rank": 4})) != content_hash(
        replace(base, {"start.checkpoint": "x"})
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"memory.width": 4},
        {"memori.m": 4},
        {"truncation": 3},
        {"truncation": 0},
        {"truncation": 16},
        {"truncation": 3, "budget.regime": "matched_frames"},
        {"truncation": 0, "budget.regime": "published"},
        {"budget.regime": "equal"},
        {"memory.m": -1},
        {"memory.alpha": 0.0},
        {"memory.alpha": 1.5},
        {"memory.alpha": 1e-30},
        {"memory.alpha": float("nan")},
        {"memory.m": "four"},
        {"memory.m": True},
        {"memory.kind": "lstm"},
        {"optimizer.clip": -1.0},
        {"optimizer.lr": 0.0},
        {"budget.slots": 0},
        {"model.chunk": 0},
        {"data.labels": "oracle"},
        {"data.dataset.task.delay": [1]},
        {"intervention": "none"},
        {"optimizer.lr": math.inf},
        {"optimizer.betas": [2.0, 0.9]},
        {"optimizer.betas": [math.nan, 0.9]},
        {"optimizer.weight_decay": -0.1},
        {"optimizer.weight_decay": 1e30},
        {"optimizer.weight_decay": float("inf")},
        {"optimizer.lr": float("inf")},
        {"optimizer.final": 2.0},
        {"memory.init_std": -1.0},
        {"model.size.patch": 0},
        {"model.prompt_tokens": 0},
        {"model.size.dino.mlp": 100},
        {"data.dataset.episodes": 0},
        {"data.dataset.image_size": 14},
        {"data.dataset.seed": -1},
        {"data.order": "shuffled"},
        {"data.order": "sorted"},
        {"data.group": 0},
        {"lora.rank": 32},
        {"lora.rank": -1},
        {"lora.alpha": 0.0},
        {"lora.alpha": 1e30},
        {"lora.alpha": float("inf")},
        {"start.parts": "head"},
    ],
)
def test_bad_fields_are_refused_by_name(base, changes):
    """The first changed field is the refused one."""
    with refused(next(iter(changes))):
        replace(base, changes)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"memory.m": 9}, "model.reserve"),
        ({"data.dataset.task.cue": [3, 1]}, "task.cue"),
        ({"model.size": 7}, "model.size"),
        ({"model.size.heads": 5}, "model.size: heads"),
        ({"model.size.siglip.heads": 5}, "model.size tower: heads"),
    ],
)
def test_a_bad_combination_names_the_field_to_change(base, changes, field):
    with refused(field):
        replace(base, changes)


def test_a_missing_field_is_named():
    with refused("model"):
        from_dict(Cell, {})


def test_equal_computations_share_one_identity(cell_with):
    """Unused fields make no new cell; used ones do."""
    without = canonical(cell_with(no_memory()))
    for unused in (
        {"truncation": 1},
        {"memory.alpha": 0.5},
        {"memory.init_std": 1.0},
        {"memory.m": 0},
        {"intervention": "zero"},
    ):
        assert canonical(cell_with({**no_memory(), **unused})) == without, unused
    assert canonical(cell_with({"memory.m": 0})) == without, "tokens of width 0"
    assert canonical(cell_with({**dummy(4), "truncation": 1})) == canonical(cell_with(dummy(4)))
    full = canonical(cell_with({**no_memory(), "model.guard": "full"}))
    assert canonical(cell_with({**no_memory(), "model.guard": "memory_only"})) == full != without
    assert canonical(cell_with({"truncation": 1})) != canonical(cell_with({"truncation": 2}))
    assert canonical(cell_with({**dummy(4), "memory.init_std": 1.0})) != canonical(cell_with(dummy(4)))
    from_episode = {"truncation_from": "episode"}
    for same in (tbptt(1, 4), tbptt(8, 4), dummy(4), no_memory(), tbptt(2, 4) | {"budget.regime": "published"}):
        assert canonical(cell_with({**same, **from_episode})) == canonical(cell_with(same)), same
    assert canonical(cell_with({**tbptt(2, 4), **from_episode})) != canonical(cell_with(tbptt(2, 4)))
    shifted = {"model.memory_positions": "shift"}
    assert canonical(cell_with({**shifted, "model.reserve": 5})) == canonical(cell_with(shifted))
    assert canonical(cell_with(shifted)) == canonical(cell_with({"model.reserve": 4})), "a reserve of exactly m"
    assert canonical(cell_with({"start.parts": "weights", "lora.alpha": 1.0})) == canonical(cell_with())
    assert canonical(cell_with({"data.group": 4, "data.group_padding": "repeat"})) == canonical(cell_with())
    one = {"model.chunk": 1}
    assert canonical(cell_with({**one, "data.tail": "repeat"})) == canonical(cell_with(one))


@pytest.mark.parametrize(
    ("regime", "K", "W", "U", "frames"),
    [
        ("matched", 1, 8, 4, 128),
        ("matched", 2, 8, 4, 128),
        ("matched", 8, 8, 4, 128),
        ("matched_frames", 1, 1, 32, 128),
        ("matched_frames", 2, 2, 16, 128),
        ("matched_frames", 16, 16, 2, 128),
        ("published", 1, 1, 4, 16),
        ("published", 2, 2, 4, 32),
        ("published", 8, 8, 4, 128),
        ("published", 24, 24, 4, 384),
    ],
)
def test_a_regime_says_what_k_makes_of_the_budget(cell_with, regime, K, W, U, frames):
    """Declared: B = 4, W = 8, U = 4. The identity holds what comes out, not the regime that it came from."""
    cell = cell_with({"truncation": K, "budget.regime": regime})
    budget = cell.effective_budget
    assert (budget.slots, budget.window, budget.updates, budget.total_frames) == (4, W, U, frames)
    written_out = cell_with({"truncation": K, "budget.window": W, "budget.updates": U})
    assert canonical(cell) == canonical(written_out) == canonical(canonical(cell))
    assert content_hash(canonical(cell)) == content_hash(canonical(written_out))


def test_without_recurrence_every_regime_is_the_declared_budget(cell_with):
    for change in (no_memory(), dummy(4), {"memory.m": 0}):
        for regime in ("matched_frames", "published"):
            for K in (1, 8):
                turned = cell_with({**change, "budget.regime": regime, "truncation": K})
                assert canonical(turned) == canonical(cell_with(change))


def test_presets_are_points_of_two_independent_fields(cell_with):
    assert cell_with(ema(0.1, 4)).memory.alpha == 0.1 and cell_with(ema(0.1, 4)).truncation == 1
    assert cell_with(tbptt(8, 4)).memory.alpha == 1.0 and cell_with(tbptt(8, 4)).truncation == 8
    crossed = cell_with({**tbptt(8, 4), "memory.alpha": 0.1})
    assert (crossed.memory.alpha, crossed.truncation) == (0.1, 8)


def test_difference_names_exactly_what_differs(base, cell_with):
    assert difference(base, base) == {}
    assert difference(base, cell_with({"memory.m": 2, "seed": 7})) == {"memory.m": (4, 2), "seed": (0, 7)}
    assert set(flatten(base)) >= {"memory.m", "model.size.dino.width", "data.dataset.task.name"}


def test_assignments():
    assert parse_assignments(["memory.m=8", "optimizer.clip=null", "data.labels=masked"]) == {
        "memory.m": 8,
        "optimizer.clip": None,
        "data.labels": "masked",
    }
    with refused("--set"):
        parse_assignments(["memory.m"])


def test_errors_survive_a_process_boundary():
    import pickle

    error = MuvlaError("field", got=1, expected="two", remedy="add one")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) and isinstance(copy, MuvlaError)


def test_memory_config_defaults_are_no_memory():
    assert MemoryConfig().kind == "none"
