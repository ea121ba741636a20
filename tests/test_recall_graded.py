"""The graded recall tasks: what each family shows, that every knob bites, and that the bounds are exact."""

import json
from collections import Counter
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest

from analysis.intervention_frames import shares
from analysis.paired import has_quantity
from helpers.paths import ROOT
from helpers.rows import row
from muvla.config import DatasetConfig, TaskConfig
from muvla.config.serialization import content_hash
from muvla.data.collect import collect
from muvla.data.label_audit import audit
from muvla.envs.conformance import check_episode
from muvla.envs.phases import Phase, events
from muvla.envs.recall import RECALL_TASKS
from muvla.envs.recall.bounds import best_answers, best_score, every_episode, seen_at_decision, simulated_score
from muvla.envs.recall.colour import is_held_out
from muvla.envs.recall.suite import EVEN
from muvla.envs.registry import bounds, get_suite, make_env, step_limit, task_info
from muvla.errors import MuvlaError
from muvla.evaluation.baselines import memoryless_ideal
from muvla.evaluation.catalog import declared_protocols, get_protocol, get_protocols
from muvla.evaluation.protocol import chance
from muvla.evaluation.records import choices, read_rows, summarise
from muvla.interventions import parse_intervention
from muvla.models.prompts import built_in_prompts
from muvla.runs.baselines import measure_baseline
from muvla.runs.run import Run

TASKS = sorted(RECALL_TASKS)
INTERFERENCE, COUNT, OVERWRITE = "RecallInterference3-v0", "RecallCount3-v0", "RecallOverwrite3-v0"
TRACKING, CAPACITY, SEQUENCE = "RecallTracking3-v0", "RecallCapacity5-v0", "RecallSequence3-v0"
GRADED = (INTERFERENCE, COUNT, OVERWRITE, TRACKING, CAPACITY, SEQUENCE)
BIG = {OVERWRITE: {"delay": (1, 3)}, SEQUENCE: {"objects": 4, "shown": 3, "cue": (3, 5)}, CAPACITY: {"shown": 3}}


def frames_of(env, seed):
    """The discs at every step up to the first of the decision, and its info."""
    _, info = env.reset(seed=seed)
    shown = [env._discs()]
    while info["phase"] is not Phase.DECISION:
        info = env.step(np.zeros(2))[4]
        shown.append(env._discs())
    return shown, info


def go_to(env, discs):
    """Touch these discs in this order from wherever the effector is; the last info."""
    info = env._info(np.zeros(2))
    for disc in discs:
        touched = len(env.touches)
        while len(env.touches) == touched:
            delta = (env.places[disc] - env.effector) / 0.25
            _, _, over, truncated, info = env.step(delta / max(1, np.abs(delta).max()))
            assert not truncated
            if over:
                return info
    return info


def coloured(discs, env):
    """Places and colours of the discs that are not neutral."""
    places = [tuple(place) for place in env.places.tolist()]
    return {places.index((d.x, d.y)): d.colour for d in discs if (d.x, d.y) in places and d.colour != (128, 128, 128)}


# --- the contract of every task ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("observable", [None, True])
@pytest.mark.parametrize("delay", [(1, 2), (20, 20), (200, 200)], ids=str)
def test_the_expert_succeeds_at_every_delay_within_the_limit(name, observable, delay):
    config = TaskConfig(name, delay=delay, observable=observable)
    env = make_env(config)
    assert env.step_limit == step_limit(config) >= delay[1] + 10 * len(env.reset(seed=0)[1].get("targets", (0,)))
    for seed in range(30 if delay[1] < 20 else 3):
        _, info = env.reset(seed=seed)
        over = False
        while not over:
            _, _, over, truncated, info = env.step(info["expert_action"])
            assert not truncated
        assert info["success"]


