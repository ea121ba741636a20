"""LeRobotDataset v3, MIKASA-Robo's npz and ManiSkill's HDF5, as their own libraries write them: read as they are, and
every kind of damage named."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers import foreign_files as files
from helpers.errors import refused_at
from muvla.cli.main import main
from muvla.data.importer import import_config, import_dataset
from muvla.data.readers.formats import choose_schema, open_source
from muvla.data.readers.schema import read_demonstrations
from muvla.data.store import EpisodeStore
from muvla.errors import MuvlaError

TASK, TEXT = "RecallPosition3-v0", files.INSTRUCTIONS[0]
LENGTHS = (3, 4, 5)


def schema_of(source, **named):
    name = "mikasa" if source.format == "lerobot" else None
    return choose_schema(source, name, text=TEXT if source.format == "maniskill" else None, **named)


def read(path, skip=0, **named):
    """Checked and read as an import does it."""
    source = open_source(path)
    schema = schema_of(source, **named)
    schema.check(source)
    return list(read_demonstrations(source, schema, TASK, numbers=range(skip, len(source))))


def written(tmp_path, which, **options):
    if which in ("video", "image"):
        return files.lerobot(tmp_path / "lerobot", kind=which, **options)
    return getattr(files, which)(tmp_path / which, **options)


EVERY = ("video", "image", "mikasa", "maniskill")


@pytest.mark.parametrize("which", EVERY)
def test_what_was_written_is_read_from_any_episode_on(tmp_path, which):
    path = written(tmp_path, which)
    for skip in range(4):
        episodes = read(path, skip)
        assert [len(one.phase) for one in episodes] == list(LENGTHS[skip:])
        for number, one in enumerate(episodes, start=skip):
            steps = LENGTHS[number]
            assert np.array_equal(one.recorded_action, files.numbers(steps, number)), number
            for camera in range(2):
                frames = files.pixels(steps + (which == "maniskill"), number + 1000 * camera)[:steps]
                assert np.array_equal(one.images[:, camera], frames), (number, camera)
            proprio = files.numbers(steps + 1, 100 + number, 9)[:steps] if which == "maniskill" else None
            assert np.array_equal(one.proprio, files.numbers(steps, 100 + number) if proprio is None else proprio)
            lerobot = which in ("video", "image")
            assert one.info["instruction"] == files.INSTRUCTIONS[number % 2 if lerobot else 0]
            assert one.info.get("seed") == (None if lerobot else 40 + number)
            assert one.executed_action is None and not one.phase.any()


@pytest.mark.parametrize("which", EVERY)
def test_an_import_says_the_disk_it_takes_and_continues(tmp_path, which):
    source = open_source(written(tmp_path, which))
    schema = schema_of(source)
    spec = import_config(source, TASK, "brought")

    class StopError(Exception):
        pass

    def stop(done, total):
        if done == 2:
            raise StopError

    said, done = [], []
    with pytest.raises(StopError):
        import_dataset(source, schema, spec, tmp_path, stop, said.append)
    store = import_dataset(source, schema, spec, tmp_path, lambda n, total: done.append((n, total)))
    assert done == [(3, 3)] and store.lengths.tolist() == list(LENGTHS) and source.frames == 12
    whole = import_dataset(source, schema, spec, tmp_path / "at once")
    assert whole.sha256 == store.sha256
    assert "0.00 GiB" in said[0]


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
def test_a_lossy_video_gives_the_right_frames(tmp_path, codec):
    """Each is nearest to itself among all that were written."""
    path = written(tmp_path, "video", codec=codec)
    colours = np.concatenate([files.pixels(steps, number)[:, 0, 0] for number, steps in enumerate(LENGTHS)])
    found = np.concatenate([one.images[:, 0].mean(axis=(1, 2)) for one in read(path)])
    assert np.abs(found[:, None] - colours).sum(axis=-1).argmin(axis=1).tolist() == list(range(sum(LENGTHS)))


def test_features_can_be_named(tmp_path):
    path = written(tmp_path, "maniskill")
    (one, *_) = read(path, cameras=["sensor_data/hand_camera/rgb"], proprio=["extra/tcp_pose"])
    assert np.array_equal(one.images[:, 0], files.pixels(4, 1000)[:3])
    assert np.array_equal(one.proprio, files.numbers(4, 200)[:3])
    with pytest.raises(MuvlaError) as info:
        read(path, proprio=["extra/pose"])
    assert info.value.field.endswith("feature extra/pose")
    with pytest.raises(MuvlaError) as info:
        read(path, cameras=["agent/qpos"])
    assert info.value.field.endswith("feature agent/qpos")
    (one, *_) = read(written(tmp_path, "image"), cameras=[files.WRIST])
    assert one.images.shape == (3, 1, files.SIZE, files.SIZE, 3)


def test_failed_trajectories_are_left_out_and_told(tmp_path):
    path = written(tmp_path, "maniskill", failed=(1,))
    assert [len(one.phase) for one in read(path)] == [3, 5]
    assert "2 episodes, 1 failed ones left out" in open_source(path).origin
    with pytest.raises(MuvlaError) as info:
        open_source(files.maniskill(tmp_path / "none", failed=(0, 1, 2)))
    assert info.value.field.endswith("trajectory.json")


@pytest.mark.parametrize("which", EVERY)
def test_from_the_command_line(tmp_path, which, capsys):
    path, place = written(tmp_path, which), ["--data", str(tmp_path / "data")]
    more = ["--schema", "mikasa"] if which in ("video", "image") else []
    more += ["--instruction", TEXT] if which == "maniskill" else []
    command = ["data", "import", str(path), "--task", TASK, "--name", "toy", *place, *more]
    assert main(command) == 0
    assert "episodes=3, source='toy'), labels='recorded')" in capsys.readouterr().out, "as a study writes it"
    assert main(["data", "show", "toy", *place]) == 0
    assert {"3", "5", "12"} <= set(re.findall(r"\d+", capsys.readouterr().out))
    assert main(["data", "audit", "toy", *place]) == 0
    assert capsys.readouterr().out.count("not applicable") == 6, "labels, four inputs, and too few episodes"
    EpisodeStore(tmp_path / "data" / "toy").verify()


def removed(pattern):
    return lambda path: next(path.glob(pattern)).unlink()


def cut(pattern, share=0.6):
    def damage(path):
        file = next(path.glob(pattern))
        file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])

    return damage


def shorter_video(path):
    files.video(path / "videos" / files.TOP / "chunk-000/file-000.mp4", files.pixels(5, 0), "libx264rgb")


def info(**changes):
    def damage(path):
        file = path / "meta" / "info.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return damage


def without(key):
    def damage(path):
        file = path / "meta" / "info.json"
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != key}))

    return damage


def no_length(path):
    file = path / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["length"]), file)


def no_camera(path):
    file = path / "meta" / "info.json"
    told = json.loads(file.read_text())
    del told["features"][files.WRIST]
    file.write_text(json.dumps(told))


def no_place(path):
    file = path / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    pq.write_table(table.drop_columns([f"videos/{files.TOP}/file_index"]), file)


def empty_text(path):
    pq.write_table(pa.table({"task_index": [0, 1], "task": [TEXT, " "]}), path / "meta" / "tasks.parquet")


NOT_A_NUMBER = np.full((5, 7), np.nan, np.float32)


@pytest.mark.parametrize(
    ("which", "damage", "field", "got"),
    [
        ("image", removed("data/*/file-001.parquet"), "file-001.parquet", ""),
        ("image", removed("meta/episodes/*/*.parquet"), "meta/episodes", "0 episodes"),
        ("image", removed("meta/tasks.parquet"), "tasks.parquet", ""),
        ("image", cut("data/*/file-000.parquet"), "data/chunk-000/file-000.parquet", ""),
        ("image", info(total_frames=13), "meta/episodes", "12 frames"),
        ("image", info(codebase_version="v1.6"), "meta/info.json: codebase_version", "v1.6"),
        ("image", info(features={}), "feature observation.images.top", ""),
        ("image", without("fps"), "meta/info.json: fps", ""),
        ("image", no_length, "file-000.parquet: length", ""),
        ("image", no_camera, "feature observation.images.wrist", ""),
        ("image", empty_text, "episode 1 (from 0): task", ""),
        ("video", removed("videos/*/*/file-001.mp4"), "file-001.mp4", ""),
        ("video", cut("videos/*/*/file-000.mp4"), "file-000.mp4", ""),
        ("video", shorter_video, f"{files.TOP}/chunk-000/file-000.mp4", "0.500 s"),
        ("video", no_place, f"meta/episodes: episode 0: {files.TOP}", "file_index None"),
        ("mikasa", removed("train_data_1.npz"), "mikasa", "train_data_1.npz"),
        ("mikasa", cut("train_data_2.npz"), "train_data_2.npz", ""),
    ],
)
def test_damage_is_one_clear_error(tmp_path, which, damage, field, got):
    path = written(tmp_path, which)
    damage(path)
    with refused_at(field, got):
        read(path)


def last_row(name, value):
    def change(data):
        return [*data[name][:-1], value]

    return {name: change}


@pytest.mark.parametrize(
    ("which", "changes", "field", "got"),
    [
        ("image", last_row("action", [np.nan] * 7), "episode 1 (from 0): action", "step 3"),
        ("image", last_row("action", [None] * 7), "episode 1 (from 0): action", "step 3"),
        ("image", last_row("observation.state", [0.0] * 6), "episode 1 (from 0): observation.state", ""),
        ("image", last_row("episode_index", 2), "file-000.parquet", "3 rows"),
        ("image", last_row("index", 9), "file-000.parquet", "4 rows"),
        ("image", last_row(files.TOP, {"bytes": b"x", "path": None}), f"episode 1 (from 0): {files.TOP}, step 3", ""),
        (
            "image",
            last_row(files.TOP, {"bytes": None, "path": "gone.png"}),
            f"episode 1 (from 0): {files.TOP}, step 3",
            "",
        ),
        (
            "image",
            last_row(files.TOP, {"bytes": files.png(files.pixels(1, 0, 16)[0]), "path": None}),
            f"episode 1 (from 0): {files.TOP}",
            "",
        ),
        ("image", last_row("task_index", 0), "episode 1 (from 0): task", TEXT),
        ("mikasa", {"action": NOT_A_NUMBER}, "train_data_2.npz: action", "step 0"),
        ("mikasa", {"action": np.zeros((4, 7), np.float32)}, "train_data_2.npz", "'action': 4"),
        ("mikasa", {"rgb": None}, "train_data_2.npz: rgb[..., :3]", ""),
        ("mikasa", {"language_instruction": np.array("")}, "train_data_2.npz: language_instruction", ""),
        ("mikasa", {"rgb": np.array([{}], dtype=object)}, "train_data_2.npz", ""),
        ("maniskill", {"actions": NOT_A_NUMBER}, "traj_2: actions", "step 0"),
        ("maniskill", {"actions": np.zeros((4, 7), np.float32)}, "traj_2: actions", "4 rows"),
    ],
)
def test_an_episode_that_cannot_be_used_is_named(tmp_path, which, changes, field, got):
    path = written(tmp_path, which, **changes)
    with refused_at(field, got):
        read(path)


def test_what_maniskill_did_not_record_is_told(tmp_path):
    path = files.maniskill(tmp_path / "state", cameras=())
    with pytest.raises(MuvlaError) as info:
        open_source(path)
    assert info.value.field.endswith("trajectory.h5")
    path = files.maniskill(tmp_path / "silent")
    with pytest.raises(MuvlaError) as info:
        choose_schema(open_source(path)).check(open_source(path))
    assert info.value.field == "--instruction"
    path.with_suffix(".json").unlink()
    with pytest.raises(MuvlaError) as info:
        open_source(path)
    assert info.value.field.endswith("trajectory.json")
    path = files.maniskill(tmp_path / "rgb")
    told = json.loads(path.with_suffix(".json").read_text())
    told["episodes"].append(told["episodes"][0] | {"episode_id": 7})
    path.with_suffix(".json").write_text(json.dumps(told))
    with pytest.raises(MuvlaError) as info:
        open_source(path)
    assert info.value.field.endswith("traj_7")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(MuvlaError) as info:
        open_source(path)
    assert info.value.field.endswith("trajectory.h5")


def test_mikasas_folder_of_batches_is_none_of_episodes(tmp_path):
    np.savez(tmp_path / "train_data_0.npz", episode_data=np.array([{"action": np.zeros(3)}], dtype=object))
    with pytest.raises(MuvlaError) as info:
        open_source(tmp_path)
    assert info.value.field.endswith("train_data_0.npz")


def test_the_format_is_told_by_the_files(tmp_path):
    for which, format in (("image", "lerobot"), ("mikasa", "mikasa"), ("maniskill", "maniskill")):
        assert open_source(written(tmp_path, which)).format == format
    with pytest.raises(MuvlaError) as info:
        open_source(tmp_path)
    assert info.value.field == "PATH"
    with pytest.raises(MuvlaError) as info:
        open_source(tmp_path / "lerobot", "lerobt")
    assert info.value.field == "--format" and "lerobot" in info.value.remedy
    with pytest.raises(MuvlaError) as info:
        choose_schema(open_source(tmp_path / "lerobot"))
    assert info.value.field == "--schema"


@pytest.mark.parametrize(("which", "package"), [("image", "pyarrow"), ("video", "av"), ("maniskill", "h5py")])
def test_a_missing_package_is_told(tmp_path, monkeypatch, which, package):
    path = written(tmp_path, which)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MuvlaError) as info:
        read(path)
    assert info.value.field in {"av", "h5py", "pyarrow"}


@pytest.mark.parametrize("which", EVERY)
def test_a_disk_that_is_full_loses_nothing(tmp_path, small_disk, monkeypatch, which):
    """Full for real, in the middle of a column."""
    source = open_source(written(tmp_path, which, lengths=(40, 60, 80)))
    schema = schema_of(source)
    spec = import_config(source, TASK, "toy")
    monkeypatch.setattr("muvla.data.importer.shutil.disk_usage", lambda path: type("usage", (), {"free": 2**40}))
    with pytest.raises(MuvlaError) as info:
        import_dataset(source, schema, spec, small_disk)
    assert info.value.field.endswith("images.bin")
    done = []
    kept = len((small_disk / "toy" / "episodes.jsonl").read_text().splitlines())
    assert 0 < kept < 3
    shutil.copytree(small_disk / "toy", tmp_path / "roomy" / "toy")
    store = import_dataset(source, schema, spec, tmp_path / "roomy", lambda n, total: done.append(n))
    assert done == list(range(kept + 1, 4))
    assert store.sha256 == import_dataset(source, schema, spec, tmp_path / "whole").sha256


def run(code):
    """In a process of its own, as SAPIEN wants it."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.environ.get("MUVLA_EVERY_TASK") != "1", reason="`make test-sim` runs it: it takes long")
