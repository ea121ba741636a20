"""What an intervention takes from other episodes: who gives, what is given, and what the rows tell of it."""

from contextlib import nullcontext
from dataclasses import MISSING, fields, replace

import numpy as np
import pytest
import torch

from muvla.config import TaskConfig, dummy, no_memory
from muvla.envs.registry import make_env
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.evaluation.chunks import ChunkFile, chunk_change
from muvla.evaluation.evaluate import evaluate
from muvla.evaluation.protocol import protocol
from muvla.evaluation.records import EpisodeRow, choices, result_id
from muvla.evaluation.rollout import Rollout
from muvla.interventions import intervention
from muvla.interventions.donors import Donor, DonorBank, with_donors
from muvla.training.loop import Trainer

TASK = TaskConfig("RecallPosition3-v0", cue=(1, 1), delay=(1, 1), blank=(1, 1))
SHORT = replace(protocol("recall-position3-rh@1"), name="short", task=TASK, episodes=18, slots=9)
N = SHORT.episodes
GIVEN = ["transplant", "transplant_same", "transplant_self", "direction(4)", "orthogonal(4)", "mean"]


@pytest.fixture(scope="module")
def trained(store, cell_with):
    trainer = Trainer(cell_with({"budget.updates": 30, "model.chunk": 4}), store)
    for _ in range(30):
        trainer.step()
    return trainer


@pytest.fixture(scope="module")
def recorded():
    return {}


def bound(trained, recorded, name, one=SHORT):
    return with_donors(name, trained.policy, trained.statistics, one, recorded)


def outcomes(trained, kind, one=SHORT, seeds=None):
    """By seed: what the row tells, and the chunks."""
    found = {}
    rollout = Rollout(trained.policy, trained.statistics, one, lambda: make_env(one.task), kind)
    rollout.run(seeds or range(one.seed, one.seed + one.episodes), lambda o: found.update({o.seed: o}))
    return found


def chunks(outcome):
    return np.stack([chunk for _, chunk in outcome.ticks])


def told(outcome):
    ignored = ("fired", "donor_seed", "donor_target")
    return {k: v for k, v in outcome.info.items() if k not in ignored}


