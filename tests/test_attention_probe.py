"""The attention of episodes: a tidy frame, sheets and videos."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from muvla.errors import MuvlaError
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.replay import replay
from muvla.evaluation.rollout import Rollout
from muvla.evaluation.video import compose
from muvla.models.preprocessing import prepare
from muvla.models.sequence import Segment
from muvla.probes.attention import ALL, DRAWN, attended, frame, read
from muvla.probes.attention_maps import ACTION_READ
from muvla.probes.attention_overlay import OPAQUE, TILE, overlaid, sheet, video

SHORT = replace(get_protocol("recall-position3-rh@1"), name="short", episodes=6, slots=3, step_limit=12)


@pytest.fixture(scope="module")
def subject(subject_of, cell_with):
    return subject_of(cell_with())


@pytest.fixture(scope="module")
def episodes(subject):
    return attended(subject)


def test_episodes_are_those_of_any_other_rollout_and_every_step_has_its_attention(subject, episodes):
    found = {}
    actor = PolicyActor(subject.policy, subject.statistics, SHORT)
    Rollout(actor, subject.open_env).run(subject.seeds, lambda o: found.update({o.seed: o.info}))
    assert [one.replayed.outcome.seed for one in episodes] == list(subject.seeds)
    assert {one.replayed.outcome.seed: one.replayed.outcome.info for one in episodes} == found
    for one in episodes:
        assert len(one.attention) == len(one.replayed.steps)
        changed = [not np.array_equal(a.mass, b.mass) for a, b in zip(one.attention, one.attention[1:], strict=False)]
        assert all(changed)


def test_an_episode_s_attention_does_not_depend_on_its_neighbours(subject, episodes):
    (alone,) = attended(replace(subject, seeds=subject.seeds[3:]), 1)
    assert all(np.array_equal(a.mass, b.mass) for a, b in zip(alone.attention, episodes[3].attention, strict=True))


def test_of_a_chunk_s_later_steps_it_is_that_of_the_call(subject_of, cell_with):
    two = replace(SHORT, regime="open_loop", h=2, tick="call")
    (one,) = attended(replace(subject_of(cell_with(), 1), protocol=two))
    assert len(one.attention) == len(one.replayed.steps)
    assert all(later is first for first, later in zip(one.attention[::2], one.attention[1::2], strict=False))
    assert one.attention[0] is not one.attention[2]


def test_watching_several_episodes_is_watching_each(subject):
    seeds = subject.seeds[:2]

    def replayed(seeds):
        return replay(PolicyActor(subject.policy, subject.statistics, SHORT), subject.open_env, seeds)

    together = replayed(seeds)
    assert list(together) == list(seeds)
    for seed in seeds:
        alone = replayed([seed])[seed]
        assert alone.outcome.info == together[seed].outcome.info
        assert all(np.array_equal(a, b) for a, b in zip(alone.frames, together[seed].frames, strict=True))
        assert len(alone.steps) == len(together[seed].steps) == len(alone.frames) - 1


def test_the_frame_is_the_mean_over_episodes_at_each_step_since_the_cue(episodes):
    table = frame(episodes)
    mass = table[(table["measure"] == "mass") & (table["layer"] == ALL)]
    sums = mass.groupby(["from_segment", "since_cue"])["value"].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    at = {"from_segment": ACTION_READ, "to_segment": "MEMORY", "since_cue": 1}
    for layer in (ALL, 0, 1):
        asked = {"measure": "mass", "layer": layer} | at
        line = table[(table[list(asked)] == list(asked.values())).all(axis=1)].iloc[0]
        own = [one.attention[one.replayed.outcome.info["cue_length"]] for one in episodes]
        r, c = own[0].rows.index(ACTION_READ), own[0].keys.index("MEMORY")
        values = [a.mass[:, r, c].mean() if layer == ALL else a.mass[layer, r, c] for a in own]
        assert line["value"] == pytest.approx(np.mean(values)) and line["n"] == len(episodes)
        assert line["low"] < line["value"] < line["high"]
        assert line["uniform"] == pytest.approx(own[0].uniform[r, c])
    assert set(table["since_cue"]) == {
        step - one.replayed.outcome.info["cue_length"] + 1 for one in episodes for step in range(len(one.attention))
    }
    drawn = table.dropna(subset="curve")
    assert set(drawn["curve"]) == {f"{a} → {b}" for a, b in DRAWN}
    assert not drawn.duplicated(["curve", "since_cue"]).any()


def test_maps_and_rollout_have_a_line_per_patch(episodes):
    table = frame(episodes)
    mass = table[(table["measure"] == "mass") & (table["layer"] == ALL) & (table["to_segment"] == "VISION")]
    for row in ("MEMORY", ACTION_READ):
        own = {m: table[(table["measure"] == m) & (table["from_segment"] == row)] for m in ("map", "rollout")}
        for lines in own.values():
            assert (lines.groupby("since_cue").size() == 2 * 4).all()
            assert set(zip(lines["camera"], lines["patch"], strict=True)) == {
                (v, p) for v in range(2) for p in range(4)
            }
        total = own["map"].groupby("since_cue")["value"].sum()
        on_vision = mass[mass["from_segment"] == row].set_index("since_cue")["value"]
        np.testing.assert_allclose(total, on_vision.loc[total.index], atol=1e-5)
        assert own["map"]["uniform"].notna().all() and own["rollout"]["uniform"].isna().all()
    assert table[table["measure"] == "mass"][["camera", "patch"]].isna().all(axis=None)


def test_without_a_cue_nothing_is_counted_from_it(episodes):
    one = episodes[0]
    outcome = replace(one.replayed.outcome, info=one.replayed.outcome.info | {"cue_length": None})
    with pytest.raises(MuvlaError) as refused:
        frame([replace(one, replayed=replace(one.replayed, outcome=outcome))])
    assert refused.value.field == "probe attention"


def test_heat_lies_on_its_patch_and_the_picture_shows_through():
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:16] = 200
    heat = np.asarray(overlaid(picture, np.array([0.0, 0.0, 0.0, 0.1]), 0.1)).astype(int)
    quarters = [heat[y : y + TILE // 2, x : x + TILE // 2] for y in (0, TILE // 2) for x in (0, TILE // 2)]
    assert all(np.ptp(quarter, axis=(0, 1)).max() == 0 for quarter in quarters), "patches have edges, no slopes"
    means = [quarter.mean() for quarter in quarters]
    assert means[3] > means[2] and means[0] == means[1] == pytest.approx(means[2] + (1 - OPAQUE) * 200, abs=1)


def test_the_pictures_are_what_the_model_gets(subject_of, cell_with):
    """Resized and cropped, and with the episode's first image where the policy is shown it."""
    subject = subject_of(cell_with({"model.images": "released", "data.first_image": True}))
    (one,) = attended(replace(subject, seeds=subject.seeds[:1]))
    frames = one.replayed.frames
    raw = torch.from_numpy(np.concatenate([frames[2], frames[0][:1]])).movedim(-1, -3)
    expected = prepare(raw, 32, "released").movedim(-3, -1).numpy()
    assert np.array_equal(one.pictures(2), expected) and len(expected) == 3
    assert one.kinds["memory to vision"].shape == (len(one.attention), 3, 4)


