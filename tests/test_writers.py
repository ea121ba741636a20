"""Datasets written for others: read back, they are what was written, bit for bit; and whole or not there at all."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config import DataConfig, DatasetConfig, TaskConfig
from muvla.config.serialization import replace
from muvla.data.derived_phases import measure_accuracy
from muvla.data.importer import import_config, import_dataset
from muvla.data.label_audit import audit
from muvla.data.readers.formats import choose_schema, open_source
from muvla.data.readers.source import NOTE
from muvla.data.store import Episode, EpisodeStore, EpisodeWriter
from muvla.data.writers import import_options, lerobot, rlds, write_dataset
from muvla.envs.phases import Phase
from muvla.errors import DiskError, MuvlaError
from muvla.training.trainer import Trainer
from muvla.utils.io import read_json, write_json

TASK = "RecallPosition3-v0"
FORMATS = ("rlds", "lerobot")


def brought_back(path, root, schema="muvla"):
    source = open_source(path)
    return import_dataset(source, choose_schema(source, schema), import_config(source, TASK), root)


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_comes_back(store, base, tmp_path, format):
    """Frames, both actions, phases, and whatever the index tells; so what is supervised by them is the same too."""
    done = []
    path = write_dataset(store, tmp_path / "ours", format, lambda n, total: done.append((n, total)))
    assert done[-1] == (24, 24) and path == tmp_path / "ours" / ("1.0.0" if format == "rlds" else "")
    again = brought_back(path, tmp_path / "data")
    for name in ("images", "proprio", "recorded_action", "executed_action", "phase"):
        assert np.array_equal(again[name], store[name]), name
    assert again.index == store.index and again.knows_phases
    ours, theirs = Trainer(base, store), Trainer(replace(base, {"data": DataConfig(again.spec)}), again)
    assert ours.step()[0] == theirs.step()[0]
    assert again.seeds == store.seeds == range(24), "an evaluation on one of them is refused"


@pytest.mark.parametrize("format", FORMATS)
def test_an_import_that_tells_less_is_written_with_less(store, tmp_path, format):
    path = write_dataset(store, tmp_path / "ours", format)
    source = open_source(path)
    rlds = format == "rlds"
    named = (["steps/observation/proprio"], ["steps/action"]) if rlds else (["observation.state"], ["action"])
    schema = choose_schema(source, "mikasa", (), *named)
    less = import_dataset(source, schema, import_config(source, TASK), tmp_path / "data")
    assert not less.knows_executed and np.array_equal(less["recorded_action"], store["recorded_action"])
    again = open_source(write_dataset(less, tmp_path / "less", format))
    with pytest.raises(MuvlaError) as info:
        choose_schema(again, "muvla").check(again)
    assert info.value.field.endswith("feature steps/executed_action" if format == "rlds" else "feature executed_action")


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_derived_is_not_written_as_if_it_were_known(store, tmp_path, format):
    """A copy of derived phases would be the truth to whoever reads it, the check of the rule among them."""
    source = open_source(write_dataset(store, tmp_path / "ours", "rlds"))
    schema = choose_schema(source, "mikasa", (), ["steps/observation/proprio"], ["steps/action"])
    derived = import_dataset(
        source, schema, import_config(source, TASK), tmp_path / "data", accuracy=measure_accuracy(store)
    )
    copy = write_dataset(derived, tmp_path / "copy", format)
    with pytest.raises(MuvlaError) as info:
        brought_back(copy, tmp_path / "data")
    assert info.value.field.endswith("executed_action")
    back = imported(copy, import_options(derived, format), tmp_path)
    assert not back.knows_executed and np.array_equal(back["recorded_action"], store["recorded_action"])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("knows", [True, False])
def test_any_sizes_find_the_way_back_that_is_printed(tmp_path, format, knows):
    """As LIBERO's: 8 numbers of proprio, a gripper that is not scaled; and of LeRobot one camera, or three."""
    spec = DatasetConfig(TaskConfig(TASK), 2, source="others")
    for cameras in (2,) if format == "rlds" else (1, 2, 3):
        writer = EpisodeWriter(tmp_path / "data" / f"of {cameras}", spec, origin="elsewhere", pass_through=(4,))
        rng = np.random.default_rng(0)
        for steps in (3, 4):
            images = rng.integers(0, 256, (steps, cameras, 8, 8, 3), dtype=np.uint8)
            action, proprio = rng.random((steps, 5), np.float32), rng.random((steps, 8), np.float32)
            phase = np.full(steps, Phase.CUE if knows else Phase.UNKNOWN, np.uint8)
            told = {"task": TASK, "instruction": "Touch it."}
            writer.append(Episode(images, proprio, 0 * action if knows else None, action, phase, told))
        writer.seal(attempts=2)
        others = EpisodeStore(writer.path)
        path = write_dataset(others, tmp_path / f"to_{cameras}", format)
        back = imported(path, import_options(others, format), tmp_path)
        assert back.pass_through == (4,) and back.knows_phases == knows
        for name in others._shapes:
            assert np.array_equal(back[name], others[name]), name