def evaluated(trained, folder, kind, one=SHORT):
    return evaluate(
        trained.policy, trained.statistics, one, kind, train="abc", training_seed=0, training_episodes=(range(24),),
        rows=folder / "rows", record=lambda _: nullcontext("p"), chunks=folder / "chunks",
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain(trained):
    return outcomes(trained, None)


@pytest.mark.parametrize("name", ["transplant_self", "transplant_self[0:2]/before_read@cue_end", "direction(0)",
                                  "orthogonal(0)@first_decision", "transplant_self@0.."])  # fmt: skip
def test_what_is_given_by_itself_changes_nothing(trained, recorded, plain, name):
    again = outcomes(trained, bound(trained, recorded, name))
    for seed, outcome in plain.items():
        assert told(outcome) == told(again[seed]) and np.array_equal(chunks(outcome), chunks(again[seed]))
    assert sum(o.info["fired"] for o in again.values()) >= len(again), "it acted nevertheless"


@pytest.mark.parametrize("name", GIVEN)
def test_it_bites_from_its_step_on_and_not_before(trained, recorded, plain, name):
    moved = outcomes(trained, bound(trained, recorded, name))
    after = []
    for seed, outcome in plain.items():
        info = outcome.info
        # After the write of the delay's last step: first read at the decision's first. The mean replaces all along.
        decision = info["blank_length"] + info["cue_length"] + info["delay_length"]
        a, b = chunks(outcome), chunks(moved[seed])
        assert name == "mean" or np.array_equal(a[:decision], b[:decision])
        after.append(np.abs(a[decision] - b[decision]).max())
    assert (min(after) > 0) == (max(after) > 0) == (name != "transplant_self")


@pytest.mark.parametrize("name", GIVEN)
def test_rows_do_not_depend_on_order_or_neighbours(trained, recorded, name):
    kind = bound(trained, recorded, name)
    forward = outcomes(trained, kind)
    few = outcomes(trained, kind, seeds=[SHORT.seed + 9, SHORT.seed + 3])
    assert all(few[seed].info == forward[seed].info for seed in few)


def test_donors_are_matched_and_told(trained, recorded, plain):
    for name, wanted in (("transplant", "other"), ("transplant_same", "same"), ("transplant_self", "self")):
        for seed, outcome in outcomes(trained, bound(trained, recorded, name)).items():
            donor = plain[outcome.info["donor_seed"]].info
            assert outcome.info["donor_target"] == donor["target"] and outcome.info["fired"] == 1
            for length in ("blank_length", "cue_length", "delay_length"):
                assert donor[length] == outcome.info[length]
            assert (donor["target"] == outcome.info["target"]) == (wanted != "other")
            assert (outcome.info["donor_seed"] == seed) == (wanted == "self")


def test_who_gives_does_not_depend_on_when_or_where(trained, recorded):
    givers = [
        {seed: o.info["donor_seed"] for seed, o in outcomes(trained, bound(trained, recorded, name)).items()}
        for name in ("transplant", "transplant[0:1]/before_read@cue_end")
    ]
    assert givers[0] == givers[1]


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
        kind = replace(intervention(f"direction({argument})"), bank=None)
        along = DonorBank(episodes(points), kind).gift(0, info(0))
        assert along.target == 1 and along.seed is None
        delta = along.state(1)["tokens"].flatten()
        assert delta.norm().item() == pytest.approx(argument * 2, rel=0.1)
        assert delta[0].item() / delta.norm().item() > 0.95
        sham = DonorBank(episodes(points), replace(kind, donor="orthogonal")).gift(0, info(0))
        other = sham.state(1)["tokens"].flatten()
        assert sham.target == 1 and other.norm().item() == pytest.approx(delta.norm().item(), rel=1e-5)
        assert abs(other @ delta).item() < 1e-4


def test_a_direction_is_fitted_without_the_recipients_half():
    """Changing every episode of its own half changes nothing for it."""
    points = [(i % 2, (2.0 * (i % 2), float(i % 3), 0.0)) for i in range(40)]
    bank = DonorBank(episodes(points), intervention("direction(1)"))
    first = bank.gift(0, info(0)).state(1)["tokens"]
    from muvla.interventions.donors import _half

    own = [i for i in range(40) if _half(i) == _half(0)]
    assert 5 < len(own) < 35
    changed = [(t, (9.0, 9.0, 9.0)) if i in own else (t, p) for i, (t, p) in enumerate(points)]
    again = DonorBank(episodes(changed), intervention("direction(1)")).gift(0, info(0)).state(1)["tokens"]
    assert torch.equal(first, again)


def test_the_mean_is_of_the_same_phase_and_step_into_it():
    """Two episodes of different lengths, aligned at the phase's start; past the longest, its last."""
    donors = (
        Donor(0, 0, (0, 1, 1), {0: state(1), 1: state(10), 2: state(100)}),
        Donor(1, 1, (1, 1, 1), {0: state(5), 1: state(3), 2: state(20), 3: state(200), 4: state(400)}),
    )
    gift = DonorBank(donors, intervention("mean")).gift(7, info(0, (0, 1, 1)))
    assert [gift.state(t)["tokens"].item() for t in range(6)] == [2, 15, 150, 400, 400, 400]
    assert (gift.seed, gift.target) == (None, None)


@pytest.mark.parametrize(
    ("name", "points", "message"),
    [("transplant", [(1, (0.0,)), (1, (1.0,))], r"seed 0.*none among 2 episodes of blank 0, cue 1, delay 1.*another"),
     ("transplant_same", [(1, (0.0,)), (0, (1.0,))], "none among 2 episodes.*target 1, besides itself"),
     ("direction(1)", [(1, (0.0,)), (1, (1.0,))], "in the other half"),
     ("transplant", [(None, (0.0,))], "a task without target")],
)  # fmt: skip
def test_a_pool_without_a_donor_is_refused_before_an_episode_runs(name, points, message):
    with pytest.raises(MuvlaError, match=message):
        DonorBank(episodes(points), intervention(name)).require()


def test_another_length_is_no_donor():
    donors = (*episodes([(0, (0.0,))]), replace(episodes([(1, (1.0,))], (0, 2, 1))[0], seed=5))
    with pytest.raises(MuvlaError, match="none among 1 episodes"):
        DonorBank(donors, intervention("transplant")).require()


@pytest.mark.slow
def test_on_dummy_a_transplant_is_nothing(store, cell_with):
    """All episodes have one memory; and what is added along a decoder that can tell nothing apart is nothing."""
    trainer = Trainer(cell_with({**dummy(4), "model.chunk": 4}), store)
    plain, recorded = outcomes(trainer, None), {}
    for name in ("transplant", "direction(4)"):
        moved = outcomes(trainer, bound(trainer, recorded, name))
        assert all(np.array_equal(chunks(plain[seed]), chunks(moved[seed])) for seed in plain)


def test_one_bank_serves_all_kinds_at_a_site_and_schedule(trained, monkeypatch):
    recorded, runs = {}, []
    run = Rollout.run
    monkeypatch.setattr(Rollout, "run", lambda *a: runs.append(1) or run(*a))
    for name in ("transplant", "transplant_same", "orthogonal(2)", "transplant[0:1]"):
        bound(trained, recorded, name)
    assert len(runs) == 1
    bound(trained, recorded, "transplant@cue_end")
    assert len(runs) == 2


# --- rows, choices, chunks --------------------------------------------------------------------------------------------


def test_rows_tell_who_gave_and_choices_are_counted(trained, recorded, tmp_path):
    rows = evaluated(trained, tmp_path, bound(trained, recorded, "transplant")).rows
    assert all(row.fired == 1 and row.donor_target != row.target and row.donor_seed is not None for row in rows)
    counted = choices(rows)
    assert counted.pairs == N == counted.own + counted.donor + counted.another + counted.none
    assert counted.follow_rate == counted.donor / N
    plain = evaluated(trained, tmp_path, None).rows
    assert choices(plain).pairs == 0 and choices(plain).follow_rate is None
    donors = {row.seed: row.donor_target for row in rows}
    assert choices(plain, donors).pairs == N, "how often it picks that target anyway"


def test_each_class_of_choices_is_counted(trained, tmp_path):
    row = evaluated(trained, tmp_path, None, replace(SHORT, episodes=1, slots=1)).rows[0]
    row = replace(row, target=0, donor_target=1)
    rows = [replace(row, choice=choice) for choice in (0, 0, 0, 1, 1, 2, -1)] + [replace(row, error="died")]
    counted = choices(rows)
    assert (counted.own, counted.donor, counted.another, counted.none) == (3, 2, 1, 1)
    assert counted.follow_rate == pytest.approx(2 / 7)
    assert choices([replace(row, donor_target=0, choice=0)]).own == 1, "one target of both is the own"


def test_the_change_of_the_chunk_by_step_since_the_cue(trained, tmp_path):
    evaluated(trained, tmp_path, None)
    file = evaluated(trained, tmp_path, intervention("zero@cue_end+1.."))
    plain, moved = result_id("abc", SHORT, "none"), result_id("abc", SHORT, "zero@cue_end+1..")
    change = chunk_change(tmp_path / "chunks", plain, moved, file.rows)
    assert all((values == 0).all() for since, values in change.items() if since <= 0)
    assert all((change[since] > 0).all() and len(change[since]) == N for since in (1, 2, 3))
    one = ChunkFile(tmp_path / "chunks", moved).read()[SHORT.seed]
    assert one[0].shape == (4, 2) and one[0].dtype == np.float32


def test_a_chunk_file_cut_short(trained, tmp_path):
    file = ChunkFile(tmp_path, "x")
    for seed in (1, 2):
        file.append(seed, [(0, np.full((4, 2), seed)), (1, np.zeros((4, 2)))])
    whole = file.path.read_text()
    file.path.write_text(whole[:-20])
    assert list(file.read()) == [1], "as if the last episode had not been run"
    file.path.write_text(whole.replace('"shape": [2', '"shape": [3'))
    with pytest.raises(MuvlaError, match="x.jsonl:1.*cannot reshape"):
        file.read()


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_schedule_that_never_fires(trained, tmp_path):
    with pytest.raises(MuvlaError, match="fired in none of 18 episodes"):
        evaluated(trained, tmp_path, intervention("zero@first_decision+11"))
    assert not list((tmp_path / "rows").glob("*.jsonl")), "its rows are set aside"
    with pytest.raises(MuvlaError, match="first step 99.*before the step limit of short@1, 13"):
        evaluated(trained, tmp_path, intervention("zero@99.."))


@pytest.mark.parametrize(
    ("name", "message"),
    [("zero[2:9]", "token 8"), ("lesion(4)", "token 4.*4 tokens 0…3"), ("transplant", "no donors")],
)
def test_what_cannot_act_is_refused_before_an_episode_runs(trained, tmp_path, name, message):
    with pytest.raises(MuvlaError, match=message):
        evaluated(trained, tmp_path, intervention(name))
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_policy_without_memory_is_refused(store, cell_with, tmp_path):
    trainer = Trainer(cell_with({**no_memory(), "model.chunk": 4}), store)
    with pytest.raises(MuvlaError, match="a policy without memory"):
        evaluated(trainer, tmp_path, intervention("zero"))


def test_an_event_that_the_task_lacks(trained, tmp_path, monkeypatch):
    from muvla.evaluation import fit

    monkeypatch.setattr(fit, "events", lambda info: {})
    with pytest.raises(MuvlaError, match="@cue_end.*RecallPosition3-v0: it has none"):
        evaluated(trained, tmp_path, intervention("zero@cue_end"))


@pytest.mark.slow
def test_frozen_and_moved_are_held_against_what_is_seen_under_schedules(trained, tmp_path):
    for name in ("zero@2..", "freeze@cue_end..", "empty@delay_end..", "noise_unit@1..", "zero@cue_end", "zero@every(2)",
                 "zero[1:2]@2.."):  # fmt: skip
        assert len(evaluated(trained, tmp_path, intervention(name)).rows) == N, f"no false alarm: {name}"
    kept = lambda state, context: state  # noqa: E731
    for schedule in ("2..", "cue_end.."):
        wobbly = replace(intervention(f"freeze@{schedule}"), function=kept)
        with pytest.raises(NotAMeasurement, match="moved"):
            evaluated(trained, tmp_path, replace(wobbly, name=f"wobbly {schedule}"))
    stuck = replace(intervention("zero@2.."), name="stuck", effect="moves")
    with pytest.raises(NotAMeasurement, match="frozen"):
        evaluated(trained, tmp_path, stuck)


def test_a_colour_is_remembered_and_its_place_is_the_recipients():
    """RecallColor: donors by identity; the gift's target is where that identity lies in the recipient's scene."""
    env = make_env(TaskConfig("RecallColor3-v0"))
    _, told = env.reset(seed=3)
    assert told["places_of"][told["identity"]] == told["target"] and sorted(told["places_of"]) == [0, 1, 2]
    donors = episodes([(0, (0.0,)), (1, (1.0,))])
    own = info(2) | {"identity": 0, "places_of": (2, 0, 1)}  # colour 0 lies at place 2, colour 1 at place 0
    for kind, expected in (("transplant", (1, 0)), ("transplant_self", (0, 2))):
        gift = DonorBank(donors, intervention(kind)).gift(0, own)
        assert (gift.seed, gift.target) == expected


def test_the_mean_leaves_the_recipient_out_and_is_held_where_few_get():
    lengths = (0, 0, 0)
    ends = (1, 1, 3)  # only one of three gets past step 1
    donors = tuple(Donor(i, 0, lengths, {t: state(10 * i + t) for t in range(end + 1)}) for i, end in enumerate(ends))
    gift = DonorBank(donors, intervention("mean")).gift(0, info(0, lengths))
    assert [gift.state(t)["tokens"].item() for t in range(4)] == [15, 16, 16, 16]
    with pytest.raises(MuvlaError, match="no other episode"):
        DonorBank(donors[:1], intervention("mean")).gift(0, info(0, lengths))


def test_who_never_got_there_neither_gives_nor_is_given():
    donors = tuple(replace(one, states={}) if one.seed == 1 else one for one in episodes([(0, (0.0,)), (1, (1.0,))]))
    gift = DonorBank(donors, intervention("transplant")).gift(1, info(1))
    assert (gift.seed, gift.target, gift.state(1)) == (None, None, None)
    with pytest.raises(MuvlaError, match="none among 1 episodes.*got to where it fires"):
        DonorBank(donors, intervention("transplant")).gift(0, info(0))


def test_what_never_fired_is_no_pair():
    row = EpisodeRow(*[None] * sum(f.default is MISSING for f in fields(EpisodeRow)), donor_target=1)
    rows = [replace(row, seed=i, target=0, choice=1, fired=fired) for i, fired in enumerate((1, 0, None))]
    assert choices(rows).pairs == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [("direction(4)[0:2]", "whole state"), ("orthogonal(4)[0:2]", "whole state"), ("lesion(0)[0:2]", "is the token"),
     ("permute_tokens[0:1]", "two tokens at least"), ("stale(1)/after_write", "site after_write")],
)  # fmt: skip
def test_what_makes_no_sense_of_tokens_or_sites_is_refused(name, message):
    with pytest.raises(MuvlaError, match=message):
        intervention(name)
    assert intervention("permute_tokens(identity)[0:1]").tokens == (0, 1)