@pytest.mark.sim
@pytest.mark.slow
def test_what_maniskill_itself_records_is_read(tmp_path):
    run(f"""
import gymnasium, mani_skill.envs, numpy as np
from mani_skill.utils.wrappers.record import RecordEpisode
env = gymnasium.make("PickCube-v1", obs_mode="rgb", control_mode="pd_ee_delta_pose", sim_backend="physx_cpu",
                     render_backend="sapien_cpu", sensor_configs=dict(width=32, height=32))
env = RecordEpisode(env, {str(tmp_path)!r}, trajectory_name="trajectory", save_video=False)
frames, actions = [], []
for seed in range(2):
    observation, _ = env.reset(seed=seed)
    for _ in range(3 + seed):
        frames.append(observation["sensor_data"]["base_camera"]["rgb"][0].cpu().numpy().copy())
        actions.append(np.ravel(env.action_space.sample()))
        observation, *_ = env.step(actions[-1])
env.close()
np.savez({str(tmp_path / "truth.npz")!r}, frames=frames, actions=actions)
""")
    file = tmp_path / "trajectory.json"
    file.write_text(file.read_text().replace('"success": false', '"success": true'))  # nobody picked a cube
    truth, episodes = np.load(tmp_path / "truth.npz"), read(tmp_path / "trajectory.h5")
    assert [len(one.phase) for one in episodes] == [3, 4] and [one.info["seed"] for one in episodes] == [0, 1]
    assert np.array_equal(np.concatenate([one.images[:, 0] for one in episodes]), truth["frames"])
    assert np.array_equal(np.concatenate([one.recorded_action for one in episodes]), truth["actions"])


