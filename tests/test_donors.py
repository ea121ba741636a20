"""What an intervention takes from other episodes: who gives, what is given, and what the rows tell of it."""

from contextlib import nullcontext
from dataclasses import MISSING, fields, replace

import numpy as np
import pytest

from muvla.config import TaskConfig, dummy, no_memory
from muvla.envs.recall import RecallEnv
from muvla.envs.registry import make_env
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.evaluation.action_chunks import ChunkFile, chunk_change
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.context import EvaluationContext
from muvla.evaluation.donor_recording import with_donors
from muvla.evaluation.evaluate import EvaluationRequest, evaluate
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.prefix_cache import PrefixCache
from muvla.evaluation.records import EpisodeRow, choices, result_id
from muvla.evaluation.results import NeverFired
from muvla.evaluation.rollout import Rollout
from muvla.interventions import parse_intervention
from muvla.runs.results import has_result, never_fired, result_rows
from muvla.runs.run import Run
from muvla.training.trainer import Trainer

TASK = TaskConfig("RecallPosition3-v0", cue=(1, 1), delay=(1, 1), blank=(1, 1))
SHORT = replace(get_protocol("recall-position3-rh@1"), name="short", task=TASK, episodes=18, slots=9)
N = SHORT.episodes
GIVEN = ["transplant", "transplant_same", "transplant_self", "direction(4)", "orthogonal(4)", "mean"]


@pytest.fixture(scope="module")
def recorded():
    return PrefixCache()


def bound(trained, recorded, name, one=SHORT):
    context = EvaluationContext(cache=recorded)
    return with_donors(parse_intervention(name), trained.policy, trained.statistics, one, context)


def outcomes(trained, kind, one=SHORT, seeds=None):
    """By seed: what the row tells, and the chunks."""
    found = {}
    rollout = Rollout(PolicyActor(trained.policy, trained.statistics, one, kind), lambda: make_env(one.task))
    rollout.run(seeds or range(one.seed, one.seed + one.episodes), lambda o: found.update({o.seed: o}))
    return found


def chunks(outcome):
    return np.stack([chunk for _, chunk in outcome.chunks])


def told(outcome):
    ignored = ("fired", "donor_seed", "donor_target")
    return {k: v for k, v in outcome.info.items() if k not in ignored}


def evaluated(trained, folder, kind, one=SHORT):
    request = EvaluationRequest(trained.policy, trained.statistics, one, kind, "abc", 0, (range(24),))
    return evaluate(request, folder, EvaluationContext(lambda _: nullcontext("p")))


@pytest.fixture(scope="module")
def plain(trained):
    return outcomes(trained, None)


@pytest.mark.parametrize(
    "name",
    [
        "transplant_self",
        "transplant_self[0:2]/before_read@cue_end",
        "direction(0)",
        "orthogonal(0)@first_decision",
        "transplant_self@0..",
    ],
)
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


@pytest.mark.slow
def test_on_dummy_a_transplant_is_nothing(store, cell_with):
    """All episodes have one memory; and what is added along a decoder that can tell nothing apart is nothing."""
    trainer = Trainer(cell_with({**dummy(4), "model.chunk": 4}), store)
    plain, recorded = outcomes(trainer, None), PrefixCache()
    for name in ("transplant", "direction(4)"):
        moved = outcomes(trainer, bound(trainer, recorded, name))
        assert all(np.array_equal(chunks(plain[seed]), chunks(moved[seed])) for seed in plain)


def test_one_bank_serves_all_kinds_at_a_site_and_schedule(trained, monkeypatch):
    recorded, runs = PrefixCache(), []
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
    assert counted.pairs == N == counted.target + counted.donor + counted.another + counted.none
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
    assert (counted.target, counted.donor, counted.another, counted.none) == (3, 2, 1, 1)
    assert counted.follow_rate == pytest.approx(2 / 7)
    assert choices([replace(row, donor_target=0, choice=0)]).target == 1, "one target of both is the episode's"


