"""The observation audit: a planted mark of the target is found, and the recall suite is not accused."""

import numpy as np
import pytest

from muvla.cli.main import main
from muvla.config import DatasetConfig, TaskConfig
from muvla.data.collect import collect
from muvla.data.observation_audit import ERROR_RATE, audit_observations, predict_shuffled
from muvla.data.store import EpisodeStore
from muvla.envs.phases import Phase
from muvla.envs.recall.tasks import RECALL_TASKS

FAMILIES = [name for name in RECALL_TASKS if name not in ("RecallPosition5-v0", "RecallColor5-v0")]


def demonstrations(folder, name: str, episodes: int = 60) -> EpisodeStore:
    return collect(DatasetConfig(TaskConfig(name, delay=(2, 4)), episodes=episodes), folder)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return demonstrations(tmp_path_factory.mktemp("observed"), "RecallPosition3-v0")


def marked(store: EpisodeStore, phase: Phase, levels: int = 12, column: str = "images") -> EpisodeStore:
    """The same demonstrations with the target in the frames of a phase: +12 grey levels in a patch of 3 × 3 pixels,
    whose column stands for the target."""
    copy = EpisodeStore(store.path)
    values = np.array(store[column])
    for start, length, line in zip(store.starts, store.lengths, store.index, strict=True):
        frames = start + np.flatnonzero(np.asarray(store["phase"][start : start + length]) == phase)
        if column == "proprio":
            values[frames, 0] += 0.1 * line["target"]
            continue
        left = 4 + 8 * line["target"]
        values[frames, 0, 2:5, left : left + 3] += np.uint8(levels)
    copy._columns = copy._columns | {column: values}
    return copy


def alarms(store: EpisodeStore) -> set[tuple[str, str]]:
    return {(result.frames, result.observed) for result in audit_observations(store) if result.reveals}


def test_a_faint_mark_in_frames_of_the_delay_is_found(clean):
    results = {(r.frames, r.observed): r for r in audit_observations(marked(clean, Phase.DELAY))}
    seen = results["delay", "pixels"]
    assert seen.reveals and seen.value > 0.9 and seen.chance < 0.5 and seen.p == pytest.approx(0.001)
    assert [key for key, result in results.items() if result.reveals] == [("delay", "pixels")]
    assert "reveal it" in seen.line() and "1%" in seen.line()


def test_a_mark_is_found_in_the_frame_and_in_the_input_where_it_stands(clean):
    assert alarms(marked(clean, Phase.DECISION)) == {("decision", "pixels")}
    assert alarms(marked(clean, Phase.DELAY, column="proprio")) == {("delay", "proprio")}
    assert not alarms(marked(clean, Phase.CUE)), "the cue shows the target by design"


@pytest.mark.parametrize("name", FAMILIES)
def test_no_family_of_the_recall_suite_is_accused(tmp_path, name):
    """Also where the delay itself marks discs (overwrite, interference) or moves them (tracking)."""
    results = audit_observations(demonstrations(tmp_path, name))
    assert len(results) == 4 and not any(result.reason or result.reveals for result in results)


def test_a_frame_that_changes_the_target_by_design_stays_out(tmp_path):
    """Half of the targets of RecallOverwrite3 are marked in its delay, here in every frame of the delay."""
    task = TaskConfig("RecallOverwrite3-v0", delay=(1, 1))
    results = audit_observations(collect(DatasetConfig(task, episodes=40), tmp_path))
    assert [bool(result.reason) for result in results] == [True, True, False, False]


def test_the_observable_twin_is_found(tmp_path):
    """Its decision shows what must be known."""
    task = TaskConfig("RecallPosition3-v0", observable=True)
    assert alarms(collect(DatasetConfig(task, episodes=40), tmp_path)) == {("decision", "pixels")}


def test_the_control_has_the_stated_error_rate():
    """Frames without the target: p is at most α in about α of the audits."""
    rng = np.random.default_rng(0)
    ps = []
    for _ in range(300):
        value, control = predict_shuffled(rng.normal(size=(30, 20)), rng.integers(3, size=30), shuffles=39)
        ps.append((1 + (control >= value).sum()) / 40)
    assert np.mean(np.array(ps) <= 0.05) < 0.09, "0.05, and 0.09 lies three standard errors above"
    assert np.mean(np.array(ps) <= 0.5) > 0.3, "a control that is never exceeded would accuse nothing"
    assert ERROR_RATE > 4 / 1000, "the smallest p passes Holm over four tests"


def test_what_cannot_be_audited_is_not_applicable(clean, tmp_path, capsys):
    unknown = EpisodeStore(clean.path)
    for line in unknown.index:
        line.pop("target")
    assert all(result.reason and not result.reveals for result in audit_observations(unknown))
    few = demonstrations(tmp_path, "RecallPosition3-v0", episodes=4)
    assert "not applicable" in audit_observations(few)[0].line()
    assert main(["data", "audit", clean.path.name, "--data", str(clean.path.parent), "--json"]) == 0
    out = capsys.readouterr().out
    assert '"observations"' in out and '"copycat"' in out