@pytest.mark.parametrize("name", GRADED)
def test_answers_are_equally_frequent_in_an_even_block(name):
    task = RECALL_TASKS[name]
    (protocol,) = [p for p in get_protocols("recall-ladder@1") if p.task.name == name]
    env = make_env(protocol.task)
    drawn = []
    for seed in range(protocol.seed, protocol.seed + protocol.episodes):
        env.reset(seed=seed)
        drawn.append((env.drawn.answer, task.instruction(env.drawn)))
    counts = Counter(drawn)
    answers = task.count_answers(env.setup) * len(task.instructions)
    assert len(counts) == answers and set(counts.values()) == {EVEN / answers}


@pytest.mark.parametrize("name", ["position3-even", "color3-even", "color3-trained-pairs", "color3-held-out-pairs"])
def test_an_even_block_of_the_older_tasks_has_equally_frequent_targets(name):
    protocol = get_protocol(f"recall-{name}-rh@1")
    env = make_env(protocol.task)
    seeds = range(protocol.seed, protocol.seed + protocol.episodes)
    assert set(Counter(env.reset(seed=seed)[1]["target"] for seed in seeds).values()) == {EVEN / 3}


def test_protocols_of_the_graded_tasks():
    ladder = get_protocols("recall-ladder@1")
    twins = get_protocols("recall-ladder-observable@1")
    assert len(ladder) == len({p.task.name for p in ladder}) == 8 and {p.regime for p in ladder} == {"receding"}
    assert [p.task for p in twins] == [replace(p.task, observable=True) for p in ladder]
    assert [p.seed for p in twins] == [p.seed for p in ladder]
    for p in ladder:
        assert (other := get_protocol(p.id.replace("-rh@", "-ol8@"))).h == 8 and other.task == p.task
    assert get_protocol("recall-color3-trained-pairs-rh@1").task.pairs == "train"


@pytest.mark.parametrize("name", TASKS)
def test_the_twin_changes_the_decision_alone(name):
    plain, twin = make_env(TaskConfig(name)), make_env(TaskConfig(name, observable=True))
    for seed in range(10):
        (shown, info), (of_twin, other) = frames_of(plain, seed), frames_of(twin, seed)
        assert shown[:-1] == of_twin[:-1] and shown[-1] != of_twin[-1]
        assert info["target"] == other["target"]
    for seed in range(4):
        check_episode(get_suite("recall"), TaskConfig(name, observable=True), seed)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("observable", [None, True])
def test_a_decision_looks_like_no_frame_before_it(name, observable):
    """Else a policy of one frame could not know whether to move, and the labels of both would contradict each other."""
    env = make_env(TaskConfig(name, delay=(1, 3), observable=observable))
    before, decisions = set(), set()
    for seed in range(150):
        shown, _ = frames_of(env, seed)
        before.update(map(tuple, shown[:-1]))
        decisions.add(tuple(shown[-1]))
        for disc in env.drawn.answer[:-1]:
            go_to(env, [disc])
            decisions.add(tuple(env._discs()))
    assert not before & decisions


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (INTERFERENCE, {"objects": 4}),
        (INTERFERENCE, {"distractors": (0, 0)}),
        (INTERFERENCE, {"palette": ("red", "lime")}),
        (COUNT, {"objects": 4, "cue": (7, 8)}),
        (COUNT, {"cue": (9, 9)}),
        (OVERWRITE, {"delay": (4, 4)}),
        (TRACKING, {"moves": (0, 0)}),
        (TRACKING, {"objects": 5}),
        (CAPACITY, {"shown": 3}),
        (SEQUENCE, {"shown": 3, "cue": (3, 5)}),
        ("RecallPosition3-v0", {"objects": 4}),
        ("RecallColor3-v0", {"objects": 4}),
        ("RecallColor3-v0", {"pairs": "train"}),
        *((name, {"observable": True}) for name in GRADED),
    ],
    ids=str,
)
def test_every_knob_bites_and_is_part_of_the_identity(name, change):
    plain, changed = TaskConfig(name), replace(TaskConfig(name), **change)
    assert content_hash(plain) != content_hash(changed)
    shown = [[frames_of(make_env(config), seed)[0] for seed in range(12)] for config in (plain, changed)]
    assert shown[0] != shown[1]


