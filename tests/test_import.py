"""Imported demonstrations: in the store as they were, continued after a kill, trained on, and never taken for more than
they tell."""

import dataclasses
import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from helpers import rlds_files as files
from helpers.errors import printed_field
from helpers.studies import STUDY
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config import DataConfig, DatasetConfig, TaskConfig
from muvla.config.serialization import replace
from muvla.data.collect import collect
from muvla.data.contact_sheet import summarize, write_contact_sheet
from muvla.data.importer import import_config, import_dataset
from muvla.data.normalization import Statistics
from muvla.data.readers.formats import FORMATS
from muvla.data.readers.rlds import RldsDirectory
from muvla.data.store import EpisodeStore, open_store
from muvla.envs.phases import Phase
from muvla.errors import DiskError, MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.runs.evaluate import Evaluator
from muvla.runs.run import Run
from muvla.runs.train import train_cell
from muvla.training.coverage import measure_coverage
from muvla.training.trainer import Trainer

TASK = "RecallPosition3-v0"
EPISODES = [files.episode(3 + i, seed=i) for i in range(5)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return RldsDirectory(files.write(tmp_path_factory.mktemp("rlds") / "toy" / "1.0.0", EPISODES, shards=2))


@pytest.fixture(scope="module")
def imported(directory, tmp_path_factory):
    return brought_in(directory, tmp_path_factory.mktemp("data"))


def brought_in(directory, root, name=None, **options):
    return import_dataset(
        directory, FORMATS["rlds"].schemas["mikasa"], import_config(directory, TASK, name), root, **options
    )


def of_import(base, **changes):
    dataset = DatasetConfig(TaskConfig(TASK), len(EPISODES), source="toy")
    return replace(base, {"data": DataConfig(dataset, labels="recorded"), "budget.updates": 2, **changes})


def test_the_store_holds_what_was_published(imported):
    assert imported.path.name == "toy" and imported.lengths.tolist() == [3, 4, 5, 6, 7]
    action = np.concatenate([episode["steps/action"] for episode in EPISODES])
    assert np.array_equal(imported["recorded_action"], action)
    assert np.array_equal(imported["images"][3:7, 1], files.pixels(4, 1001))
    assert set(np.asarray(imported["phase"])) == {Phase.UNKNOWN} and imported.instructions == [files.INSTRUCTION]
    imported.verify()


def test_what_is_unknown_is_refused(imported, base):
    """With the one way out."""
    for ask in (lambda: imported["executed_action"], lambda: imported.is_executed):
        with pytest.raises(MuvlaError) as info:
            ask()
        assert info.value.field in {"toy: executed_action", "toy: label_is_executed"}
    for labels in ("executed", "masked"):
        with pytest.raises(MuvlaError) as info:
            Trainer(replace(base, {"data.labels": labels}), imported)
        assert info.value.field in {"toy: data.labels: executed", "toy: data.labels: masked"}
    cell = of_import(base)
    with pytest.raises(MuvlaError) as info:
        measure_coverage(imported, cell.data, cell.budget, 0, [1], [1])
    assert info.value.field == "toy: coverage"


def test_statistics_are_of_the_recorded_actions(imported):
    action = np.asarray(imported["recorded_action"], dtype=np.float64)
    assert np.allclose(Statistics.from_store(imported).action_low, np.quantile(action, 0.01, axis=0))


def test_a_cell_trains_on_it(imported, base):
    trainer = Trainer(of_import(base), imported)
    losses = [trainer.step()[0] for _ in range(2)]
    assert np.isfinite(losses).all() and trainer.interface.action_dim == trainer.interface.proprio_dim == 7
    window = trainer.stream.window(2)
    assert window.label_is_executed is None and not window.phase.any()
    label = trainer.statistics.normalise_action(imported["recorded_action"][window.frame])
    assert np.array_equal(window.label[:, :, 0], label)


def test_a_policy_of_imported_demonstrations_is_evaluated(store, base, tmp_path, monkeypatch):
    """Our own demonstrations, given away as RLDS and brought in again; they take no seed from the evaluation."""
    episodes = []
    for line in store.index:
        rows = slice(line["start"], line["start"] + line["length"])
        views = {
            f"observation/{name}": [files.png(frame) for frame in store["images"][rows, i]]
            for i, name in enumerate(("image", "wrist_image"))
        }
        views["observation/proprio"] = np.asarray(store["proprio"][rows])
        episodes.append(files.episode(line["length"], action=np.asarray(store["recorded_action"][rows]), **views))
    two = files.tensor("float32", 2)
    observation = files.group({"image": files.image(), "wrist_image": files.image(), "proprio": two})
    steps = files.MIKASA | {"observation": observation, "action": two}
    directory = RldsDirectory(files.write(tmp_path / "ours" / "1.0.0", episodes, steps))
    schema = dataclasses.replace(FORMATS["rlds"].schemas["mikasa"], proprio_dim=2, action_dim=2)
    spec = import_config(directory, TASK)
    again = import_dataset(directory, schema, spec, tmp_path / "data")
    for name in ("images", "proprio", "recorded_action"):
        assert np.array_equal(again[name], store[name]), name
    run = Run(tmp_path / "runs", tmp_path / "data", "test")
    train_cell(run, replace(base, {"data": DataConfig(spec, labels="recorded"), "budget.updates": 2}), again, "cpu")
    taken, of = [], Statistics.from_store.__func__
    monkeypatch.setattr(Statistics, "from_store", classmethod(lambda cls, *told: taken.append(told) or of(cls, *told)))
    one = Protocol("own", 1, TaskConfig(TASK), seed=0, episodes=2)  # seeds that a collection from 0 on would have
    evaluator = Evaluator(run)
    assert [row.error for row in evaluator.evaluate(one, "none")] == [None, None]
    other = dataclasses.replace(one, seed=50, episodes=1)
    assert [row.error for row in evaluator.evaluate(other, "none")] == [None]
    assert len(taken) == 1, "the dataset's columns are read once for all conditions"


def test_a_killed_import_continues_and_ends_the_same(directory, imported, tmp_path):
    code = (
        "import os, signal; from pathlib import Path; from muvla.data.importer import *; "
        "from muvla.data.readers.rlds import RldsDirectory; "
        f"directory = RldsDirectory(Path({str(directory.path)!r})); "
        "from muvla.data.readers.formats import FORMATS; "
        "kill = lambda done, total: done == 3 and os.kill(os.getpid(), signal.SIGKILL); "
        f"spec = import_config(directory, {TASK!r}); "
        f"import_dataset(directory, FORMATS['rlds'].schemas['mikasa'], spec, Path({str(tmp_path)!r}), kill)"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with pytest.raises(MuvlaError) as info:
        open_store(tmp_path, imported.spec)
    assert info.value.field == "data.dataset.source"
    with (tmp_path / "toy" / "images.bin").open("ab") as column:
        column.write(b"half an episode")
    done = []
    again = brought_in(directory, tmp_path, progress=lambda n, total: done.append((n, total)))
    assert done == [(4, 5), (5, 5)], "it went on with the fourth"
    assert again.sha256 == imported.sha256
    for file in imported.path.glob("*.*"):
        assert file.suffix == ".png" or (again.path / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_second_import_takes_what_is_there_or_refuses(directory, imported, tmp_path):
    root = imported.path.parent
    assert brought_in(directory, root).sha256 == imported.sha256
    with pytest.raises(MuvlaError) as info:
        import_dataset(directory, FORMATS["rlds"].schemas["mikasa"], import_config(directory, TASK, None, 16), root)
    assert info.value.field == "data.dataset.image_size"
    other = RldsDirectory(files.write(tmp_path / "toy" / "1.0.0", EPISODES[::-1] + [files.episode(9)], shards=1))
    spec = import_config(directory, TASK)
    with pytest.raises(MuvlaError) as info:
        import_dataset(other, FORMATS["rlds"].schemas["mikasa"], spec, root)
    assert info.value.field.endswith("toy") and "import from toy 1.0.0" in info.value.got


def test_the_content_is_no_matter_of_the_name(directory, imported, tmp_path):
    other = brought_in(directory, tmp_path, "other-name")
    assert other.path.name == "other-name" and other.sha256 == imported.sha256
    with pytest.raises(MuvlaError) as info:
        brought_in(directory, tmp_path, "../elsewhere")
    assert info.value.field == "data.dataset.source"


def test_frames_can_be_stored_smaller(directory, tmp_path):
    spec = import_config(directory, TASK, image_size=16)
    store = import_dataset(directory, FORMATS["rlds"].schemas["mikasa"], spec, tmp_path)
    frame = Image.fromarray(files.pixels(3, 0)[1]).resize((16, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(store["images"][1, 0], np.asarray(frame))
    with pytest.raises(MuvlaError) as info:
        import_config(directory, TASK, image_size=0)
    assert info.value.field == "--image-size"


def test_the_disk_that_it_needs_is_told_and_checked_first(directory, tmp_path, monkeypatch):
    said = []
    need = sum(
        file.stat().st_size for file in brought_in(directory, tmp_path / "a", say=said.append).path.glob("*.bin")
    )
    (told,) = said
    assert "0.00 GiB" in told
    usage = type("usage", (), {"free": int(0.8 * need)})
    monkeypatch.setattr("muvla.data.importer.shutil.disk_usage", lambda path: usage)
    with pytest.raises(DiskError) as info:
        brought_in(directory, tmp_path / "b")
    assert info.value.field.endswith("toy")
    assert not list((tmp_path / "b" / "toy").glob("*.bin"))
    usage.free = int(1.2 * need)
    brought_in(directory, tmp_path / "b")


def test_collected_data_keep_their_content(store):
    """Their hash counts no field that was added later."""
    meta = json.loads((store.path / "meta.json").read_text())
    assert set(meta["spec"]) == {"task", "episodes", "seed", "image_size"} and "origin" not in meta
    assert DatasetConfig(TaskConfig(TASK)).source is None


def test_show_tells_what_is_there(imported, store):
    text = "\n".join(summarize(imported))
    assert "RecallPosition3-v0" in text and imported.sha256 in text and files.INSTRUCTION in text
    assert {"25", "3", "7", "5"} <= set(re.findall(r"\d+", text)), "frames, shortest, longest and median episode"
    assert "unknown" in text and "recorded" in text, "phases and actions"
    with Image.open(write_contact_sheet(imported)) as sheet:
        assert sheet.size == (6 * 132, 5 * 146), "5 episodes, 3 frames of 2 cameras"
    text = "\n".join(summarize(store))
    counts = [f"{name} {np.count_nonzero(store['phase'] == Phase[name.upper()])}" for name in ("cue", "delay")]
    assert all(count in text for count in counts) and "24 attempts" in text and "executed" in text
    with Image.open(write_contact_sheet(store)) as sheet:
        assert sheet.size == (6 * 132, 8 * 146)
    store.verify()


def test_from_the_command_line_to_a_training(directory, tmp_path, capsys):
    place = ["--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data")]
    dataset = 'DataConfig(DatasetConfig(TaskConfig("RecallPosition3-v0"), episodes=5, source="toy"), labels="recorded")'
    old = 'DataConfig(DatasetConfig(task=TaskConfig("RecallPosition3-v0"), episodes=24))'
    study = STUDY.format(updates=2)
    assert old in study
    (tmp_path / "study.py").write_text(study.replace(old, dataset))
    for verb in (
        ["sweep", str(tmp_path), "--plan"],
        ["sweep", str(tmp_path)],
        ["train", str(tmp_path)],
        ["collect", str(tmp_path)],
        ["report", str(tmp_path)],
    ):
        assert main([*verb, *place]) == EXIT_BAD_INPUT
        assert printed_field(capsys).endswith("data.dataset.source")
    assert main(["data", "import", str(directory.path), "--schema", "mikasa", "--task", TASK, *place[2:]]) == 0
    out = capsys.readouterr().out
    assert "GiB" in out and dataset.replace('"', "'") in out, "what a study writes is printed as it is written"
    (tmp_path / "study.py").write_text(study.replace(old, dataset.replace("recorded", "executed")))
    for verb in (["sweep", str(tmp_path), "--plan"], ["train", str(tmp_path)], ["collect", str(tmp_path)]):
        assert main([*verb, *place]) == EXIT_BAD_INPUT
        assert printed_field(capsys).endswith("data.labels executed")
    (tmp_path / "study.py").write_text(study.replace(old, dataset))
    assert main(["sweep", str(tmp_path), *place, "--plan"]) == 0
    plan = capsys.readouterr().out
    assert "toy" in plan and "recorded" in plan
    assert main(["train", str(tmp_path), "--variant", "K=8", *place]) == 0
    assert len(list((tmp_path / "runs").glob("*/checkpoints/update-000002"))) == 1
    assert main(["data", "show", "toy", *place[2:]]) == 0 and "contact-sheet.png" in capsys.readouterr().out
    (tmp_path / "study.py").write_text(study.replace(old, dataset.replace("episodes=5", "episodes=6")))
    assert main(["sweep", str(tmp_path), *place, "--plan"]) == EXIT_BAD_INPUT
    assert printed_field(capsys).endswith("data.dataset.episodes")


def test_import_refuses_by_name(directory, tmp_path, capsys):
    place = ["--data", str(tmp_path)]
    assert main(["data", "import", str(directory.path), "--schema", "libero", "--task", TASK, *place]) == EXIT_BAD_INPUT
    assert printed_field(capsys).endswith("steps/observation/state")
    assert (
        main(["data", "import", str(directory.path.parent), "--schema", "mikasa", "--task", TASK, *place])
        == EXIT_BAD_INPUT
    )
    assert "DIRECTORY/1.0.0" in capsys.readouterr().err
    assert main(["data", "show", "nothing", *place]) == EXIT_BAD_INPUT
    assert "muvla data import" in capsys.readouterr().err
    assert main(["data", "import", str(directory.path), "--schema", "mikasa", "--task", "Elsewhere-v0", *place]) == 0
    assert "Elsewhere-v0" in capsys.readouterr().err
    other = ["--task", "RecallColor3-v0", "--name", "other"]
    assert main(["data", "import", str(directory.path), "--schema", "mikasa", *other, *place]) == 0
    assert "RecallColor3-v0" in capsys.readouterr().err


def test_an_import_overlaps_no_protocol(base, imported):
    """Nobody knows the seeds of its episodes; a collection from seed 0 on would be refused with such a protocol."""
    from muvla.evaluation.catalog import get_protocol
    from sweeps.checks import overlap

    one = get_protocol("recall-position3-rh@1")
    collected = DatasetConfig(TaskConfig(TASK), seed=one.seed)
    assert overlap(one, collected) and not overlap(one, replace(collected, {"source": "toy"}))


def test_a_store_of_that_name_that_was_collected_is_no_import(tmp_path):
    spec = DatasetConfig(TaskConfig(TASK), episodes=2)
    collected = collect(spec, tmp_path)
    with pytest.raises(MuvlaError) as info:
        collect(replace(spec, {"source": collected.path.name}), tmp_path)
    assert info.value.field == "data.dataset.source"
    assert EpisodeStore(collected.path).sha256 == collected.sha256
