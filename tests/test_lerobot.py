"""LeRobotDatasets of every version: read as they are; stale, partial and hostile ones are read or refused by name."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import zlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers import foreign_files as files
from helpers import lerobot_files as lerobot
from helpers.errors import printed_field, refused, refused_at
from helpers.lerobot_files import SIDE, edit_episodes, edit_info, edit_table
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.data.importer import import_config, import_dataset
from muvla.data.readers.formats import choose_schema, open_source
from muvla.data.readers.lerobot import videos
from muvla.data.readers.schema import read_demonstrations
from muvla.data.readers.selection import select
from muvla.data.store import EpisodeStore
from muvla.errors import MuvlaError

TASK, LENGTHS = "RecallPosition3-v0", (3, 4, 5)
BOTH = (files.TOP, files.WRIST)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"


def read(path, cameras=BOTH, numbers=None):
    source = open_source(path)
    schema = choose_schema(source, "mikasa", cameras)
    schema.check(source)
    return list(read_demonstrations(source, schema, TASK, numbers=numbers))


def require_content(episodes, numbers=range(3)):
    """The episodes are those that the helpers write."""
    assert len(episodes) == len(numbers)
    for number, episode in zip(numbers, episodes, strict=True):
        steps = LENGTHS[number]
        assert np.array_equal(episode.recorded_action, files.numbers(steps, number)), number
        assert np.array_equal(episode.proprio, files.numbers(steps, 100 + number)), number
        for camera in range(episode.images.shape[1]):
            assert np.array_equal(episode.images[:, camera], files.pixels(steps, number + 1000 * camera)), number
        assert episode.info["instruction"] == files.INSTRUCTIONS[number % 2]


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
@pytest.mark.parametrize(("kind", "shape"), [("image", (32, 32, 3)), ("video", (32, 32, 3)), ("video", (3, 32, 32))])
def test_version_2_is_read_as_version_3(tmp_path, version, kind, shape):
    path = lerobot.lerobot_v2(tmp_path / "old", kind=kind, version=version, shape=shape)
    require_content(read(path))
    require_content(read(path, numbers=[1, 2]), [1, 2])
    source = open_source(path)
    assert source.conventions.fps == files.FPS and source.frames == 12
    assert source.feature("action").names == tuple(f"joint_{i}" for i in range(7))
    assert not source.feature("timestamp").names


@pytest.mark.parametrize("number", [0, 7], ids=["stale", "missing"])
def test_an_episode_is_found_in_another_file(tmp_path, number):
    """LeRobot joins all files; the metadata name the file before, or none that exists."""
    path = files.lerobot(tmp_path / "set", kind="image")
    edit_episodes(path, lambda rows: rows[2].update({"data/file_index": number}))
    require_content(read(path))


def test_the_rows_of_an_episode_may_lie_in_two_files(tmp_path):
    path = files.lerobot(tmp_path / "set", kind="image")
    first, second = (path / f"data/chunk-000/file-00{i}.parquet" for i in range(2))
    table = pq.read_table(first)
    pq.write_table(table.slice(0, 5), first)
    pq.write_table(pa.concat_tables([table.slice(5), pq.read_table(second)]), second)
    require_content(read(path))


def test_patterns_and_version_must_agree(tmp_path):
    path = files.lerobot(tmp_path / "new", kind="image")
    edit_info(path, data_path=lerobot.DATA)
    with refused_at("meta/info.json: data_path", "{episode_chunk"):
        read(path)
    path = lerobot.lerobot_v2(tmp_path / "old", kind="image")
    edit_info(path, data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet")
    with refused_at("meta/info.json: data_path", "{file_index"):
        read(path)


@pytest.mark.parametrize(
    "pattern",
    [
        "../{chunk_index}-{file_index}.parquet",
        "/etc/{file_index}",
        "{0}",
        "{unknown}",
        "{chunk_index:1000000000}",
        "{chunk_index.__class__}",
        "{chunk_index!r}",
        "{chunk_index",
        "",
        "x" * 5000,
        "data/\x00.parquet",
    ],
)
def test_patterns_stay_in_the_folder_and_are_no_programs(tmp_path, pattern):
    path = files.lerobot(tmp_path / "set", kind="image")
    for name in ("data_path", "video_path"):
        edit_info(path, **{name: pattern})
        with refused_at(f"meta/info.json: {name}"):
            read(path)
        edit_info(path, data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet")


@pytest.mark.parametrize("target", ["../x.png", "/absolute/x.png", "images/../../x.png", "link.png", "x" * 400])
def test_pictures_outside_are_not_read(tmp_path, target):
    (tmp_path / "x.png").write_bytes(files.png(files.pixels(1, 0)[0]))
    cell = {"bytes": None, "path": target}
    path = files.lerobot(tmp_path / "set", kind="image", **{files.TOP: lambda data: [cell, *data[files.TOP][1:]]})
    (path / "link.png").symlink_to(tmp_path / "x.png")
    with pytest.raises(MuvlaError) as info:
        read(path)
    assert f"episode 0 (from 0): {files.TOP}, step 0" in info.value.field


def test_a_link_to_a_file_outside_is_refused(tmp_path):
    """But for the links of the hub's cache, which lead from snapshots to blobs."""
    path = files.lerobot(tmp_path / "set", kind="image")
    file = path / "data/chunk-000/file-000.parquet"
    outside = file.rename(tmp_path / "outside.parquet")
    file.symlink_to(outside)
    with refused_at("file-000.parquet", "link"):
        read(path)
    repository = tmp_path / "datasets--someone--set"
    (repository / "blobs").mkdir(parents=True)
    path.rename(repository / "snapshot")
    (repository / "snapshots").mkdir()
    path = (repository / "snapshot").rename(repository / "snapshots" / "0123abc")
    file = path / "data/chunk-000/file-000.parquet"
    file.unlink()
    outside.rename(repository / "blobs" / "d1gest")
    file.symlink_to("../../../../blobs/d1gest")
    require_content(read(path))