def test_fields_at_their_default_are_in_no_identity():
    assert content_hash(TaskConfig("RecallPosition3-v0")) == content_hash(
        TaskConfig("RecallPosition3-v0", objects=None, shown=None, observable=None, pairs=None, moves=None)
    )


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (TaskConfig("RecallPosition3-v0", shown=2), "task.shown"),
        (TaskConfig("RecallPosition3-v0", objects=6), "task.objects"),
        (TaskConfig("RecallPosition3-v0", objects=1), "task.objects"),
        (TaskConfig(CAPACITY, shown=5), "task.shown"),
        (TaskConfig(SEQUENCE, shown=4, cue=(5, 5)), "task.shown"),
        (TaskConfig(SEQUENCE, cue=(1, 4)), "task.cue"),
        (TaskConfig(COUNT, cue=(4, 9)), "task.cue"),
        (TaskConfig(COUNT, objects=4), "task.cue"),
        (TaskConfig(COUNT, distractors=(1, 1)), "task.distractors"),
        (TaskConfig("RecallColor3-v0", objects=2, pairs="train"), "task.objects"),
        (TaskConfig("RecallPosition3-v0", pairs="train"), "task.pairs"),
        (TaskConfig("RememberColor3-VLA-v0", observable=True), "task.observable"),
        (TaskConfig(INTERFERENCE, palette=("red",)), "task.palette"),
    ],
    ids=str,
)
def test_a_size_that_a_family_does_not_have_is_refused(config, field):
    with pytest.raises(MuvlaError) as info:
        make_env(config)
    assert info.value.field == field


@pytest.mark.parametrize("change", [{"moves": (2, 1)}, {"distractors": (-1, 1)}, {"objects": 0}, {"shown": 0}], ids=str)
def test_a_bad_count_is_refused_before_a_task_is_looked_up(change):
    with pytest.raises(MuvlaError) as info:
        TaskConfig("x", **change)
    assert info.value.field == f"task.{next(iter(change))}"


# --- families ---------------------------------------------------------------------------------------------------------


def test_a_sequence_ends_at_the_first_wrong_or_the_last_right_touch():
    env = make_env(TaskConfig(SEQUENCE))
    for seed in range(12):
        shown, info = frames_of(env, seed)
        first, second = info["targets"]
        cue = shown[: info["cue_length"]]
        assert [list(coloured(discs, env)) for discs in (cue[0], cue[-1])] == [[first], [second]]
        start = env.effector
        info = go_to(env, [first])
        assert (info["choices"], info["right"], info["success"], info["choice"]) == ((first,), 1, False, first)
        assert np.array_equal(env.effector, start) and len(env._discs()) == 2, "back at the start, the disc gone"
        info = go_to(env, [second])
        assert (info["choices"], info["right"], info["success"]) == ((first, second), 2, True)
        frames_of(env, seed)
        info = go_to(env, [second, first])
        assert (info["choices"], info["right"], info["success"]) == ((second,), 0, False), "ended at the wrong touch"
        frames_of(env, seed)
        third = 3 - first - second
        info = go_to(env, [first, third, second])
        assert (info["choices"], info["right"], info["success"]) == ((first, third), 1, False)


def test_marked_discs_are_touched_in_any_order():
    env = make_env(TaskConfig(CAPACITY, shown=3))
    for order in permutations(range(3)):
        shown, info = frames_of(env, 4)
        assert set(coloured(shown[0], env)) == set(info["targets"]) and len(info["targets"]) == 3
        info = go_to(env, [info["targets"][i] for i in order])
        assert info["success"] and info["right"] == 3 and info["target"] == min(info["targets"])
    frames_of(env, 4)
    wrong = next(i for i in range(5) if i not in info["targets"])
    info = go_to(env, [info["targets"][1], wrong])
    assert not info["success"] and info["right"] == 1


