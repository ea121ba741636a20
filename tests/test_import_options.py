"""Options of an import: parts, instructions, the choice of episodes, and conventions held against the task's."""

import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest

from helpers import foreign_files as files
from helpers import hdf5_files as made
from helpers import rlds_files
from helpers.errors import printed_field, refused
from helpers.studies import at
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config import TaskConfig
from muvla.data.conventions import require_task_conventions
from muvla.data.importer import import_config, import_dataset, make_safe
from muvla.data.readers.formats import choose_schema, open_source
from muvla.data.readers.selection import parse_numbers, select
from muvla.data.store import META, EpisodeStore, restate_conventions
from muvla.data.writers import write_dataset
from muvla.envs.conventions import FACTS, Conventions, read_conventions
from muvla.errors import MuvlaError
from muvla.runs.run import Run
from muvla.runs.train import train_cell

TASK = "RecallPosition3-v0"
TEXT = files.INSTRUCTIONS[0]
PROPRIO, ACTION = ["steps/observation/proprio"], ["steps/action"]


def imported(source, tmp_path, schema, selection=None, **stated):
    spec = import_config(source, TASK, "toy", episodes=None if selection is None else len(selection.numbers))
    return import_dataset(source, schema, spec, tmp_path, stated=Conventions(**stated), selection=selection)


def in_parts(folder):
    """An RLDS dataset whose action and proprio have parts; a gripper is one number per step."""
    parts = {"arm": rlds_files.tensor("float32", 6), "hand": rlds_files.tensor("float32")}
    steps = rlds_files.MIKASA | {"action": rlds_files.group(parts)}
    arms = [files.numbers(3, number, 6) for number in range(2)]
    hands = [files.numbers(3, 50 + number, 1)[:, 0] for number in range(2)]
    episodes = [
        rlds_files.episode(3, number, action=None, **{"action/arm": arm, "action/hand": hand})
        for number, (arm, hand) in enumerate(zip(arms, hands, strict=True))
    ]
    return rlds_files.write(folder / "set" / "1.0.0", episodes, steps), arms, hands


def test_parts_are_joined_in_their_order(tmp_path):
    path, arms, hands = in_parts(tmp_path)
    source = open_source(path)
    schema = choose_schema(source, "mikasa", action=["steps/action/arm", "steps/action/hand"])
    store = imported(source, tmp_path, schema)
    expected = np.column_stack([np.concatenate(arms), np.concatenate(hands)])
    assert np.array_equal(store["recorded_action"], expected)
    schema = choose_schema(source, "mikasa", proprio=["steps/action/hand", "steps/action/arm"], action=PROPRIO)
    store = imported(source, tmp_path / "turned", schema)
    assert np.array_equal(store["proprio"], expected[:, [6, 0, 1, 2, 3, 4, 5]])


def test_a_part_is_named_once(tmp_path):
    source = open_source(in_parts(tmp_path)[0])
    with refused("--action"):
        choose_schema(source, "mikasa", action=["steps/action/arm", "steps/action/arm"])


@pytest.mark.parametrize(
    "words",
    [
        ["data", "import", "x", "--task", TASK, "--task", "RecallColor3-v0"],
        ["data", "import", "x", "--task", TASK, "--instruction", "a", "--instruction", "b"],
        ["sweep", "x", "--seeds", "0", "--seeds", "1"],
        ["data", "write", "x", "y", "--format", "rlds", "--format", "lerobot"],
        ["evaluate", "x", "--protocol", "p", "--device", "cpu", "--device=cuda"],
    ],
)
def test_an_option_that_cannot_repeat_refuses_a_repetition(words, capsys):
    repeated = next(word for word in words if word.startswith("--") and sum(w.startswith(word) for w in words) > 1)
    assert main(words) == EXIT_BAD_INPUT
    assert printed_field(capsys) == repeated