@pytest.mark.parametrize("dimensions", [[5], [-1], [True], ["4"], 4, None, [1.0]], ids=str)
def test_dimensions_that_the_actions_do_not_have_are_refused(tmp_path, capsys, dimensions):
    spec = DatasetConfig(TaskConfig(TASK), 2, source="others")
    writer = EpisodeWriter(tmp_path / "data" / "others", spec, origin="elsewhere", pass_through=(4,))
    for _ in range(2):
        images, action = np.zeros((3, 1, 8, 8, 3), np.uint8), np.zeros((3, 5), np.float32)
        about = {"task": TASK, "instruction": "Touch it."}
        writer.append(Episode(images, action, None, action, np.full(3, Phase.UNKNOWN, np.uint8), about))
    writer.seal(attempts=2)
    path = write_dataset(EpisodeStore(writer.path), tmp_path / "out", "lerobot")
    write_json(path / NOTE, read_json(path / NOTE) | {"pass_through": dimensions})
    place = ["--task", TASK, "--name", "back", "--data", str(tmp_path / "data")]
    options = import_options(EpisodeStore(writer.path), "lerobot").split()
    assert main(["data", "import", str(path), *options, *place]) == EXIT_BAD_INPUT
    assert "pass_through" in capsys.readouterr().err
    assert not (tmp_path / "data" / "back" / "meta.json").exists()


def imported(path, options, root):
    name = f"back from {path.parent.name} {path.name}".replace(" ", "-")
    place = ["--task", TASK, "--name", name, "--data", str(root / "data")]
    assert main(["data", "import", str(path), *options.split(), *place]) == 0
    return EpisodeStore(root / "data" / name)


def test_files_are_begun_where_they_are_full(store, tmp_path, monkeypatch):
    monkeypatch.setattr(rlds, "SHARD_BYTES", 20_000)
    monkeypatch.setattr(lerobot, "FILE_MEGABYTES", 0.02)
    monkeypatch.setattr(lerobot, "CHUNK_FILES", 3)
    shards = sorted(write_dataset(store, tmp_path / "r", "rlds").glob("*tfrecord*"))
    assert len(shards) > 3 and shards[-1].name.endswith(f"-{len(shards) - 1:05d}-of-{len(shards):05d}")
    data = sorted(write_dataset(store, tmp_path / "l", "lerobot").glob("data/*/*.parquet"))
    assert "/".join(data[3].parts[-2:]) == "chunk-001/file-000.parquet"
    for path in (tmp_path / "r" / "1.0.0", tmp_path / "l"):
        assert np.array_equal(brought_back(path, tmp_path / f"data of {path.name}")["images"], store["images"])


