"""The text that names an intervention, and when it acts."""

import pytest
import torch

from helpers.policies import PLAIN_INTERFACE, random_frames
from muvla.checkpoints.build import build_policy
from muvla.config import ema
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError
from muvla.interventions import EXAMPLES, parse_intervention
from muvla.interventions.schedule import parse_schedule
from muvla.recurrence import Moment, Recurrence
from muvla.training.resume import make_checkpoint, resume
from muvla.training.trainer import Trainer

EVENTS = {"cue_end": 2, "delay_end": 4, "first_decision": 5}


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("3", [3]),
        ("cue_end", [2]),
        ("cue_end+2", [4]),
        ("delay_end-1", [3]),
        ("first_decision", [5]),
        ("3..", [3, 4, 5, 6, 7]),
        ("cue_end+3..", [5, 6, 7]),
        ("..2", [0, 1, 2]),
        ("..delay_end", [0, 1, 2, 3, 4]),
        ("every(3)", [0, 3, 6]),
        ("cue_end-5", []),
    ],
)
def test_when_it_fires(text, steps):
    when = parse_schedule(text)
    assert [t for t in range(8) if when.fires(t, EVENTS)] == steps
    assert when.text == text and when.first(EVENTS) == (steps[0] if steps else None)
    if when.event:
        assert not any(when.fires(t, {}) for t in range(8)) and when.first({}) is None


@pytest.mark.parametrize(
    ("text", "ticks"), [("3", [4]), ("4", [4]), ("0", [0]), ("cue_end..", [4]), ("every(3)", [0, 4]), ("..3", [0])]
)
def test_where_memory_ticks_by_call_it_fires_at_the_first_tick_at_or_after(text, ticks):
    when = parse_schedule(text)
    assert [t for t, previous in ((0, -1), (4, 0)) if when.fires(t, EVENTS, previous)] == ticks


@pytest.mark.parametrize("name", EXAMPLES.values())
@pytest.mark.parametrize("rest", ["", "[0:2]", "@3..", "[1:3]@cue_end+2"])
def test_a_name_means_itself(name, rest):
    confined = name.startswith(("direction", "orth", "lesion", "skip", "zero_perception")) and "[" in rest
    if confined or (name == "freeze" and "+" in rest) or (name.startswith(("direction", "orth")) and ".." in rest):
        pytest.skip("refused: see below")
    kind = parse_intervention(name + rest)
    assert kind.name == name + rest and parse_intervention(kind.name) == kind


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("zero/before_read", "zero"),
        ("zero@0..", "zero"),
        ("transplant@delay_end", "transplant"),
        ("transplant/after_write@0..", "transplant@0.."),
        ("noise_relative(0.50)@3", "noise_relative(0.5)@3"),
        ("noise_relative(1.0)", "noise_relative(1)"),
        ("zero@cue_end+0", "zero@cue_end"),
        ("stale(02)", "stale(2)"),
    ],
)
def test_equal_interventions_have_one_name(text, name):
    assert parse_intervention(text).name == name


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("zero[2:2]", "intervention zero"),
        ("zero(3)", "intervention zero"),
        ("lesion", "intervention lesion"),
        ("freeze@3", "intervention freeze"),
        ("zero@every(0)", "intervention, schedule"),
        ("zero@dawn", "intervention, schedule"),
        ("direction(1)@2..", "intervention direction"),
        ("drop/before_read", "intervention drop/before_read"),
        ("noise_relative(-1)", "intervention noise_relative"),
        ("noise_relative(x)", "intervention noise_relative"),
        ("noise_relative(nan)", "intervention noise_relative"),
        ("stale(x)", "intervention stale"),
        ("permute_tokens(a)", "intervention permute_tokens"),
        ("zero@1/read", "intervention, schedule"),
        ("zero[0:1", "intervention"),
        ("transplant(2)", "intervention transplant"),
    ],
)
def test_what_is_no_intervention_is_refused_by_its_part(text, field):
    with pytest.raises(MuvlaError) as info:
        parse_intervention(text)
    assert info.value.field == field


@pytest.fixture(scope="module")
def policy(cell_with):
    return build_policy(cell_with(ema(0.5, 4)), PLAIN_INTERFACE).eval()


def read(policy, name, ticks=6):
    """(ticks, m, D) read in an episode of EVENTS."""
    loop, found = Recurrence(policy, 1, parse_intervention(name)), []
    with torch.no_grad():
        for t in range(ticks):
            moment = Moment([t], [Phase.DELAY], ["a"], [7], events=[EVENTS])
            found.append(loop.tick(random_frames(policy, 1, seed=t), torch.tensor([t == 0]), moment)[1][0])
    return torch.stack(found)


@pytest.mark.parametrize(
    "name", ["noise_relative(0)", "permute_tokens(identity)", "stale(0)", "zero@99", "stale(0)[1:2]@cue_end"]
)
def test_the_identity_changes_nothing(policy, name):
    assert torch.equal(read(policy, name), read(policy, None))


def test_before_its_step_nothing_changes_and_then_it_does(policy):
    plain, at, since = read(policy, None), read(policy, "zero@cue_end+1"), read(policy, "zero@3..")
    assert torch.equal(plain[:3], at[:3]) and torch.equal(at[:4], since[:4])
    assert not at[3].any() and at[4].any() and not since[3:].any()