@pytest.mark.parametrize(
    "words",
    [
        ["--convention", "fps=10", "--convention", "fps=20"],
        ["--convention", "speed=10"],
        ["--convention", "fps=fast"],
        ["--convention", "gripper"],
    ],
)
def test_a_convention_is_a_fact_that_is_stated_once(words, tmp_path, capsys):
    assert main(["data", "import", str(tmp_path), "--task", TASK, *words]) == EXIT_BAD_INPUT
    assert printed_field(capsys) == "--convention"


def test_a_field_is_set_once(capsys):
    assert main(["sweep", "recall_quick", "--set", "memory.m=4", "--set", "memory.m=8"]) == EXIT_BAD_INPUT
    assert printed_field(capsys) == "--set"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0:2", [0, 1]), ("3", [3]), (":2,4", [0, 1, 4]), ("3:", [3, 4]), ("4, 0:1, 0", [0, 4]), (":", [0, 1, 2, 3, 4])],
)
def test_episode_numbers(text, numbers):
    assert parse_numbers(text, 5) == numbers


@pytest.mark.parametrize("text", ["", "5", "2:2", "3:9", "a", "-1", "1:2:3", "9" * 400, "1.5"])
def test_no_episode_numbers(text):
    with refused("--episodes"):
        parse_numbers(text, 5)


FORMATS = ("image", "mikasa", "maniskill", "rlds", "libero")


def dataset(tmp_path, which, texts):
    """Five episodes of 3 to 7 steps with these instructions; "" is no instruction."""
    lengths = (3, 4, 5, 6, 7)
    if which == "rlds":
        made_episodes = [
            rlds_files.episode(steps, number, language_instruction=[text.encode()] * steps)
            for number, (steps, text) in enumerate(zip(lengths, texts, strict=True))
        ]
        return rlds_files.write(tmp_path / "set" / "1.0.0", made_episodes, shards=2)
    if which == "image":
        path = files.lerobot(tmp_path / "lerobot", lengths, kind="image")
        return relabelled(path, texts)
    if which == "mikasa":
        path = files.mikasa(tmp_path / "mikasa", lengths)
        for number, text in enumerate(texts):
            arrays = dict(np.load(path / f"train_data_{number}.npz"))
            del arrays["language_instruction"]
            arrays |= {"language_instruction": np.array(text)} if text else {}
            np.savez(path / f"train_data_{number}.npz", **arrays)
        return path
    path = made.libero(tmp_path / "x.hdf5", lengths, None) if which == "libero" else files.maniskill(tmp_path, lengths)
    with h5py.File(path, "a") as file:
        for number, text in enumerate(texts):
            group = file[f"data/demo_{number}" if which == "libero" else f"traj_{number}"]
            if text:
                group.attrs["lang"] = text
    return path


def relabelled(path, texts):
    """Gives the episodes of a LeRobotDataset these tasks."""
    import pandas

    names = list(dict.fromkeys(texts))
    pandas.DataFrame({"task_index": range(len(names))}, index=pandas.Index(names, name="task")).to_parquet(
        path / "meta" / "tasks.parquet"
    )
    for file in path.glob("data/*/*.parquet"):
        table = pandas.read_parquet(file)
        table["task_index"] = [names.index(texts[number]) for number in table["episode_index"]]
        table.to_parquet(file)
    return path


def schema_of(source, which, **changes):
    name = "mikasa" if which in ("image", "rlds") else None
    feature = "lang" if which in ("maniskill", "libero") else None
    return choose_schema(source, name, instruction=feature, **changes)