def test_lerobots_metadata_are_what_the_format_tells(store, tmp_path):
    """Read by others' libraries, not by the reader here."""
    folder = write_dataset(store, tmp_path / "ours", "lerobot")
    info = json.loads((folder / "meta" / "info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["video_path"] is None and info["splits"] == {"train": "0:24"}
    tasks = pd.read_parquet(folder / "meta" / "tasks.parquet")
    assert tasks.index.tolist() == store.instructions and tasks["task_index"].tolist() == [0]
    table = pq.read_table(folder / "data" / "chunk-000" / "file-000.parquet")
    assert set(table.column_names) == set(info["features"]) and table.num_rows == store.frames
    assert table["index"].to_pylist() == list(range(store.frames))
    assert np.allclose(table["timestamp"].to_numpy(), table["frame_index"].to_numpy() / info["fps"])
    episodes = pd.read_parquet(folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    assert episodes["length"].tolist() == store.lengths.tolist()
    assert episodes["dataset_to_index"].tolist() == np.cumsum(store.lengths).tolist()
    told = json.loads((folder / "meta" / "stats.json").read_text())
    action = np.asarray(store["recorded_action"], np.float64)
    image = np.asarray(store["images"][:, 1], np.float64) / 255
    for name in ("min", "max", "mean", "std"):
        assert np.allclose(told["action"][name], getattr(np, name)(action, axis=0)), name
        found = np.array(told["observation.images.wrist"][name])
        assert found.shape == (3, 1, 1) and np.allclose(found[:, 0, 0], getattr(np, name)(image, axis=(0, 1, 2))), name
    first = action[: store.lengths[0]]
    assert np.allclose(episodes["stats/action/mean"][0], first.mean(axis=0))
    assert told["action"]["count"] == [store.frames]


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_it_is_whole_or_not_there(store, tmp_path, format):
    code = (
        "import os, signal; from pathlib import Path; from muvla.data.store import EpisodeStore; "
        "from muvla.data.writers import write_dataset; "
        "kill = lambda done, total: done == 9 and os.kill(os.getpid(), signal.SIGKILL); "
        f"write_dataset(EpisodeStore(Path({str(store.path)!r})), Path({str(tmp_path / 'ours')!r}), {format!r}, kill)"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "ours").exists() and os.listdir(tmp_path)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(store, tmp_path / "ours", format, stop)
    assert os.listdir(tmp_path) == [".ours.lock"]
    write_dataset(store, tmp_path / "ours", format)
    assert os.listdir(tmp_path) == ["ours"]
    with pytest.raises(MuvlaError) as info:
        write_dataset(store, tmp_path / "ours", format)
    assert info.value.field == "DIRECTORY"


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_leaves_nothing(store, small_disk, format):
    (small_disk / "filling").write_bytes(bytes(950_000))
    with pytest.raises(DiskError) as info:
        write_dataset(store, small_disk / "ours", format)
    assert info.value.field.endswith("ours")
    assert not [name for name in os.listdir(small_disk) if "lock" not in name and name != "filling"]


def test_what_rlds_has_no_place_for(store, tmp_path):
    with pytest.raises(MuvlaError) as info:
        write_dataset(store, tmp_path / "Our Data", "rlds")
    assert info.value.field == "DIRECTORY"
    one = replace_cameras(store, 1)
    with pytest.raises(MuvlaError) as info:
        write_dataset(one, tmp_path / "one", "rlds")
    assert info.value.field.startswith(str(store.path))
    folder = write_dataset(replace_cameras(store, 3), tmp_path / "three", "lerobot")
    features = json.loads((folder / "meta" / "info.json").read_text())["features"]
    assert [name for name in features if "images" in name][-1] == "observation.images.camera_2"


def replace_cameras(store, number):
    """The same store with that many cameras."""
    other = EpisodeStore(store.path)
    other._columns["images"] = np.repeat(store["images"][:, :1], number, axis=1)
    return other


def test_from_the_command_line(store, tmp_path, capsys):
    place = ["--data", str(store.path.parent)]
    command = ["data", "write", store.path.name, str(tmp_path / "ours"), "--format", "rlds", *place]
    assert main([*command, "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["import"].startswith(f"muvla data import {tmp_path / 'ours' / '1.0.0'} --schema muvla")
    assert (written["episodes"], written["frames"]) == (len(store), store.frames)
    assert main(command) == EXIT_BAD_INPUT
    source = str(tmp_path / "ours" / "1.0.0")
    place = ["--data", str(tmp_path)]
    assert (
        main(["data", "import", source, "--schema", "muvla", "--task", TASK, "--name", "back", *place, "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["config"].endswith("episodes=24, source='back'))"), (
        "labels as ever: what was executed is known"
    )
    assert main(["data", "show", "back", *place]) == 0 and "delay" in capsys.readouterr().out
    assert main(["data", "audit", "back", *place]) == 0
    ours = [reading.line() for reading in audit(store, "recorded", 1)]
    assert ours[0] in capsys.readouterr().out


def test_a_phase_that_is_none_is_refused(store, tmp_path):
    folder = write_dataset(store, tmp_path / "ours", "lerobot")
    file = folder / "data" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(file)
    place = table.schema.get_field_index("phase")
    pq.write_table(table.set_column(place, "phase", [[7] * table.num_rows]), file)
    with pytest.raises(MuvlaError) as info:
        brought_back(folder, tmp_path / "data")
    assert info.value.field.endswith("ours: episode 0 (from 0): phase")
