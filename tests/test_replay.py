"""A recorded episode, run again: it ends as its row says, and can be looked at."""

import errno
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.errors import printed_field, refused
from helpers.studies import FEW, STUDY
from helpers.troubled import Broken, Troubled
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.data.normalization import Statistics
from muvla.envs.phases import Phase
from muvla.envs.registry import make_env
from muvla.envs.workers import WorkerEnv
from muvla.errors import DiskError, Interrupted, MuvlaError, NotAMeasurement
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.episode import Outcome
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.records import EpisodeRow, Summary
from muvla.evaluation.replay import ReplayedEpisode, Step, StepRecorder, replay, require_same
from muvla.evaluation.rollout import Rollout
from muvla.evaluation.sanity_check import episode_checks
from muvla.evaluation.seal import seal_file
from muvla.evaluation.video import FPS, compose, memory_change, write_video
from muvla.interventions import parse_intervention
from muvla.runs import conditions, sanity_check
from muvla.runs.evaluate import Evaluator
from muvla.runs.find import find_run
from muvla.runs.run import TrainedOn
from muvla.utils.io import read_lines

SHORT = replace(get_protocol("recall-position3-rh@1"), name="short", episodes=6, slots=3)


def replayed(trainer, kind="none", make=lambda: make_env(SHORT.task), seed=SHORT.seed + 4):
    actor = PolicyActor(trainer.policy, trainer.statistics, SHORT, parse_intervention(kind))
    return replay(actor, make, [seed], 1)[seed]


@pytest.mark.parametrize("kind", ["none", "zero"])
def test_a_replayed_episode_is_the_one_among_others(trained, kind):
    """Whoever else was evaluated beside it; its steps and pictures are all there, and its memory as it was read."""
    found = {}
    actor = PolicyActor(trained.policy, trained.statistics, SHORT, parse_intervention(kind))
    rollout = Rollout(actor, lambda: make_env(SHORT.task))
    rollout.run(range(SHORT.seed, SHORT.seed + 6), lambda o: found.update({o.seed: o}))
    one = replayed(trained, kind)
    assert one.outcome.info == found[SHORT.seed + 4].info
    assert len(one.steps) == one.outcome.info["steps"] == len(one.frames) - 1
    assert [step.phase for step in one.steps].count(Phase.CUE) == one.outcome.info["cue_length"]
    change = memory_change(one.steps)
    assert change[0] == 0 and (change[1:] > 0).all() if kind == "none" else not change[2:].any()


def test_an_attempt_that_lost_its_worker_is_no_part_of_the_episode(trained, tmp_path):
    once = replayed(trained, make=lambda: WorkerEnv(partial(Troubled, tmp_path, {SHORT.seed + 4: "die once"})))
    plain = replayed(trained)
    assert once.outcome.attempts == 2 and len(once.steps) == len(plain.steps)
    assert all(np.array_equal(a, b) for a, b in zip(once.frames, plain.frames, strict=True))
    with pytest.raises(MuvlaError) as info:
        replayed(trained, make=lambda: Broken(SHORT.task.name))
    assert info.value.field == f"episode seed {SHORT.seed + 4}"


@pytest.mark.slow
def test_the_video_is_the_same_every_time_and_has_a_frame_per_step(trained, tmp_path):
    import imageio.v3 as iio

    one = replayed(trained)
    frames = compose(one, "title")
    assert len(frames) == len(one.frames)
    assert len({frame.shape for frame in frames}) == 1 and all(side % 2 == 0 for side in frames[0].shape[:2])
    assert len({frame.tobytes() for frame in frames}) == len(frames), "every step looks different"
    for name in ("a.mp4", "b.mp4"):
        write_video(compose(replayed(trained), "title"), tmp_path / "folder" / name)
    contents = [(tmp_path / "folder" / name).read_bytes() for name in ("a.mp4", "b.mp4")]
    assert contents[0] == contents[1]
    read = iio.imread(tmp_path / "folder" / "a.mp4", plugin="pyav")
    assert read.shape == (len(frames), *frames[0].shape)
    assert np.abs(read[0].astype(int) - frames[0]).mean() < 8
    assert iio.immeta(tmp_path / "folder" / "a.mp4", plugin="pyav")["fps"] == FPS


def test_without_an_encoder_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MuvlaError) as info:
        write_video([np.zeros((16, 16, 3), np.uint8)], tmp_path / "x.mp4")
    assert info.value.field == "video"