@pytest.mark.parametrize("which", FORMATS)
def test_episodes_are_chosen_by_number_instruction_and_count(tmp_path, which):
    source = open_source(dataset(tmp_path, which, ("a", "b", "", "b", "a")))
    schema = schema_of(source, which)
    schema.check(source)
    with pytest.raises(MuvlaError) as info:
        imported(source, tmp_path / "all", schema)
    assert "--skip-unlabelled" in info.value.remedy
    selection = select(source, schema, skip_unlabelled=True)
    assert selection.numbers == (0, 1, 3, 4) and selection.left_out == {"without an instruction": 1}
    store = imported(source, tmp_path / "labelled", schema, selection)
    assert store.lengths.tolist() == [3, 4, 6, 7] and store.instructions == ["a", "b"]
    assert select(source, schema, instructions=["b"]).numbers == (1, 3)
    chosen = select(source, schema, "1:5", limit=1, instructions=["b"])
    assert chosen.numbers == (1,)
    assert chosen.left_out == {
        "not among --episodes": 1,
        "without an instruction": 1,
        "of another instruction": 1,
        "beyond --limit": 1,
    }
    with refused("--only-instruction"):
        select(source, schema, instructions=["c"])
    whole = choose_schema(source, schema.name.split()[0], text="Said by hand.")
    store = imported(source, tmp_path / "told", whole, select(source, whole, "1:3"))
    assert store.lengths.tolist() == [4, 5] and store.instructions == ["Said by hand."]
    assert np.array_equal(store["images"][:4, 1], imported(source, tmp_path / "one", whole)["images"][3:7, 1])


