"""The parsers of the fuzz test: for each one valid input, and the reading that a user's command does.

`prepare` writes all valid inputs once. A target of files mutates one file of its folder; a target of texts mutates one
text.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np

from helpers import foreign_files, prismatic, released, rlds_files
from helpers.committed import DATA, commit, study_results
from helpers.mutations import change_json, mutate_words, value
from helpers.release_size import ANATOMY
from helpers.studies import DATASET, STUDY
from muvla.checkpoints.inspect import inspect
from muvla.checkpoints.opening import open_checkpoint
from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.cli.main import main
from muvla.config import BudgetConfig, Cell, DataConfig, MemoryConfig, ModelConfig, TaskConfig, canonical
from muvla.config.identity import train_id
from muvla.config.serialization import content_hash, from_dict, parse_assignments, replace, to_dict
from muvla.config.sizes import get_size
from muvla.data.collect import collect
from muvla.data.conventions import get_conventions
from muvla.data.importer import import_config
from muvla.data.normalization import Statistics
from muvla.data.readers.formats import choose_schema, open_source
from muvla.data.readers.schema import read_demonstrations
from muvla.data.readers.selection import select
from muvla.data.store import EpisodeStore
from muvla.evaluation.action_chunks import ChunkFile
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.protocol import Protocol
from muvla.interventions import parse_intervention
from muvla.probes.traces import Trace, read_trace, write_trace
from muvla.runs.evaluate import Evaluator
from muvla.runs.find import find_run
from muvla.runs.status import run_status
from muvla.runs.train import train_cell
from muvla.runs.verify import verify_run
from muvla.serving.foreign_results import read_results
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.rows_format import NAME
from sweeps.rows_reader import read_rows_file

LINES = "rows.jsonl"  # committed rows before their compression


@dataclass(frozen=True)
class FileTarget:
    """A folder of files, of which one is mutated, and what reads the folder."""

    name: str
    folder: str  # below the folder of valid inputs
    files: str  # pattern of the files that are mutated
    read: Callable[[Path], Any]


@dataclass(frozen=True)
class TextTarget:
    """A text or a value that a user writes."""

    name: str
    make: Callable[[Random], Any]
    read: Callable[[Any], Any]


# --- what reads a folder --------------------------------------------------------------------------------------------


def read_import(schema: str | None, path: str = ".", text: str | None = None) -> Callable[[Path], None]:
    """What `muvla data import` reads; all but the writing of the dataset."""

    def read(folder: Path) -> None:
        source = open_source(folder / path)
        chosen = choose_schema(source, schema, text=text)
        chosen.check(source)
        get_conventions(source, chosen)
        import_config(source, "RecallPosition3-v0")
        assert source.origin
        assert source.frames >= 0
        numbers = select(source, chosen).numbers
        for episode in read_demonstrations(source, chosen, "RecallPosition3-v0", None, numbers):
            assert len(episode.proprio) == len(episode.recorded_action)

    return read


def read_store(folder: Path) -> None:
    store = EpisodeStore(folder)
    assert len(store) and store.instructions and len(store.seeds) >= 0 and store["images"][:1].size
    Statistics.from_store(store, "recorded")


def read_stores(folder: Path) -> None:
    for path in sorted((folder / "data").iterdir()):
        read_store(path)


def read_release(folder: Path) -> None:
    list(inspect(folder))
    ReleasedCheckpoint(folder, None).load_policy()


def read_run(folder: Path) -> None:
    """A run by itself: its state, its checkpoint, its training and its files of rows."""
    for identity in (path.name for path in sorted((folder / "runs").iterdir())):
        run = find_run(folder / "runs", folder / "data", identity)
        run_status(run)
        verify_run(run)
        run.seconds()
        list(inspect(run.folder))
        run.trained_on()
        for file in sorted((run.folder / "chunks").glob("*.jsonl")):
            ChunkFile(file.parent, file.stem).read()


def read_ledger(folder: Path) -> None:
    """A study's cells as `muvla status` and `muvla report` read them."""
    study = _study(folder)
    ledger = Ledger(folder / "runs", folder / "data")
    for entry in ledger.entries(study, ledger.opened(study)):
        assert entry.state
        entry.summaries()
        entry.records()