def test_a_count_is_the_number_of_blinks_and_not_the_length_of_the_cue():
    env = make_env(TaskConfig(COUNT, cue=(5, 8)))
    lengths = set()
    for seed in range(60):
        shown, info = frames_of(env, seed)
        is_on = [bool(discs) for discs in shown[: info["cue_length"]]]
        blinks = sum(now and not before for before, now in zip([False, *is_on], is_on, strict=False))
        assert blinks == info["target"] + 1
        lengths.add((blinks, info["cue_length"]))
    assert lengths == {(n, c) for n in (1, 2, 3) for c in (5, 6, 7, 8)}


def test_the_instruction_says_which_of_two_marks_counts():
    env, marks = make_env(TaskConfig(OVERWRITE, delay=(3, 3))), set()
    for seed in range(60):
        shown, info = frames_of(env, seed)
        (first,), at = coloured(shown[0], env), events(info)["update"]
        (last,) = coloured(shown[at], env)
        assert first != last and info["cued"] == first and info["phase"] is Phase.DECISION
        assert info["target"] == (last if "final" in info["instruction"] else first)
        assert [bool(discs) for discs in shown[info["cue_length"] : -1]].count(True) == 1
        marks.add(at - info["cue_length"])
    assert marks == {0, 1, 2}
    assert len({len(built_in_prompts().encode(text)) for text in task_info(OVERWRITE).instructions}) == 1


def test_an_intervention_can_act_at_the_update():
    schedule = parse_intervention("zero@update+1").schedule
    _, info = frames_of(make_env(TaskConfig(OVERWRITE, delay=(5, 5))), 3)
    step = events(info)["update"]
    assert info["cue_length"] <= step < info["cue_length"] + 5
    assert [t for t in range(12) if schedule.fires(t, events(info))] == [step + 1]
    _, plain = frames_of(make_env(TaskConfig("RecallPosition3-v0")), 3)
    assert "update" not in events(plain)


def test_distractors_blink_in_another_colour():
    env = make_env(TaskConfig(INTERFERENCE, delay=(6, 6), distractors=(2, 4)))
    counts, blinking = set(), set()
    for seed in range(60):
        shown, info = frames_of(env, seed)
        (mark,) = coloured(shown[0], env).items()
        assert mark == (info["target"], (255, 255, 0))
        blinks = [coloured(discs, env) for discs in shown[info["cue_length"] : -1] if discs]
        assert all(list(blink.values()) == [(0, 0, 255)] for blink in blinks)
        counts.add(len(blinks))
        blinking.update(place for blink in blinks for place in blink)
    assert counts == {2, 3, 4} and blinking == {0, 1, 2}


def test_the_marked_disc_is_followed_from_frame_to_frame_alone():
    """A tracker that reads nothing but the frames knows where the disc ends."""
    env = make_env(TaskConfig(TRACKING, objects=4, delay=(8, 8), moves=(0, 8)))
    moved = 0
    for seed in range(60):
        shown, info = frames_of(env, seed)
        (place,) = coloured(shown[0], env)
        assert place == info["cued"]
        for discs in shown[info["cue_length"] : -1]:
            assert len(discs) == 4 and len({d.colour for d in discs}) == 1, "all covered alike"
            resting = {tuple(p) for p in env.places.tolist()} & {(d.x, d.y) for d in discs}
            away = [i for i, p in enumerate(env.places.tolist()) if tuple(p) not in resting]
            assert len(away) in (0, 2) and (not away or away[1] == away[0] + 1)
            if place in away:
                place = away[1 - away.index(place)]
        assert place == info["target"]
        moved += place != info["cued"]
    assert moved > 30