def test_the_change_of_the_chunk_by_step_since_the_cue(trained, tmp_path):
    evaluated(trained, tmp_path, None)
    file = evaluated(trained, tmp_path, parse_intervention("zero@cue_end+1.."))
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
    with pytest.raises(MuvlaError) as refused:
        file.read()
    assert refused.value.field == f"{file.path}:1"


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_schedule_that_never_fires(trained, tmp_path):
    folder = tmp_path / "abc"
    with pytest.raises(MuvlaError) as refused:
        evaluated(trained, folder, parse_intervention("zero@first_decision+11"))
    assert refused.value.field == "intervention zero@first_decision+11"
    assert not list((folder / "rows").glob("*.jsonl")), "its rows are set aside"
    run = Run(tmp_path, tmp_path, "abc")
    assert "fired in none of 18" in str(never_fired(run, SHORT, "zero@first_decision+11"))
    assert never_fired(run, SHORT, "zero") is None
    (aside,) = (folder / "rows").glob("*.invalid")  # as if the process had ended before it looked
    aside.rename(aside.with_suffix(".jsonl"))
    assert len(result_rows(run, SHORT, "zero@first_decision+11")) == 18
    assert not has_result(run, SHORT, "zero@first_decision+11")
    with pytest.raises(NeverFired):
        evaluated(trained, folder, parse_intervention("zero@first_decision+11"))
    with pytest.raises(MuvlaError) as refused:
        evaluated(trained, folder, parse_intervention("zero@99.."))
    assert refused.value.field == "intervention zero@99.."


@pytest.mark.parametrize(
    "name",
    ["zero[2:9]", "lesion(4)"],
)
def test_what_cannot_act_is_refused_before_an_episode_runs(trained, tmp_path, name):
    with pytest.raises(MuvlaError) as info:
        evaluated(trained, tmp_path, parse_intervention(name))
    assert info.value.field == f"intervention {name}"
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_policy_without_memory_is_refused(store, cell_with, tmp_path):
    trainer = Trainer(cell_with({**no_memory(), "model.chunk": 4}), store)
    with pytest.raises(MuvlaError) as refused:
        evaluated(trainer, tmp_path, parse_intervention("zero"))
    assert refused.value.field == "intervention zero"


def test_an_event_that_the_task_lacks(trained, tmp_path, monkeypatch):
    from muvla.evaluation import checks as fit

    monkeypatch.setattr(fit, "events", lambda info: {})
    with pytest.raises(MuvlaError) as refused:
        evaluated(trained, tmp_path, parse_intervention("zero@cue_end"))
    assert refused.value.field == "intervention zero@cue_end"


@pytest.mark.slow
def test_frozen_and_moved_are_held_against_what_is_seen_under_schedules(trained, tmp_path):
    for name in (
        "zero@2..",
        "freeze@cue_end..",
        "empty@delay_end..",
        "noise_unit@1..",
        "zero@cue_end",
        "zero@every(2)",
        "zero[1:2]@2..",
    ):
        assert len(evaluated(trained, tmp_path, parse_intervention(name)).rows) == N, f"no false alarm: {name}"
    kept = lambda state, context: state  # noqa: E731
    for schedule in ("2..", "cue_end.."):
        wobbly = replace(parse_intervention(f"freeze@{schedule}"), function=kept)
        with pytest.raises(NotAMeasurement) as refused:
            evaluated(trained, tmp_path, replace(wobbly, name=f"wobbly {schedule}"))
        assert (refused.value.field, refused.value.got) == ("memory", "moved")
    stuck = replace(parse_intervention("zero@2.."), name="stuck", effect="moves")
    with pytest.raises(NotAMeasurement) as refused:
        evaluated(trained, tmp_path, stuck)
    assert (refused.value.field, refused.value.got) == ("memory", "frozen")