def read_traces(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        read_trace(file)


def read_training_folder(folder: Path) -> None:
    """A run folder of CogACT, MemoryVLA or CronusVLA."""
    list(inspect(folder))
    open_checkpoint(folder).load_policy()


def read_foreign_results(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        assert read_results(file)


def read_committed_rows(folder: Path) -> None:
    """Committed rows. The digest of all lines comes last, so that a changed line reaches the checks of its content."""
    (folder / NAME).write_bytes(gzip.compress((folder / LINES).read_bytes()))
    read_rows_file(folder / NAME)


@lru_cache(maxsize=4)
def _study(folder: Path):
    file = folder / "study.py"
    if not file.exists():
        file.write_text(STUDY.format(updates=2).replace("episodes=20, slots=8", "episodes=2, slots=2"))
    study = load_study(file)
    return dataclasses.replace(study, variants={"K=8": study.variants["K=8"]})


# --- valid inputs ---------------------------------------------------------------------------------------------------


def prepare(root: Path) -> None:
    """Write the valid inputs of all targets."""
    foreign_files.lerobot(root / "lerobot-image", (2, 2), "image", per_file=1)
    foreign_files.lerobot(root / "lerobot-video", (3, 2), "video")
    note = {"pass_through": [6], "conventions": {}}
    (root / "lerobot-image" / "muvla.json").write_text(json.dumps(note))
    rlds_files.write(root / "rlds" / "1.0.0", [rlds_files.episode(2, seed) for seed in (0, 1)])
    foreign_files.mikasa(root / "mikasa", (2, 3))
    foreign_files.maniskill(root / "maniskill", (2, 3))
    _prepare_lerobot_2(root / "lerobot-2")
    _prepare_libero(root / "libero")
    _prepare_robomme(root / "robomme")
    size = dict(ANATOMY)
    released.write(root / "released", own=size)
    _prepare_run(root / "run")
    prismatic.write(root / "training-file", "memoryvla")
    _prepare_results(root / "results")
    _prepare_committed(root / "committed")
    trace = Trace(
        seed=3,
        labels={"target": 1},
        events={"cue_end": 1},
        measured={"steps": 2},
        written={"tokens": np.zeros((2, 4, 3), np.float32)},
        read=np.zeros((2, 4, 3), np.float32),
        step=np.arange(2),
        phase=np.zeros(2, np.uint8),
    )
    write_trace(root / "traces", trace)


def _prepare_lerobot_2(folder: Path) -> None:
    """LeRobot 2.1: a parquet file per episode, and lines of JSON."""
    foreign_files.lerobot(folder, (2, 2), "image", per_file=1)
    info = json.loads((folder / "meta" / "info.json").read_text())
    info |= {"codebase_version": "v2.1", "total_chunks": 1, "total_videos": 0}
    info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    for number, file in enumerate(sorted((folder / "data" / "chunk-000").iterdir())):
        file.rename(file.with_name(f"episode_{number:06d}.parquet"))
    shutil.rmtree(folder / "meta" / "episodes")
    (folder / "meta" / "tasks.parquet").unlink()
    texts = foreign_files.INSTRUCTIONS
    lines = [json.dumps({"task_index": i, "task": text}) for i, text in enumerate(texts)]
    (folder / "meta" / "tasks.jsonl").write_text("".join(f"{line}\n" for line in lines))
    lines = [json.dumps({"episode_index": i, "tasks": [texts[i]], "length": 2}) for i in range(2)]
    (folder / "meta" / "episodes.jsonl").write_text("".join(f"{line}\n" for line in lines))


def _prepare_libero(folder: Path) -> None:
    folder.mkdir()
    with h5py.File(folder / "demo.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": "Pick the cube."})
        data.attrs["env_args"] = json.dumps({"env_name": "x", "env_kwargs": {"control_freq": 20}})
        for number in range(2):
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = foreign_files.numbers(3, number)
            for camera in ("agentview_rgb", "eye_in_hand_rgb"):
                demo[f"obs/{camera}"] = foreign_files.pixels(3, number)
            demo["obs/ee_states"] = foreign_files.numbers(3, number, 6)
            demo["obs/gripper_states"] = foreign_files.numbers(3, number, 2)


def _prepare_robomme(folder: Path) -> None:
    folder.mkdir()
    with h5py.File(folder / "record_dataset_X.h5", "w") as file:
        for number in range(2):
            episode = file.create_group(f"episode_{number}")
            episode["setup/seed"], episode["setup/task_goal"] = number, ["Pick the cube."]
            for step in range(2):
                group = episode.create_group(f"timestep_{step}")
                for camera in ("front_rgb", "wrist_rgb"):
                    group[f"obs/{camera}"] = foreign_files.pixels(1, step)[0]
                group["obs/joint_state"], group["obs/gripper_state"] = np.zeros(7), np.zeros(2)
                group["action/joint_action"] = np.zeros(8)
                group["info/is_video_demo"] = step == 0


def _prepare_results(folder: Path) -> None:
    """A result of vla-eval, and one of LeRobot 0.6."""
    folder.mkdir()
    episodes = [{"episode_id": 0, "metrics": {"success": True}, "steps": 3, "failure_reason": None}]
    task = {"task": "x", "episodes": episodes, "num_episodes": 1}
    vla_eval = {"benchmark": "LIBERO", "mode": "sync", "harness_version": "0.8.0", "created_at": "", "tasks": [task]}
    (folder / "vla-eval.json").write_text(json.dumps(vla_eval))
    metrics = {"sum_rewards": [0.0], "max_rewards": [0.0], "successes": [True], "video_paths": []}
    total = {"avg_sum_reward": 0.0, "avg_max_reward": 0.0, "pc_success": 100.0, "n_episodes": 1, "video_paths": []}
    tasks = [{"task_group": "a", "task_id": 0, "metrics": metrics}]
    lerobot = {"per_task": tasks, "per_group": {"a": total}, "overall": total | {"eval_s": 1.0, "eval_ep_s": 1.0}}
    (folder / "eval_info.json").write_text(json.dumps(lerobot))


def _prepare_committed(folder: Path) -> None:
    """The lines of committed rows, without compression."""
    folder.mkdir()
    study = _study(folder)
    file = commit(folder, study_results(study, lambda item: train_id(item.cell, DATA, None)))
    (folder / LINES).write_bytes(gzip.decompress(file.read_bytes()))


def _prepare_run(folder: Path) -> None:
    folder.mkdir(parents=True)
    study = _study(folder)
    store = collect(DATASET, folder / "data")
    ledger = Ledger(folder / "runs", folder / "data")
    (entry,) = ledger.entries(study, ledger.opened(study))
    with entry.run.working():
        train_cell(entry.run, entry.item.cell, store, "cpu")
        evaluator = Evaluator(entry.run)
        for protocol, name in entry.missing():
            evaluator.evaluate(protocol, name, workers=0)
    shutil.copytree(folder, folder.with_name("failed"))
    for run in (folder.with_name("failed") / "runs").iterdir():
        mark = {"kind": "failed", "error": "x", "traceback": ""}
        (run / "failure.json").write_text(json.dumps(mark))


# --- texts ----------------------------------------------------------------------------------------------------------

INTERVENTIONS = (
    "zero",
    "noise(0.5)[1:3]@10..20",
    "transplant@cue_end",
    "freeze@delay_start..",
    "permute(reverse)/read",
    "direction(target,2)@delay_end",
    "stale(3)@every(2)",
    "lesion[0:2]",
    "none",
)
COMMANDS = (
    "ls tasks",
    "ls protocols",
    "ls interventions",
    "ls runs --runs absent",
    "inspect absent",
    "status STUDY --runs absent",
    "data import absent --task X --schema mikasa",
    "data ls --data absent",
    "replay absent 3",
    "ls",
    "diff STUDY none K=8",
    "evaluate absent --protocol recall-position3-rh@1",
    "report STUDY --runs absent",
    "doctor -h",
    "intervene absent zero --protocol recall-position3-rh@1",
    "export absent out",
    "train STUDY --variant x --seed 0",
    "data inspect absent",
    "init",
    "assets ls",
)
ASSIGNMENTS = (
    "memory.m=8",
    "budget.window=16",
    "model.size.layers=2",
    "data.dataset.image_size=64",
    "optimizer.lr=0.001",
    "truncation=4",
    "model.chunk=2",
    "budget.updates=10",
    "data.dataset.task.name=RecallPosition3-v0",
    "model.precision=bfloat16",
    "lora.rank=4",
    "data.dataset.episodes=10",
    "optimizer.weight_decay=0.1",
    "memory.alpha=0.5",
    "model.size.width=96",
)


def make_protocol(rng: Random) -> dict[str, Any]:
    data = to_dict(get_protocol("recall-position3-rh@1"))
    for name in rng.sample(sorted(data), rng.choice((1, 1, 2))):
        data[name] = value(rng)
    return data


def read_protocol(data: dict[str, Any]) -> None:
    task = data.pop("task")
    task = TaskConfig(**task) if isinstance(task, dict) and set(task) <= {"name", "kwargs"} and "name" in task else task
    protocol = Protocol(task=task, **data)
    assert protocol.hash and protocol.id


def make_cell(rng: Random) -> Any:
    return change_json(rng, to_dict(_cell()))


def _cell() -> Cell:
    model = ModelConfig(get_size("tiny"))
    return Cell(model, DataConfig(DATASET), MemoryConfig("tokens", 4), truncation=8, budget=BudgetConfig(4, 8, 6))


def read_cell(data: Any) -> None:
    assert content_hash(canonical(from_dict(Cell, data)))


def make_assignment(rng: Random) -> str:
    name, _, text = rng.choice(ASSIGNMENTS).partition("=")
    if rng.random() < 0.3:
        return mutate_words(rng, f"{name}={text}")
    given = value(rng)
    return f"{name}={given if isinstance(given, str) else json.dumps(given)}"


def read_assignment(text: str) -> None:
    read_cell(to_dict(replace(_cell(), parse_assignments([text]))))


def make_command(rng: Random) -> list[str]:
    words = rng.choice(COMMANDS).split()
    index = rng.randrange(len(words))
    action = rng.randrange(4)
    if action == 0:
        words.insert(
            index, mutate_words(rng, rng.choice(("--seeds", "--set", "x", "-h", "--runs", "-1", "--protocol")))
        )
    elif action == 1 and len(words) > 1:
        del words[index]
    else:
        words[index] = mutate_words(rng, words[index])
    return [word.replace("\0", "0") for word in words]  # the operating system passes no NUL byte


def read_command(words: list[str]) -> None:
    if "doctor" in words or "collect" in words or "sweep" in words or "init" in words or "baselines" in words:
        words = [*words, "--no-such-option"]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        main(words)


# --- all targets ----------------------------------------------------------------------------------------------------

FILES = (
    FileTarget("lerobot info", "lerobot-image", "meta/info.json", read_import("mikasa")),
    FileTarget("lerobot tasks", "lerobot-image", "meta/tasks.parquet", read_import("mikasa")),
    FileTarget("lerobot episodes", "lerobot-image", "meta/episodes/*/*.parquet", read_import("mikasa")),
    FileTarget("lerobot data", "lerobot-image", "data/*/*.parquet", read_import("mikasa")),
    FileTarget("lerobot note", "lerobot-image", "muvla.json", read_import("mikasa")),
    FileTarget("lerobot video info", "lerobot-video", "meta/info.json", read_import("mikasa")),
    FileTarget("lerobot video episodes", "lerobot-video", "meta/episodes/*/*.parquet", read_import("mikasa")),
    FileTarget("lerobot video", "lerobot-video", "videos/*/*/*.mp4", read_import("mikasa")),
    FileTarget("rlds features", "rlds", "1.0.0/features.json", read_import("mikasa", "1.0.0")),
    FileTarget("rlds info", "rlds", "1.0.0/dataset_info.json", read_import("mikasa", "1.0.0")),
    FileTarget("rlds records", "rlds", "1.0.0/*tfrecord*", read_import("mikasa", "1.0.0")),
    FileTarget("mikasa metadata", "mikasa", "metadata.json", read_import("mikasa")),
    FileTarget("mikasa episode", "mikasa", "*.npz", read_import("mikasa")),
    FileTarget("maniskill json", "maniskill", "*.json", read_import(None, "trajectory.h5", "Pick the cube.")),
    FileTarget("maniskill hdf5", "maniskill", "*.h5", read_import(None, "trajectory.h5", "Pick the cube.")),
    FileTarget("lerobot 2 info", "lerobot-2", "meta/info.json", read_import("mikasa")),
    FileTarget("lerobot 2 tasks", "lerobot-2", "meta/tasks.jsonl", read_import("mikasa")),
    FileTarget("lerobot 2 episodes", "lerobot-2", "meta/episodes.jsonl", read_import("mikasa")),
    FileTarget("lerobot 2 data", "lerobot-2", "data/*/*.parquet", read_import("mikasa")),
    FileTarget("libero", "libero", "*.hdf5", read_import("libero", "demo.hdf5")),
    FileTarget("robomme", "robomme", "*.h5", read_import("robomme", "record_dataset_X.h5")),
    FileTarget("released config", "released", "config.json", read_release),
    FileTarget("released memory meta", "released", "memory_meta.json", read_release),
    FileTarget("released statistics", "released", "dataset_statistics.json", read_release),
    FileTarget("released index", "released", "model.safetensors.index.json", read_release),
    FileTarget("released processor", "released", "preprocessor_config.json", read_release),
    FileTarget("released tokenizer", "released", "tokenizer.json", read_release),
    FileTarget("released weights", "released", "*.safetensors", read_release),
    FileTarget("released parts", "released", "*.pt", read_release),
    FileTarget("store meta", "run", "data/*/meta.json", read_stores),
    FileTarget("store index", "run", "data/*/episodes.jsonl", read_stores),
    FileTarget("store columns", "run", "data/*/*.bin", read_stores),
    FileTarget("run", "run", "runs/*/run.json", read_run),
    FileTarget("checkpoint meta", "run", "runs/*/checkpoints/update-*/checkpoint.json", read_run),
    FileTarget("checkpoint pointer", "run", "runs/*/checkpoints/latest", read_run),
    FileTarget("checkpoint tensors", "run", "runs/*/checkpoints/update-*/*.safetensors", read_run),
    FileTarget("timings", "run", "runs/*/timings.jsonl", read_ledger),
    FileTarget("rows", "run", "runs/*/rows/*.jsonl", read_ledger),
    FileTarget("chunks", "run", "runs/*/chunks/*.jsonl", read_ledger),
    FileTarget("provenance", "run", "runs/*/provenance/*.json", read_ledger),
    FileTarget("ledger run", "run", "runs/*/run.json", read_ledger),
    FileTarget("failure", "failed", "runs/*/failure.json", read_ledger),
    FileTarget("seals", "run", "runs/*/seals/*.json", read_ledger),
    FileTarget("training folder config", "training-file", "config.json", read_training_folder),
    FileTarget("training folder statistics", "training-file", "dataset_statistics.json", read_training_folder),
    FileTarget("training file", "training-file", "checkpoints/*.pt", read_training_folder),
    FileTarget("results of vla-eval", "results", "vla-eval.json", read_foreign_results),
    FileTarget("results of lerobot", "results", "eval_info.json", read_foreign_results),
    FileTarget("committed rows", "committed", LINES, read_committed_rows),
    FileTarget("traces", "traces", "*.safetensors", read_traces),
)
TARGETS = (
    *FILES,
    TextTarget("interventions", lambda rng: mutate_words(rng, rng.choice(INTERVENTIONS)), parse_intervention),
    TextTarget("assignments", make_assignment, read_assignment),
    TextTarget("cells", make_cell, read_cell),
    TextTarget("protocols", make_protocol, read_protocol),
    TextTarget("command line", make_command, read_command),
)