def test_layouts_and_colours_of_the_two_halves_are_disjoint_and_even():
    halves = {}
    for half in ("train", "held_out"):
        task, config = RECALL_TASKS["RecallColor3-v0"], TaskConfig("RecallColor3-v0", pairs=half)
        pairs = Counter()
        for probability, drawn in every_episode(task, task.setup(replace(config, cue=(1, 1), delay=(1, 1)))):
            pairs[drawn.colour_at, drawn.cued] += probability
        halves[half] = pairs
        assert {is_held_out(*pair) for pair in pairs} == {half == "held_out"}
        assert {round(probability, 9) for probability in pairs.values()} == {round(1 / 9, 9)}
        layouts, cued = zip(*pairs, strict=True)
        places = [layout.index(colour) for layout, colour in pairs]
        assert (len(set(layouts)), len(set(cued)), len(set(places))) == (6, 3, 3)
        assert set(Counter(zip(cued, places, strict=True)).values()) == {1}, "every colour at every place, once"
    assert not set(halves["train"]) & set(halves["held_out"]) and sum(map(len, halves.values())) == 18


def test_pairs_leave_target_cue_and_lengths_as_they_are():
    envs = [make_env(TaskConfig("RecallColor5-v0", pairs=pairs)) for pairs in (None, "train", "held_out")]
    for seed in range(20):
        plain, train, held = (env.reset(seed=seed)[1] for env in envs)
        for name in ("target", "identity", "cue_length", "delay_length"):
            assert plain[name] == train[name] == held[name]
        assert plain["places_of"] in (train["places_of"], held["places_of"]) and train["places_of"] != held["places_of"]


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_the_declared_bounds_are_those_of_an_enumeration(name):
    for config in (TaskConfig(name, delay=(1, 1)), TaskConfig(name, **({"delay": (1, 1)} | BIG.get(name, {})))):
        assert best_score(config, 1) == pytest.approx(bounds(config).success)
        assert best_score(replace(config, observable=True), 1) == pytest.approx(1)
    assert (
        bounds(TaskConfig(name, observable=True)).choice == 1 and task_info(name).chance == bounds(config).choice
    ) or BIG


@pytest.mark.parametrize(("name", "expected"), [("RecallPosition3-v0", (1 / 3, 2 / 3, 1)), (CAPACITY, (0.1, 0.55, 1))])
def test_frames_that_reach_back_to_the_cue_tell_the_answer(name, expected):
    """The delay has one or two steps, so three frames reach the cue in half of the episodes."""
    assert [best_score(TaskConfig(name), frames) for frames in (2, 3, 4)] == pytest.approx(expected)
    assert best_score(TaskConfig(name, delay=(10, 10)), 11) == pytest.approx(expected[0])


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("frames", [1, 3])
def test_a_policy_that_plays_the_bound_reaches_it(name, frames):
    """The policy sees the discs of its last frames, and goes to the likeliest answer."""
    config = TaskConfig(name, delay=(1, 2))
    answers, env, successes = best_answers(config, frames), make_env(config), 0
    seeds = range(1200, 1200 + (n := 240))
    for seed in seeds:
        shown, info = frames_of(env, seed)
        seen = info["instruction"], tuple(map(tuple, shown[-frames:]))
        of_frames = answers[seen]
        successes += bool(go_to(env, max(of_frames, key=of_frames.__getitem__))["success"])
    bound = best_score(config, frames)
    assert abs(successes / n - bound) <= 3.5 * np.sqrt(bound * (1 - bound) / n) + 1e-9


@pytest.mark.parametrize("name", ["RecallColor3-v0", OVERWRITE, TRACKING, SEQUENCE])
def test_draws_follow_the_enumerated_probabilities(name):
    """The enumeration runs the draws of an episode itself, so its probabilities are those of keyed draws."""
    config = TaskConfig(name, delay=(1, 1))
    task = RECALL_TASKS[name]
    expected = Counter()
    for probability, drawn in every_episode(task, task.setup(config)):
        expected[seen_at_decision(task, task.setup(config), drawn, 2), drawn.answer] += probability
    assert sum(expected.values()) == pytest.approx(1)
    env, n = make_env(config), 600
    counts = Counter()
    for seed in range(n):
        env.reset(seed=seed)
        counts[seen_at_decision(task, env.setup, env.drawn, 2), env.drawn.answer] += 1
    assert set(counts) <= set(expected)
    for key, probability in expected.items():
        assert abs(counts[key] / n - probability) < 5 * np.sqrt(probability / n)