def test_what_the_video_shows_of_action_and_memory():
    """Bars to the right and to the left, red where clipped, hollow where nothing is executed; no memory says so."""

    def page(action, phase=Phase.DECISION, memory=None):
        memory = np.ones((2, 3)) if memory is None else memory
        steps = [Step(np.zeros(2), phase, np.array(action), memory) for _ in range(3)]
        told = {"success_once": False, "choice": -1, "target": 0}
        pictures = [np.zeros((1, 8, 8, 3), np.uint8)] * 4
        return compose(ReplayedEpisode(Outcome(1, told), steps, pictures), "")[1]

    def area(picture, colour):
        return (picture == colour).all(axis=-1)

    blue, red = (31, 119, 180), (214, 39, 40)
    right, left = (area(page([value]), blue)[:200] for value in (0.5, -0.5))
    assert np.flatnonzero(right.any(0)).min() >= np.flatnonzero(left.any(0)).max()
    clipped = area(page([1.5]), red)[:200]
    assert clipped.sum() > right.sum() and not area(page([1.5]), blue)[:200].any()
    assert 0 < area(page([0.5], Phase.CUE), blue)[:200].sum() < right.sum() / 2
    assert not np.array_equal(page([0.5]), page([0.5], memory=np.zeros((0, 3))))


def test_the_change_of_a_memory():
    steps = [Step(None, None, None, np.array([[x, y]])) for x, y in ((1, 0), (2, 0), (0, 1), (0, -1), (0, 0))]
    np.testing.assert_allclose(memory_change(steps), [0, 0, 1, 2, 0])


ROW = {"target": 0, "choice": 1, "steps": 9, "success_once": False}


def test_an_episode_that_ends_otherwise_is_one_error_that_names_the_difference():
    row = EpisodeRow(**dict.fromkeys(EpisodeRow.__dataclass_fields__) | ROW | {"seed": 7, "provenance": "abc"})
    require_same(ReplayedEpisode(Outcome(7, ROW), [], []), row)
    with refused("episode seed 7"):
        require_same(ReplayedEpisode(Outcome(7, ROW | {"choice": 2, "steps": 8}), [], []), row)


STATISTICS = Statistics((-1.0,) * 2, (1.0,) * 2, (0.0,) * 2, (1.0,) * 2, (True, True), "x")


@pytest.mark.parametrize("wrong", [None, "pictures", "action", "proprio"])
def test_checks_where_nothing_succeeds(wrong):
    """Each sees its own trouble and no other."""
    position = [np.array([t / 4, 0.5]) + 9.0 * (wrong == "proprio") for t in range(5)]
    action = np.array([0.5, 3.0 if wrong == "action" else 0.5])
    steps = [Step(p, Phase.DECISION, action, np.zeros((1, 1))) for p in position]
    frames = [np.full((1, 4, 4, 3), min(t, 1) if wrong == "pictures" else t, np.uint8) for t in range(6)]
    lines = episode_checks(ReplayedEpisode(Outcome(1), steps, frames), STATISTICS, shows_proprio=True)
    looks = [line for line in lines if line.startswith("  LOOK")]
    assert len(lines) == 3 and len(looks) == (wrong is not None)
    told = {"pictures": "changed in 1 of 4 steps", "action": "0.50 of the action's", "proprio": "1.00 of the proprio"}
    assert wrong is None or told[wrong] in looks[0]
    foreign = replace(STATISTICS, proprio_low=(0.0,) * 8, proprio_high=(1.0,) * 8)  # another robot's
    assert episode_checks(ReplayedEpisode(Outcome(1), steps, frames), foreign, shows_proprio=False) == lines[:2]


def test_a_chunk_that_is_held_is_replayed_to_its_end(trained):
    """Steps beyond the chunk execute, and show, its last action."""
    H = trained.policy.config.chunk
    held = replace(SHORT, name="held", regime="open_loop", h=H + 2, tick="call", beyond="hold_last")
    actor = PolicyActor(trained.policy, trained.statistics, held)
    steps = replay(actor, lambda: make_env(SHORT.task), [SHORT.seed], 1)[SHORT.seed].steps
    assert len(steps) > H and np.array_equal(steps[H].action, steps[H - 1].action)


def evaluator_of(trained, stop=lambda: False):
    run = SimpleNamespace(trained_on=lambda: TrainedOn(trained.statistics, None, ()))
    return Evaluator(run, policy=trained.policy, should_stop=stop)


def test_replaying_takes_the_donors_that_the_run_has_recorded(trained, monkeypatch):
    asked = []
    monkeypatch.setattr("muvla.runs.evaluate.with_donors", lambda *given: asked.append(given))
    evaluator = evaluator_of(trained)
    evaluator.prefixes.of(SHORT.hash).donors["recorded"] = ()
    evaluator.replay(SHORT, "transplant", SHORT.seed, workers=3)
    ((*_, context),) = asked
    assert context.cache is evaluator.prefixes and "recorded" in context.cache.donors and context.workers == 3


def test_replaying_stops_when_asked(trained):
    asked = []

    def stop():
        asked.append(1)
        if len(asked) == 3:
            raise Interrupted

    class Counting(StepRecorder):
        steps = 0

        def before_step(self, episode):
            self.steps += 1

    actor, counting = PolicyActor(trained.policy, trained.statistics, SHORT), Counting()
    with pytest.raises(Interrupted):
        replay(actor, lambda: make_env(SHORT.task), [SHORT.seed], 1, stop, [counting])
    assert counting.steps == 2


ROWS = [SimpleNamespace(seed=SHORT.seed + 3, error=None)]