def test_a_block_of_tokens_is_changed_alone(policy):
    plain, part = read(policy, None), read(policy, "zero[1:3]@3")
    assert not part[3, 1:3].any() and torch.equal(part[3, [0, 3]], plain[3, [0, 3]])


def test_freeze_locks_what_was_written_when_it_first_fired(policy):
    plain, frozen = read(policy, None), read(policy, "freeze@cue_end..")
    assert torch.equal(frozen[:4], plain[:4]), "what the cue's last step wrote is read at the next"
    assert all(torch.equal(frozen[t], plain[3]) for t in (4, 5))
    assert torch.equal(read(policy, "freeze"), read(policy, "freeze_first"))
    assert torch.equal(read(policy, "freeze@0.."), read(policy, "freeze_first"))


def test_empty_is_the_beginning_of_an_episode(policy):
    plain, emptied = read(policy, None), read(policy, "empty@cue_end")
    assert torch.equal(emptied[:3], plain[:3]) and torch.equal(emptied[3], policy.memory.initial)
    late = read(policy, "empty@..cue_end")
    assert all(torch.equal(late[t], policy.memory.initial) for t in range(4)) and late[4].any()
    assert torch.equal(late[3:], emptied[3:]), "what was written before is lost in either case"


def test_stale_is_what_was_carried_d_ticks_ago(policy):
    plain, late = read(policy, None), read(policy, "stale(2)@4")
    assert torch.equal(late[:4], plain[:4]) and torch.equal(late[4], plain[2])
    assert torch.equal(read(policy, "stale(9)@4")[4], policy.memory.initial)


def test_a_slot_that_begins_mid_episode_does_not_make_up_for_what_is_past(policy):
    loop = Recurrence(policy, 2, parse_intervention("zero@3"))
    with torch.no_grad():
        moment = Moment([5, 3], [Phase.DELAY] * 2, ["a", "b"], [0, 1], events=[{}, {}])
        loop.tick(random_frames(policy, 2), torch.tensor([True, True]), moment)
    assert loop.fired == [0, 1]


def test_the_scales_of_noise(policy):
    plain = read(policy, None)
    assert read(policy, "noise_init@3")[3].std().item() == pytest.approx(0.02, rel=0.2)
    torch.testing.assert_close(read(policy, "noise_norm@3")[3].norm(dim=-1), plain[3].norm(dim=-1))
    small, large = (read(policy, f"noise_relative({s})@3")[3] - plain[3] for s in (0.5, 2))
    torch.testing.assert_close(large, 4 * small, rtol=1e-3, atol=1e-5)
    assert large.square().mean().sqrt().item() == pytest.approx(2 * plain[3].square().mean().sqrt().item(), rel=0.2)


def test_permuted_tokens_are_the_same_ones_none_at_its_place(policy):
    plain, moved = read(policy, None)[3], read(policy, "permute_tokens@3")[3]
    came_from = [[torch.equal(token, own) for own in plain].index(True) for token in moved]
    assert sorted(came_from) == [0, 1, 2, 3] and all(i != j for i, j in enumerate(came_from))


def test_a_kind_draws_the_same_for_every_schedule_and_nobody_elses(policy):
    assert torch.equal(read(policy, "noise_unit@3")[3], read(policy, "noise_unit")[3])
    assert not torch.equal(read(policy, "noise_unit@3")[3], read(policy, "noise_norm@3")[3])


# --- in training ------------------------------------------------------------------------------------------------------


def test_events_reach_training(store, cell_with):
    """Each slot at its own episode's event."""
    name = "zero@cue_end+1"
    trainer = Trainer(cell_with({"intervention": name}), store, parse_intervention(name))
    window = trainer.prefetcher.window(8, last=True)
    trainer.backward(window)
    hits = 0
    for t in range(8):
        for slot, events in enumerate(trainer.get_moment(window, t).events):
            line = store.index[int(window.episode[t, slot])]
            assert events["cue_end"] == line["cue_length"] - 1
            hits += int(window.tick[t, slot]) == line["cue_length"]
    assert hits > 0 and max(trainer.recurrence.fired) <= 1


@pytest.mark.parametrize("name", ["freeze@cue_end..", "stale(1)@2..", "zero@every(3)"])
def test_an_exact_resume_under_a_schedule(store, cell_with, name):
    cell = cell_with({"intervention": name})
    whole = Trainer(cell, store, parse_intervention(name))
    whole.step()
    saved = make_checkpoint(whole)
    again = Trainer(cell, store, parse_intervention(name))
    resume(again, saved)
    assert again.step() == whole.step() and again.recurrence.fired == whole.recurrence.fired


def test_what_training_cannot_give_is_refused(store, cell_with, monkeypatch):
    with pytest.raises(MuvlaError) as info:
        Trainer(cell_with({"intervention": "mean"}), store, parse_intervention("mean"))
    assert info.value.field == "intervention"
    monkeypatch.setattr("muvla.training.checks.events", lambda line: {})
    with pytest.raises(MuvlaError) as info:
        Trainer(cell_with({"intervention": "zero@cue_end"}), store, parse_intervention("zero@cue_end"))
    assert info.value.field == "intervention" and "cue_end" in info.value.got