def test_what_never_fired_is_no_pair():
    row = EpisodeRow(*[None] * sum(f.default is MISSING for f in fields(EpisodeRow)), donor_target=1)
    rows = [replace(row, seed=i, target=0, choice=1, fired=fired) for i, fired in enumerate((1, 0, None))]
    assert choices(rows).pairs == 2


class Failing(RecallEnv):
    """The episode of one seed fails so often."""

    left = 0

    def reset(self, *, seed=None, options=None):
        if seed == SHORT.seed + 1 and Failing.left:
            Failing.left -= 1
            raise OSError("lost")
        return super().reset(seed=seed)


def test_an_episode_that_fails_is_recorded_again_and_then_refused(trained):
    factory = lambda task, size: Failing(task.name, cue=task.cue, delay=task.delay, blank=task.blank)  # noqa: E731
    args = (parse_intervention("transplant"), trained.policy, trained.statistics, SHORT)
    context = EvaluationContext(env_factory=factory)
    Failing.left = 1
    assert len(with_donors(*args, context).bank.donors) == N
    Failing.left, context = 2, EvaluationContext(env_factory=factory)
    with pytest.raises(MuvlaError) as refused:
        with_donors(*args, context)
    assert refused.value.field == "intervention transplant, donors"
    assert not context.cache.donors


def test_donors_are_recorded_after_all_other_checks(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("muvla.evaluation.evaluate.with_donors", lambda *_: pytest.fail("recorded"))
    kind = parse_intervention("transplant[2:9]")
    request = EvaluationRequest(trained.policy, trained.statistics, SHORT, kind, "abc", 0, ())
    seen = (range(SHORT.seed, SHORT.seed + 1),)
    for changed, field in (
        (request, "intervention transplant[2:9]"),
        (replace(request, training_episodes=seen), "protocol.seed"),
    ):
        with pytest.raises(MuvlaError) as refused:
            evaluate(changed, tmp_path, EvaluationContext())
        assert refused.value.field == field


def test_an_evaluation_records_the_donors_that_it_needs_once_for_all_of_a_policy(trained, tmp_path, monkeypatch):
    runs, run = [], Rollout.run
    monkeypatch.setattr(Rollout, "run", lambda *a, **k: runs.append(1) or run(*a, **k))
    context = EvaluationContext()
    for name in ("transplant", "transplant_same"):
        request = EvaluationRequest(
            trained.policy, trained.statistics, SHORT, parse_intervention(name), "abc", 0, (range(24),)
        )
        assert all(row.donor_seed is not None for row in evaluate(request, tmp_path, context).rows)
    assert len(runs) == 3


def test_an_actor_without_its_donors_is_refused(trained):
    with pytest.raises(MuvlaError) as refused:
        outcomes(trained, parse_intervention("transplant"))
    assert refused.value.field.startswith("intervention transplant") and refused.value.got == "no donors"


def test_recording_is_within_what_is_timed(trained):
    entered = []
    record = lambda told: entered.append(told) or nullcontext("p")  # noqa: E731
    kind = parse_intervention("transplant")
    with_donors(kind, trained.policy, trained.statistics, SHORT, EvaluationContext(record))
    assert len(entered) == 1


@pytest.mark.parametrize("line", ['{"seed": 1}', "[1]", '{"seed": 1, "steps": [0], "shape": [1], "chunks": "?"}'])
def test_a_damaged_chunk_line_is_one_clear_error(tmp_path, line):
    (tmp_path / "x.jsonl").write_text(line + "\n")
    with pytest.raises(MuvlaError) as refused:
        ChunkFile(tmp_path, "x").read()
    assert refused.value.field == f"{tmp_path}/x.jsonl:1"


def test_one_token_has_no_other_order(store, cell_with, tmp_path):
    trainer = Trainer(cell_with({"memory.m": 1, "model.chunk": 4}), store)
    with pytest.raises(MuvlaError) as refused:
        evaluated(trainer, tmp_path, parse_intervention("permute_tokens"))
    assert refused.value.field == "intervention permute_tokens"
