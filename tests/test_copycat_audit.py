"""The copycat audit: an arm whose past tells its action, and an arm whose past does not."""

import numpy as np
import pytest

from muvla.config import DatasetConfig, TaskConfig
from muvla.data.collect import collect
from muvla.data.copycat_audit import audit_copycat, summarize_copycat
from muvla.data.store import EpisodeStore
from muvla.envs.phases import Phase

EPISODES = 60


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """The recall suite's arm goes straight to its target."""
    return collect(DatasetConfig(TaskConfig("RecallPosition3-v0"), EPISODES), tmp_path_factory.mktemp("copycat"))


def changed(store: EpisodeStore, **columns: np.ndarray) -> EpisodeStore:
    copy = EpisodeStore(store.path)
    copy._columns = copy._columns | columns
    return copy


def test_a_straight_movement_tells_itself_from_its_second_step_on(moving):
    first, second, *_ = results = audit_copycat(moving)
    assert (first.step, first.since, first.episodes) == (0, "decision", EPISODES)
    assert not first.tells_most and abs(first.pose) < 0.2 and first.action == 0, "the arm has not moved yet"
    assert second.tells_most and second.pose > 0.9 and second.action > 0.9
    summary = summarize_copycat(results)
    assert "at the steps 1, 2 of the decision" in summary and "does not tell" in first.line()


def test_actions_that_do_not_follow_from_the_past_are_not_told(moving):
    """The same poses under random actions."""
    actions = np.random.default_rng(0).normal(size=moving["executed_action"].shape).astype(np.float32)
    results = audit_copycat(changed(moving, executed_action=actions))
    assert results and not any(result.tells_most or max(result.pose, result.action) > 0.1 for result in results)
    assert "at no step" in summarize_copycat(results)


def test_pose_and_past_action_are_measured_apart(moving):
    still = np.zeros_like(moving["proprio"])
    second = audit_copycat(changed(moving, proprio=still))[1]
    assert second.pose < 0.1 and second.action > 0.9


def test_without_known_phases_steps_count_from_the_episodes_first(moving):
    imported = changed(moving)
    imported._shapes = {name: shape for name, shape in imported._shapes.items() if name != "executed_action"}
    first = audit_copycat(imported)[0]
    assert (first.step, first.since, first.episodes) == (0, "episode", EPISODES)


def test_a_demonstration_without_a_decision_is_left_out(moving):
    phase = np.array(moving["phase"])
    phase[: moving.lengths[0]] = Phase.DELAY
    assert audit_copycat(changed(moving, phase=phase))[0].episodes == EPISODES - 1


def test_too_few_episodes_are_not_applicable(tmp_path):
    store = collect(DatasetConfig(TaskConfig("RecallPosition3-v0"), 4), tmp_path)
    assert "not applicable" in summarize_copycat(audit_copycat(store))