def test_pictures_beside_the_table_are_read(tmp_path):
    frame = files.pixels(3, 0)[0]
    cell = {"bytes": None, "path": "images/a.png"}
    path = files.lerobot(tmp_path / "set", kind="image", **{files.TOP: lambda data: [cell, *data[files.TOP][1:]]})
    (path / "images").mkdir()
    (path / "images/a.png").write_bytes(files.png(frame))
    require_content(read(path, numbers=[0, 1]), [0, 1])
    (path / "images/a.png").write_bytes(POINTER)
    with refused_at("a.png", "Git LFS pointer"):
        read(path, numbers=[0])


def test_a_camera_that_is_not_asked_for_is_not_needed(tmp_path):
    path = files.lerobot(tmp_path / "set", kind="video")
    lerobot.add_camera(path)

    def place(rows):
        for number, row in enumerate(rows):
            for key in ("chunk_index", "file_index", "from_timestamp", "to_timestamp"):
                row[f"videos/{SIDE}/{key}"] = None if number == 1 else row[f"videos/{files.TOP}/{key}"]

    edit_episodes(path, place)
    require_content(read(path))
    with refused_at(f"{SIDE}/chunk-000/file-000.mp4", "no such file"):
        read(path, (files.TOP, SIDE), [0])
    shutil.copytree(path / "videos" / files.TOP, path / "videos" / SIDE)
    with refused_at(f"meta/episodes: episode 1: {SIDE}"):
        read(path, (files.TOP, SIDE))
    assert len(read(path, (files.TOP, SIDE), [0, 2])) == 2
    for file in (path / "videos" / files.WRIST).glob("*/*.mp4"):
        file.unlink()
    require_content(read(path, (files.TOP,)))


def test_files_of_other_episodes_are_not_needed(tmp_path, monkeypatch):
    path = lerobot.lerobot_v2(tmp_path / "set")
    for number in (0, 1):
        (path / lerobot.DATA.format(episode_chunk=0, episode_index=number)).unlink()
        (path / lerobot.VIDEO.format(episode_chunk=0, episode_index=number, video_key=files.TOP)).write_bytes(POINTER)
    opened = []
    real = videos.VideoFile.__init__
    monkeypatch.setattr(videos.VideoFile, "__init__", lambda video, file: (opened.append(file), real(video, file))[1])
    require_content(read(path, numbers=[2]), [2])
    assert len(opened) == 2
    with refused_at("episode_000000.parquet", "no such file"):
        read(path)