def test_the_summary_counts_what_is_left_out(tmp_path, capsys):
    path = dataset(tmp_path, "rlds", ("a", "", "b", "", "a"))
    words = ["data", "import", str(path), "--schema", "mikasa", "--task", TASK, "--data", str(tmp_path / "data")]
    assert main([*words, "--skip-unlabelled", "--limit", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["left_out"] == {"without an instruction": 2, "beyond --limit": 1} and printed["episodes"] == 2


def test_another_choice_is_another_import(tmp_path):
    source = open_source(dataset(tmp_path, "rlds", ("a",) * 5))
    schema = schema_of(source, "rlds")
    imported(source, tmp_path, schema, select(source, schema, "0:2"))
    with pytest.raises(MuvlaError) as info:
        imported(source, tmp_path, schema, select(source, schema, "1:3"))
    assert info.value.field == str(tmp_path / "toy")


def test_names_are_made_safe():
    assert make_safe("a set [1] 50%") == "a_set__1__50" and make_safe("...") == "imported"
    assert len(make_safe("x" * 300)) <= 200


# --- conventions ------------------------------------------------------------------------------------------------------


def restated(store, tmp_path, **facts):
    """A copy of a store that states these facts."""
    shutil.copytree(store.path, tmp_path / "copy")
    restate_conventions(tmp_path / "copy", Conventions(**facts))
    return EpisodeStore(tmp_path / "copy")


def test_a_collected_store_states_its_tasks_conventions(store):
    assert store.conventions == Conventions(TASK, action="delta", frame="world", units="normalized")
    require_task_conventions(store)


def test_a_store_from_before_states_nothing_and_is_not_refused(store, tmp_path):
    copy = restated(store, tmp_path)
    meta = json.loads((copy.path / META).read_text())
    del meta["conventions"]
    (copy.path / META).write_text(json.dumps(meta))
    old = EpisodeStore(copy.path)
    old.verify()
    assert set(old.conventions.shown.values()) == {"unknown"} and old.sha256 == store.sha256
    require_task_conventions(old)


@pytest.mark.parametrize(
    ("facts", "field"),
    [
        ({"environment": "RecallColor3-v0"}, "environment"),
        ({"action": "absolute"}, "action"),
        ({"frame": "hand"}, "frame"),
        ({"units": "metric"}, "units"),
    ],
)
def test_a_training_refuses_the_conventions_of_another_task(store, base, tmp_path, facts, field):
    copy = restated(store, tmp_path, **facts)
    with refused(f"copy: {field}"):
        train_cell(Run(tmp_path, tmp_path, "any"), base, copy, "cpu")


@pytest.mark.parametrize(
    ("task", "facts", "field"),
    [
        ("PickCube-v1", {"control_mode": "pd_joint_pos"}, "control_mode"),
        ("PickCube-v1", {"fps": 10}, "fps"),
        ("libero_spatial-0", {"gripper": "positive_closes"}, "gripper"),
    ],
)
def test_every_fact_is_held_against_the_simulators(store, tmp_path, task, facts, field):
    copy = restated(store, tmp_path, environment=task, **facts)
    copy.spec = dataclasses.replace(copy.spec, task=TaskConfig(task))
    if task.startswith("libero"):
        copy.meta["conventions"].pop("environment")
    copy.meta["conventions"] = {k: v for k, v in copy.meta["conventions"].items() if k in ("environment", *facts)}
    with refused(f"copy: {field}"):
        require_task_conventions(copy)


def test_a_plan_refuses_imported_conventions(store, tmp_path, study_file, capsys):
    source = open_source(write_dataset(store, tmp_path / "set", "rlds"))
    data = tmp_path / "data"
    name = import_config(source, TASK, "toy")
    import_dataset(source, choose_schema(source, "muvla"), name, data, stated=Conventions(action="absolute"))
    study = tmp_path / "study.py"
    study.write_text(study_file.read_text().replace("episodes=24)", "episodes=24, source='toy')"))
    assert main(["sweep", str(study), "--plan", *at(tmp_path)]) == EXIT_BAD_INPUT
    assert printed_field(capsys) == "toy: action"


@pytest.mark.parametrize("format", ["rlds", "lerobot"])
def test_conventions_are_written_and_read_back(store, tmp_path, format):
    facts = {"control_mode": "pd_joint_pos", "gripper": "positive_closes", "fps": 12.5}
    copy = restated(store, tmp_path, **facts)
    source = open_source(write_dataset(copy, tmp_path / "set", format))
    again = import_dataset(source, choose_schema(source, "muvla"), import_config(source, TASK), tmp_path / "data")
    assert again.conventions == copy.conventions and again.conventions.fps == 12.5


def test_a_statement_replaces_the_files_even_in_a_finished_import(tmp_path, capsys):
    path = files.maniskill(tmp_path / "set")
    words = ["data", "import", str(path), "--task", "PickCube-v1", "--name", "toy", "--instruction", TEXT]
    words += ["--data", str(tmp_path)]
    assert main(words) == 0
    first = EpisodeStore(tmp_path / "toy")
    assert first.conventions.stated == {
        "environment": "PickCube-v1",
        "control_mode": "pd_ee_delta_pose",
        "action": "delta",
        "frame": "base",
    }
    require_task_conventions(first)
    assert main([*words, "--convention", "fps=20", "--convention", "control_mode=pd_ee_pose"]) == 0
    assert "pd_ee_delta_pose" in capsys.readouterr().err
    second = EpisodeStore(tmp_path / "toy")
    assert second.conventions.fps == 20 and second.sha256 == first.sha256
    with refused("toy: control_mode"):
        require_task_conventions(second)


def test_maniskill_with_two_control_modes_is_refused(tmp_path):
    path = files.maniskill(tmp_path)
    beside = path.with_suffix(".json")
    entries = json.loads(beside.read_text())
    entries["episodes"][1]["control_mode"] = "pd_joint_pos"
    beside.write_text(json.dumps(entries))
    with pytest.raises(MuvlaError) as info:
        open_source(path)
    assert info.value.field == f"{beside}: control_mode"


@pytest.mark.parametrize(
    "data", [[], {"fps": 0}, {"fps": "20"}, {"fps": float("nan")}, {"action": "sideways"}, {"environment": "a\nb"}]
)
def test_conventions_of_no_sense_are_refused(data):
    with pytest.raises(MuvlaError) as info:
        read_conventions(data, "meta.json: conventions")
    assert "conventions" in info.value.field
    assert read_conventions({"later": 1, "fps": "unknown"}, "x") == Conventions() and len(FACTS) == 7