def looked(trained, stop=lambda: False, error=None):
    """The lines of a look at a run whose diagnostic episode ends in `error`, or is run."""

    def fails(*_):
        raise error

    evaluator = evaluator_of(trained, stop)
    if error:
        evaluator.replay = fails
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sanity_check, "result_rows", lambda *_: ROWS)
        return sanity_check.sanity_check(evaluator, SHORT, "none")


def test_a_diagnosis_that_fails_is_said_and_ends_nothing(trained):
    lost = MuvlaError("episode seed 5", got="WorkerLost", expected="an episode", remedy="run it again")
    assert looked(trained, error=lost)[1].startswith("  could not be run again: episode seed 5: got")
    assert looked(trained, error=RuntimeError("a simulator's"))[1] == "  could not be run again: a simulator's"
    for ends in (
        NotAMeasurement("memory", got="NaN", expected="finite", remedy="none"),
        DiskError("a disk", got="full", expected="space", remedy="free some"),
    ):
        with pytest.raises(type(ends)):
            looked(trained, error=ends)


def test_a_diagnosis_honours_a_stop(trained):
    with pytest.raises(Interrupted):
        looked(trained, stop=lambda: True)
    assert len(looked(trained)) == 4


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory, few):
    """A folder with a trained, evaluated cell; what is needed to name it."""
    root = tmp_path_factory.mktemp("watch")
    (root / "study.py").write_text(STUDY.format(updates=6))
    at = ["--runs", str(root / "runs"), "--data", str(root / "data")]
    assert main(["train", str(root), *at, "--variant", "K=8"]) == 0
    (folder,) = (path.parent for path in (root / "runs").glob("*/run.json"))
    common = [folder.name, *at, "--protocol", few.id]
    assert main(["evaluate", *common]) == 0
    return folder, common


@pytest.mark.slow
def test_watch_writes_a_video_of_an_episode_that_ends_as_its_row_says(place, capsys):
    folder, common = place
    assert main(["replay", *common, "--episode", "3"]) == 0
    file = folder / "videos" / f"{FEW.id}-none-3.mp4"
    assert file.stat().st_size > 1000 and str(file) in capsys.readouterr().out
    assert main(["intervene", common[0], "zero", *common[1:]]) == 0
    assert main(["replay", *common, "--episode", "3", "--intervention", "zero", "--out", str(folder / "x.mp4")]) == 0
    assert (folder / "x.mp4").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--episode", "200"], "--episode"),
        (["--episode", "-1"], "--episode"),
        (["--episode", "0", "--intervention", "amnesia"], "intervention"),
        (["--episode", "0", "--intervention", "noise_unit"], "--episode"),
    ],
)
def test_what_cannot_be_watched_is_one_error(place, capsys, arguments, field):
    assert main(["replay", *place[1], *arguments]) == EXIT_BAD_INPUT
    assert printed_field(capsys).endswith(field)


@pytest.mark.slow
def test_a_row_that_says_otherwise_makes_no_video(place, capsys, monkeypatch):
    folder, common = place
    (file,) = (path for path in Path(folder / "rows").iterdir() if '"none"' in path.read_text())
    text = file.read_text()
    line = next(line for line in read_lines(file) if line["seed"] == FEW.seed + 5)
    another = (line["target"] + 1) % 3
    file.write_text(
        text.replace(
            f'"seed": {line["seed"]}, "attempt": 1, "target": {line["target"]}',
            f'"seed": {line["seed"]}, "attempt": 1, "target": {another}',
        )
    )
    seal = seal_file(file)
    seal.rename(seal.with_suffix(".aside"))  # a result that is older than seals
    try:
        assert main(["replay", *common, "--episode", "5", "--out", str(folder / "no.mp4")]) == EXIT_BAD_INPUT
        error = capsys.readouterr().err
        assert f"target {line['target']}" in error and f"target {another}" in error
        assert not (folder / "no.mp4").exists()
    finally:
        file.write_text(text)
        seal.with_suffix(".aside").rename(seal)


@pytest.mark.slow
def test_a_full_disk_is_one_error_and_leaves_no_half_of_a_video(place, capsys, monkeypatch, tmp_path):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert main(["replay", *place[1], "--episode", "5", "--out", str(tmp_path / "full.mp4")]) == EXIT_BAD_INPUT
    errors = capsys.readouterr().err.splitlines()
    assert [line for line in errors if os.strerror(errno.ENOSPC) in line] and "Traceback" not in "".join(errors)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_zero_per_cent_prints_the_checks(place, capsys, monkeypatch):
    _, common = place
    real = conditions.summarise
    nothing = lambda rows: Summary(**{**real(rows).__dict__, "success": 0})  # noqa: E731
    main(["evaluate", *common])
    assert "Nothing succeeded" not in capsys.readouterr().out
    monkeypatch.setattr(conditions, "summarise", nothing)
    assert main(["evaluate", *common]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1].startswith("Nothing succeeded. Episode ") and len(out) == 5
    assert [line.split()[0] for line in out[2:]] == ["ok", "ok", "ok"], out
    assert find_run(Path(common[2]), Path(common[4]), common[0]).failure is None