def test_episodes_are_chosen_by_instruction_without_videos(tmp_path, monkeypatch):
    path = files.lerobot(tmp_path / "set", kind="video")
    monkeypatch.setattr(videos.VideoFile, "__init__", lambda *_: pytest.fail("a video was opened"))
    source = open_source(path)
    schema = choose_schema(source, "mikasa", BOTH)
    assert select(source, schema, instructions=[files.INSTRUCTIONS[1]]).numbers == (1,)
    assert select(source, schema, episodes="1:", limit=1).numbers == (1,)


def test_unlabelled_episodes_are_left_out_and_counted(tmp_path, capsys):
    path = files.lerobot(tmp_path / "set", kind="image")
    pq.write_table(pa.table({"task_index": [0, 1], "task": [files.INSTRUCTIONS[0], None]}), path / "meta/tasks.parquet")
    command = ["data", "import", str(path), "--schema", "mikasa", "--task", TASK, "--data", str(tmp_path / "data")]
    assert main(command) == EXIT_BAD_INPUT
    assert printed_field(capsys).endswith("episode 1 (from 0): task")
    assert main([*command, "--skip-unlabelled"]) == 0
    assert "1 without an instruction" in capsys.readouterr().out
    assert EpisodeStore(tmp_path / "data/set").lengths.tolist() == [3, 5]


def test_rows_with_another_clock_get_the_frame_of_their_number(tmp_path, capsys):
    def late(data):
        return [float(time) + 0.04 * (i % 2) for i, time in enumerate(data["timestamp"])]

    path = files.lerobot(tmp_path / "set", kind="video", timestamp=late)
    require_content(read(path))
    command = ["data", "import", str(path), "--schema", "mikasa", "--task", TASK, "--data", str(tmp_path / "data")]
    assert main(command) == 0
    assert "timestamps" in capsys.readouterr().out
    files.video(path / "videos" / files.TOP / "chunk-000/file-000.mp4", files.pixels(6, 0), "libx264rgb")
    with refused_at("episode 1 (from 0): observation.images.top: timestamp"):
        read(path)


def test_an_episode_may_begin_late_in_its_video(tmp_path):
    """A cut episode keeps its video and its times."""
    path = lerobot.lerobot_v2(tmp_path / "set")
    for key, seed in ((files.TOP, 0), (files.WRIST, 1000)):
        frames = np.concatenate([files.pixels(2, 77), files.pixels(3, seed)])
        files.video(path / lerobot.VIDEO.format(episode_chunk=0, episode_index=0, video_key=key), frames, "libx264rgb")

    def later(rows):
        for row in rows:
            row["timestamp"] += 2 / files.FPS

    edit_table(path / lerobot.DATA.format(episode_chunk=0, episode_index=0), later)
    require_content(read(path))


def test_the_instruction_is_the_task_and_no_other_text(tmp_path):
    path = files.lerobot(tmp_path / "set", kind="image")
    file, texts = path / "meta/tasks.parquet", list(files.INSTRUCTIONS)
    pq.write_table(pa.table({"comment": ["a", "b"], "task": texts, "task_index": [0, 1]}), file)
    require_content(read(path))
    for index in (pd.Index(texts, name="instruction"), pd.Index(texts, name="task"), texts):
        pd.DataFrame({"comment": ["a", "b"], "task_index": [0, 1]}, index=index).to_parquet(file)
        require_content(read(path))
    pq.write_table(pa.table({"comment": ["a", "b"], "text": texts, "task_index": [0, 1]}), file)
    with refused_at("tasks.parquet: task"):
        read(path)
    pq.write_table(pa.table({"task": texts, "task_index": [0, 0]}), file)
    with refused_at("tasks.parquet: task_index 0"):
        read(path)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("data/chunk-000/file-000.parquet", "image"),
        ("meta/tasks.parquet", "image"),
        ("meta/episodes/chunk-000/file-000.parquet", "image"),
        ("meta/info.json", "image"),
        (f"videos/{files.TOP}/chunk-000/file-000.mp4", "video"),
    ],
)
def test_git_lfs_pointers_are_recognised(tmp_path, file, kind):
    path = files.lerobot(tmp_path / "set", kind=kind)
    (path / file).write_bytes(POINTER)
    with refused_at(file, "Git LFS pointer") as info:
        read(path)
    assert "git lfs" in info.value.remedy