def test_a_sheet_shows_every_step_and_a_long_episode_s_ends(episodes):
    one = episodes[0]
    page = sheet(one, "title")
    rows = 2 * (1 + 4)  # of each camera its picture and four kinds
    assert page.height > rows * TILE and page.width > len(one.attention) * TILE
    long = replace(
        one,
        attention=one.attention * 20,
        replayed=replace(one.replayed, steps=one.replayed.steps * 20, frames=one.replayed.frames[:-1] * 20),
    )
    assert page.width < sheet(long, "title").width < 30 * (TILE + 2)


def test_the_video_is_the_plain_rollout_with_the_maps_beside_it(episodes):
    one = episodes[0]
    plain, frames = compose(one.replayed, "title"), video(one, "title")
    assert len(frames) == len(plain) and len({f.shape for f in frames}) == 1
    height, width = plain[0].shape[:2]
    assert all(np.array_equal(f[:height, :width], p) for f, p in zip(frames, plain, strict=True))
    beside = [f[:, width:] for f in frames]
    assert np.array_equal(beside[-1], beside[-2]) and not np.array_equal(beside[0], beside[1])
    assert all(side % 2 == 0 for side in frames[0].shape[:2])


@pytest.mark.slow
def test_reading_leaves_a_sheet_and_a_video_per_episode(subject):
    table = read(replace(subject, seeds=subject.seeds[:2]))
    folder = subject.folder / SHORT.id
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        f"{s}.{e}" for s in subject.seeds[:2] for e in ("mp4", "png")
    )
    assert Image.open(folder / f"{subject.seeds[0]}.png").size[0] > TILE
    assert table["n"].max() == 2


def test_without_memory_there_is_attention_too(subject_of, cell_with):
    episodes = attended(subject_of(cell_with({"memory.kind": "none", "memory.m": 0}), 1))
    table = frame(episodes)
    assert Segment.MEMORY.name not in set(table["from_segment"]) | set(table["to_segment"])
    assert set(table.dropna(subset="curve")["curve"]) == {f"{ACTION_READ} → VISION"}
    assert set(episodes[0].kinds) == {"action to vision", "action, rollout"}