@pytest.mark.sim
@pytest.mark.slow
def test_what_mikasas_own_unbatching_leaves_is_read(tmp_path):
    """Its collector's episodes need a trained oracle; what makes files of them is the suite's."""
    lengths = (10, 12)
    files.mikasa(tmp_path / "made", lengths, metadata=False)
    run(f"""
import numpy as np
from pathlib import Path
from mikasa_robo_suite.vla.dataset_collectors import get_mikasa_robo_datasets as suite
root, task = {str(tmp_path / "suite")!r}, "RememberColor3-VLA-v0"
batched = suite.npz_layout_roots(root)[1] / suite.env_id_to_dataset_name(task)
batched.mkdir(parents=True)
made = [dict(np.load(one)) for one in sorted(Path({str(tmp_path / "made")!r}).glob("*.npz"))]
np.savez(batched / "train_data_batch_0.npz", episode_data=np.array(made, dtype=object),
         batch_size=np.array(2, dtype=np.int32), all_success_once=np.array(True, dtype=np.bool_))
suite.collect_unbatched_data_from_batched(task, root)
""")
    (folder,) = (tmp_path / "suite").rglob("remember_color_3_vla_v0/metadata.json")
    episodes = read(folder.parent)
    assert [len(one.phase) for one in episodes] == list(lengths)
    for number, (one, steps) in enumerate(zip(episodes, lengths, strict=True)):
        assert np.array_equal(one.recorded_action, files.numbers(steps, number))
        assert np.array_equal(one.images[:, 1], files.pixels(steps, 1000 + number))