def large_png(width, height):
    """A PNG of one colour: a few kilobytes, whatever its size."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(4097, 4096), (50_000, 50_000), (2**31 - 1, 2**31 - 1)])
def test_large_pictures_are_refused_before_they_are_decoded(tmp_path, size):
    cell = {"bytes": large_png(*size), "path": None}
    path = files.lerobot(tmp_path / "set", kind="image", **{files.TOP: lambda data: [cell, *data[files.TOP][1:]]})
    with refused_at(f"{files.TOP}, step 0"):
        read(path)


def test_large_videos_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = files.lerobot(tmp_path / "set", kind="video")
    monkeypatch.setattr(videos, "MOST_PIXELS", files.SIZE**2 - 1)
    with refused_at("file-000.mp4", f"{files.SIZE}×{files.SIZE}"):
        read(path)


def test_a_video_of_an_unknown_codec_is_refused(tmp_path):
    path = files.lerobot(tmp_path / "set", kind="video")
    file = path / "videos" / files.TOP / "chunk-000/file-000.mp4"
    file.write_bytes(file.read_bytes().replace(b"avc1", b"none"))
    with refused_at("file-000.mp4"):
        read(path)


def test_a_video_is_no_list_of_other_files(tmp_path):
    """A playlist in place of a video would open the files that it names."""
    path = files.lerobot(tmp_path / "set", kind="video")
    file = path / "videos" / files.TOP / "chunk-000/file-000.mp4"
    other = file.rename(tmp_path / "other.mp4")
    file.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{other}\n#EXT-X-ENDLIST\n")
    with refused_at("file-000.mp4"):
        read(path)


@pytest.mark.parametrize(
    "name", ["a b [c] {0} 100%s *?", "ü#;&'\"", b"no utf-8 \xff".decode("utf-8", "surrogateescape")]
)
@pytest.mark.parametrize("kind", ["image", "video"])
def test_any_name_of_a_folder_is_read(tmp_path, name, kind):
    (tmp_path / name).mkdir()
    path = files.lerobot(tmp_path / "set", kind=kind).rename(tmp_path / name / name)
    require_content(read(path))
    data = tmp_path / "data"
    assert main(["data", "import", str(path), "--schema", "mikasa", "--task", TASK, "--data", str(data)]) == 0
    (folder,) = data.iterdir()
    assert len(EpisodeStore(folder)) == 3


def test_long_names_are_refused_by_name(tmp_path, capsys):
    path = files.lerobot(tmp_path / "set", kind="image")
    command = ["data", "import", str(path), "--schema", "mikasa", "--task", TASK, "--data", str(tmp_path / "data")]
    assert main([*command, "--name", "x" * 300]) == EXIT_BAD_INPUT
    assert printed_field(capsys)
    assert main(command) == 0
    capsys.readouterr()
    write = [
        "data",
        "write",
        "set",
        str(tmp_path / ("x" * 250)),
        "--format",
        "lerobot",
        "--data",
        str(tmp_path / "data"),
    ]
    assert main(write) == EXIT_BAD_INPUT
    assert printed_field(capsys) == "DIRECTORY"


def imported(path, root, say=lambda line: None, progress=lambda done, total: None, **choice):
    source = open_source(path)
    schema = choose_schema(source, "mikasa", BOTH)
    selection = select(source, schema, **choice)
    spec = import_config(source, TASK, "set", episodes=len(selection.numbers))
    return import_dataset(source, schema, spec, root, progress, say, selection=selection)


def test_a_failed_import_leaves_nothing_in_the_way(tmp_path):
    path = files.lerobot(tmp_path / "set", kind="image", action=lambda data: [*data["action"][:-1], [np.nan] * 7])
    with refused_at("episode 1 (from 0): action"):
        imported(path, tmp_path / "data")
    assert os.listdir(tmp_path / "data/set") == ["lock"]
    whole = imported(path, tmp_path / "data", episodes="0")
    assert len(whole) == 1 and not (whole.path / "import.json").exists()


def test_an_import_never_writes_into_its_source(tmp_path):
    path = files.lerobot(tmp_path / "set", kind="image")
    before = sorted(path.rglob("*"))
    with refused("--name"):
        imported(path, tmp_path)
    assert sorted(path.rglob("*")) == before


def test_an_interrupted_import_of_changed_files_begins_again(tmp_path):
    path = files.lerobot(tmp_path / "set", kind="image")

    def stop(done, total):
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            imported(path, tmp_path / "data", progress=stop)
    done, said = [], []
    time = os.stat(path / "meta/info.json").st_mtime_ns + 10**9
    os.utime(path / "meta/info.json", ns=(time, time))
    imported(path, tmp_path / "data", said.append, lambda n, total: done.append(n))
    assert done == [1, 2, 3] and any("removed" in line for line in said)


@pytest.mark.slow
@pytest.mark.parametrize("choice", [{}, {"episodes": "1:"}], ids=["same", "other"])
def test_a_killed_import_continues_or_begins_again(tmp_path, choice):
    path = files.lerobot(tmp_path / "set", kind="image")
    code = (
        "import os, signal, sys; from muvla.cli.main import main; from muvla.data.store import EpisodeWriter; "
        "append = EpisodeWriter.append; "
        "EpisodeWriter.append = lambda self, one: (append(self, one), len(self.index) == 2 and "
        "os.kill(os.getpid(), signal.SIGKILL)); "
        f"main(['data', 'import', {str(path)!r}, '--schema', 'mikasa', '--task', {TASK!r}, "
        f"'--data', {str(tmp_path)!r}, '--name', 'taken', '--camera', {files.TOP!r}, '--camera', {files.WRIST!r}])"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    source = open_source(path)
    schema = choose_schema(source, "mikasa", BOTH)
    selection, done = select(source, schema, **choice), []
    spec = import_config(source, TASK, "taken", episodes=len(selection.numbers))
    options = {"selection": selection, "progress": lambda n, total: done.append(n)}
    store = import_dataset(source, schema, spec, tmp_path, **options)
    assert done == ([1, 2] if choice else [3])
    assert store.sha256 == import_dataset(source, schema, spec, tmp_path / "at once", selection=selection).sha256


def test_an_export_keeps_rate_tasks_and_numbers(tmp_path, capsys):
    """In at 10 frames per second, out, and in again: the same content, and the statistics of the format."""
    path, place = files.lerobot(tmp_path / "set", kind="image"), ["--data", str(tmp_path / "data")]
    features = json.loads((path / "meta/info.json").read_text())["features"]
    edit_info(path, features=features | {"action": features["action"] | {"names": [*"xyzabcg"]}})
    assert main(["data", "import", str(path), "--schema", "mikasa", "--task", TASK, *place]) == 0
    assert main(["data", "write", "set", str(tmp_path / "out"), "--format", "lerobot", *place, "--json"]) == 0
    capsys.readouterr()
    written = tmp_path / "out"
    require_content(read(written))
    assert main(["data", "import", str(written), "--schema", "mikasa", "--task", TASK, "--name", "back", *place]) == 0
    before, after = (EpisodeStore(tmp_path / "data" / name) for name in ("set", "back"))
    assert before.sha256 == after.sha256 and before.conventions == after.conventions
    assert after.conventions.fps == 10 and len(after.instructions) == 2
    info = json.loads((written / "meta/info.json").read_text())
    assert info["fps"] == 10 and type(info["fps"]) is int
    assert (
        info["features"]["action"]["names"] == [*"xyzabcg"] and info["features"]["observation.state"]["names"] is None
    )
    table = pq.read_table(written / "data/chunk-000/file-000.parquet")
    assert np.allclose(table["timestamp"].to_numpy(), table["frame_index"].to_numpy() / 10)


def test_the_statistics_of_an_export_hold_quantiles(store, tmp_path):
    from muvla.data.writers import write_dataset

    folder = write_dataset(store, tmp_path / "out", "lerobot")
    stats = json.loads((folder / "meta/stats.json").read_text())
    rows = pd.read_parquet(folder / "meta/episodes/chunk-000/file-000.parquet")
    action, first = np.asarray(store["recorded_action"], np.float64), slice(0, store.lengths[0])
    images = np.moveaxis(np.asarray(store["images"][:, 1], np.float64) / 255, -1, 0).reshape(3, -1)
    assert set(stats["action"]) == {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
    for name, share in (("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        assert np.allclose(stats["action"][name], np.quantile(action, share, axis=0)), name
        assert np.allclose(rows[f"stats/action/{name}"][0], np.quantile(action[first], share, axis=0)), name
        picture = np.array(stats["observation.images.wrist"][name])
        assert picture.shape == (3, 1, 1) and np.allclose(picture[:, 0, 0], np.quantile(images, share, axis=1)), name
    fields = {"episode_index", "tasks", "length", "data/chunk_index", "data/file_index", "dataset_from_index"}
    assert fields | {"dataset_to_index", "meta/episodes/chunk_index", "meta/episodes/file_index"} <= set(rows)


def test_an_unknown_rate_is_said(store, tmp_path, capsys):
    place = ["--data", str(store.path.parent)]
    assert store.conventions.fps is None
    assert main(["data", "write", store.path.name, str(tmp_path / "out"), "--format", "lerobot", *place]) == 0
    assert "frames per second" in capsys.readouterr().err
    back = ["data", "import", str(tmp_path / "out"), "--schema", "muvla", "--task", TASK, "--data", str(tmp_path)]
    assert main([*back, "--name", "back"]) == 0
    assert EpisodeStore(tmp_path / "back").conventions == store.conventions


BAD_INFO = [
    ("codebase_version", None, "codebase_version"),
    ("codebase_version", 3, "codebase_version"),
    ("codebase_version", "v1.6", "codebase_version"),
    ("fps", 0, "fps"),
    ("fps", "10", "fps"),
    ("fps", float("nan"), "fps"),
    ("fps", 10**400, "fps"),
    ("features", [], "features"),
    ("features", None, "features"),
    ("total_episodes", -1, "total_episodes"),
    ("total_frames", 1.5, "total_frames"),
    ("data_path", None, "data_path"),
    ("data_path", ["a"], "data_path"),
    ("video_path", 3, "video_path"),
    ("chunks_size", 0, "chunks_size"),
]


@pytest.mark.parametrize(("name", "value", "field"), BAD_INFO)
def test_metadata_of_another_type_are_refused_by_field(tmp_path, name, value, field):
    path = lerobot.lerobot_v2(tmp_path / "set", (2, 2), "image")
    edit_info(path, **{name: value})
    with pytest.raises(MuvlaError) as info:
        read(path)
    assert "meta/info.json" in info.value.field
    assert field in info.value.field or value == 10**400


@pytest.mark.parametrize(
    ("feature", "field"),
    [
        (None, f"features.{files.TOP}"),
        ({"shape": [32, 32, 3]}, f"features.{files.TOP}: dtype"),
        ({"dtype": "image", "shape": "32"}, f"features.{files.TOP}: shape"),
        ({"dtype": "image", "shape": [32, -1, 3]}, f"features.{files.TOP}: shape[1]"),
        ({"dtype": "audio", "shape": [1]}, f"feature {files.TOP}"),
        ({"dtype": "image", "shape": []}, f"feature {files.TOP}"),
        ({"dtype": "video", "shape": [32, 32, 3], "info": {"video.is_depth_map": True}}, f"feature {files.TOP}"),
    ],
)
def test_a_feature_is_checked_when_it_is_asked_for(tmp_path, feature, field):
    path = files.lerobot(tmp_path / "set", (2, 2), "image")
    features = json.loads((path / "meta/info.json").read_text())["features"]
    edit_info(path, features=features | {files.TOP: feature})
    with refused_at(field):
        read(path)
    assert read(path, [files.WRIST])


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "3",
        '{"episode_index": "0", "length": 2}',
        '{"episode_index": 0}',
        '{"episode_index": 0, "length": 0}',
    ],
)
def test_lines_of_version_2_are_refused_by_number(tmp_path, line):
    path = lerobot.lerobot_v2(tmp_path / "set", (2, 2), "image")
    file = path / "meta/episodes.jsonl"
    file.write_text(f"{line}\n" + file.read_text().splitlines()[1])
    with pytest.raises(MuvlaError) as info:
        read(path)
    assert f"{file}:1" in info.value.field


def test_an_episode_of_impossible_length_is_refused(tmp_path):
    path = files.lerobot(tmp_path / "set", (2, 2), "image")
    edit_episodes(path, lambda rows: rows[0].update(length=10**12))
    edit_info(path, total_frames=10**12 + 2)
    with refused_at("row 0: length"):
        read(path)
