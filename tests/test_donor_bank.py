"""Of recorded episodes, who gives what to whom."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.errors import refused
from muvla.config import TaskConfig
from muvla.envs.registry import make_env
from muvla.errors import MuvlaError
from muvla.interventions import parse_intervention
from muvla.interventions.donors.bank import DonorBank
from muvla.interventions.donors.donor import Donor
from muvla.interventions.donors.ridge_direction import half_of


def state(*numbers):
    return {"tokens": torch.tensor(numbers, dtype=torch.float32).view(1, -1)}


def episodes(points, lengths=(0, 1, 1)):
    """One donor per (target, point), its state after the delay."""
    return tuple(Donor(i, target, lengths, {1: state(*point)}) for i, (target, point) in enumerate(points))


def info(target, lengths=(0, 1, 1)):
    return dict(zip(("blank_length", "cue_length", "delay_length"), lengths, strict=True)) | {"target": target}


def test_a_direction_leads_to_the_other_class_and_its_sham_stands_upright_on_it():
    """Two classes along the first axis, two apart; noise along the second."""
    rng = np.random.default_rng(0)
    points = [(i % 2, (2.0 * (i % 2), rng.normal(), 0.0, 0.0)) for i in range(200)]
    for argument in (1.0, 0.5):
        kind = replace(parse_intervention(f"direction({argument})"), bank=None)
        along = DonorBank(episodes(points), kind).assign(0, info(0))
        assert along.target == 1 and along.seed is None
        delta = along.state(1)["tokens"].flatten()
        assert delta.norm().item() == pytest.approx(argument * 2, rel=0.1)
        assert delta[0].item() / delta.norm().item() > 0.95
        sham = DonorBank(episodes(points), replace(kind, donor="orthogonal")).assign(0, info(0))
        other = sham.state(1)["tokens"].flatten()
        assert sham.target == 1 and other.norm().item() == pytest.approx(delta.norm().item(), rel=1e-5)
        assert abs(other @ delta).item() < 1e-4


def test_a_direction_is_fitted_without_the_recipientshalf_of():
    """Changing every episode of its own half changes nothing for it."""
    points = [(i % 2, (2.0 * (i % 2), float(i % 3), 0.0)) for i in range(40)]
    bank = DonorBank(episodes(points), parse_intervention("direction(1)"))
    first = bank.assign(0, info(0)).state(1)["tokens"]
    own = [i for i in range(40) if half_of(i) == half_of(0)]
    assert 5 < len(own) < 35
    changed = [(t, (9.0, 9.0, 9.0)) if i in own else (t, p) for i, (t, p) in enumerate(points)]
    again = DonorBank(episodes(changed), parse_intervention("direction(1)")).assign(0, info(0)).state(1)["tokens"]
    assert torch.equal(first, again)


def test_the_mean_is_of_the_same_phase_and_step_into_it():
    """Two episodes of different lengths, aligned at the phase's start; past the longest, its last."""
    donors = (
        Donor(0, 0, (0, 1, 1), {0: state(1), 1: state(10), 2: state(100)}),
        Donor(1, 1, (1, 1, 1), {0: state(5), 1: state(3), 2: state(20), 3: state(200), 4: state(400)}),
    )
    gift = DonorBank(donors, parse_intervention("mean")).assign(7, info(0, (0, 1, 1)))
    assert [gift.state(t)["tokens"].item() for t in range(6)] == [2, 15, 150, 400, 400, 400]
    assert (gift.seed, gift.target) == (None, None)


@pytest.mark.parametrize(
    ("name", "points", "field"),
    [
        (
            "transplant",
            [(1, (0.0,)), (1, (1.0,))],
            "intervention transplant, donors of episode seed 0",
        ),
        ("transplant_same", [(1, (0.0,)), (0, (1.0,))], "intervention transplant_same, donors of episode seed 0"),
        ("direction(1)", [(1, (0.0,)), (1, (1.0,))], "intervention direction(1), donors of episode seed 0"),
        ("transplant", [(None, (0.0,))], "intervention transplant, donors of episode seed 0"),
    ],
)
def test_a_pool_without_a_donor_is_refused_before_an_episode_runs(name, points, field):
    with refused(field):
        DonorBank(episodes(points), parse_intervention(name)).require()


def test_another_length_is_no_donor():
    donors = (*episodes([(0, (0.0,))]), replace(episodes([(1, (1.0,))], (0, 2, 1))[0], seed=5))
    with refused("intervention transplant, donors of episode seed 0"):
        DonorBank(donors, parse_intervention("transplant")).require()


def test_a_colour_is_remembered_and_its_place_is_the_recipients():
    """RecallColor: donors by identity; the gift's target is where that identity lies in the recipient's scene."""
    env = make_env(TaskConfig("RecallColor3-v0"))
    _, told = env.reset(seed=3)
    assert told["places_of"][told["identity"]] == told["target"] and sorted(told["places_of"]) == [0, 1, 2]
    donors = episodes([(0, (0.0,)), (1, (1.0,))])
    own = info(2) | {"identity": 0, "places_of": (2, 0, 1)}  # colour 0 lies at place 2, colour 1 at place 0
    for kind, expected in (("transplant", (1, 0)), ("transplant_self", (0, 2))):
        gift = DonorBank(donors, parse_intervention(kind)).assign(0, own)
        assert (gift.seed, gift.target) == expected


def test_the_mean_leaves_the_recipient_out_and_is_held_where_few_get():
    lengths = (0, 0, 0)
    ends = (1, 1, 3)  # only one of three gets past step 1
    donors = tuple(Donor(i, 0, lengths, {t: state(10 * i + t) for t in range(end + 1)}) for i, end in enumerate(ends))
    gift = DonorBank(donors, parse_intervention("mean")).assign(0, info(0, lengths))
    assert [gift.state(t)["tokens"].item() for t in range(4)] == [15, 16, 16, 16]
    with refused("intervention mean, donors of episode seed 0"):
        DonorBank(donors[:1], parse_intervention("mean")).assign(0, info(0, lengths))


def test_who_never_got_there_neither_gives_nor_is_given():
    donors = tuple(replace(one, states={}) if one.seed == 1 else one for one in episodes([(0, (0.0,)), (1, (1.0,))]))
    gift = DonorBank(donors, parse_intervention("transplant")).assign(1, info(1))
    assert (gift.seed, gift.target, gift.state(1)) == (None, None, None)
    with refused("intervention transplant, donors of episode seed 0"):
        DonorBank(donors, parse_intervention("transplant")).assign(0, info(0))


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("direction(4)[0:2]", "intervention direction"),
        ("orthogonal(4)[0:2]", "intervention orthogonal"),
        ("lesion(0)[0:2]", "intervention lesion"),
        ("permute_tokens[0:1]", "intervention permute_tokens"),
        ("stale(1)/after_write", "intervention stale(1)/after_write"),
    ],
)
def test_what_makes_no_sense_on_some_tokens_or_at_a_site_is_refused(name, field):
    with pytest.raises(MuvlaError) as info:
        parse_intervention(name)
    assert info.value.field == field
    assert parse_intervention("permute_tokens(identity)[0:1]").tokens == (0, 1)