def test_a_task_of_too_many_episodes_is_estimated(monkeypatch):
    config = TaskConfig(TRACKING, delay=(200, 200))
    monkeypatch.setattr("muvla.envs.recall.bounds.MOST_EPISODES", 100)
    with pytest.raises(MuvlaError) as info:
        best_score(config, 1)
    assert info.value.field == "task"
    assert simulated_score(config, 1, 4000) == pytest.approx(1 / 3, abs=0.05)


def test_chance_and_the_memoryless_ideal_follow_the_settings():
    sequence, capacity = get_protocol("recall-sequence3-rh@1"), get_protocol("recall-capacity5-rh@1")
    assert memoryless_ideal(sequence) == {"touch": 1.0, "choice": 1 / 3, "success": 1 / 6}
    assert memoryless_ideal(capacity) == {
        "touch": 1.0,
        "choice": pytest.approx(2 / 5),
        "success": pytest.approx(1 / 10),
    }
    larger = replace(capacity, task=replace(capacity.task, shown=3))
    assert memoryless_ideal(larger)["choice"] == pytest.approx(3 / 5)
    assert chance(get_protocol("recall-sequence3-rh-observable@1")) == 1
    assert chance(get_protocol("recall-sequence3-ol8@1")) is None
    assert all(chance(p) is not None for p in declared_protocols().values() if p.id.startswith("recall") and p.h == 1)


def test_sets_are_counted_by_combinations():
    assert len(list(combinations(range(5), 2))) == RECALL_TASKS[CAPACITY].count_answers(RECALL_TASKS[CAPACITY].setup())


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["recall-capacity5-rh@1", "recall-position3-rh@1"])
def test_rows_have_choices_where_several_discs_are_chosen_and_only_there(tmp_path, name):
    protocol = replace(get_protocol(name), name="short", episodes=3, slots=3)
    rows = measure_baseline(Run(tmp_path / "runs", tmp_path / "data", "expert"), protocol)
    (file,) = (tmp_path / "runs").rglob("rows/*.jsonl")
    several = "capacity" in name
    for line in map(json.loads, file.read_text().splitlines()):
        assert ({"choices", "right"} <= set(line)) == several and ("choices" in line) == several
    assert [(row.choices and len(row.choices), row.right) for row in rows] == [(2, 2) if several else (None, None)] * 3
    assert read_rows(file) == rows and all(row.correct and row.success_once for row in rows)


def test_the_first_of_several_right_discs_need_not_be_the_target():
    expert = row(0, 3, target=1)
    assert not expert.correct and replace(expert, choices=[3, 1], right=2).correct
    assert not replace(expert, choices=[3], right=0).correct
    rows = [replace(expert, choices=[3, 1], right=2, donor_target=3), replace(expert, choices=[3], right=0)]
    assert summarise(rows).correct == 1 and choices(rows).target == 1 and choices(rows).donor == 0
    assert has_quantity(rows[0], "choice", None) is True and shares(rows)["own"] == 0.5


# --- documentation and audit ------------------------------------------------------------------------------------------


def test_the_page_gives_the_enumerated_scores():
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    for protocol in get_protocols("recall-ladder@1"):
        cells = [f"`{protocol.id}`", f"{bounds(protocol.task).choice:.3f}"]
        cells += [f"{best_score(protocol.task, frames):.3f}" for frames in (1, 2, 3, 4, 8)]
        assert f"| {' | '.join(cells)} |" in text, protocol.id
        name = protocol.task.name.removeprefix("Recall").removesuffix("-v0").lower()
        assert f"images/task-{name}.png" in text and (ROOT / "docs" / "images" / f"task-{name}.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", GRADED)
def test_the_audit_does_not_accuse_clean_labels_and_finds_recorded_labels(tmp_path, name):
    store = collect(DatasetConfig(TaskConfig(name), episodes=60), tmp_path)
    assert not any(result.leaks for result in audit(store, "executed", 1))
    assert all(result.leaks for result in audit(store, "recorded", 1))
