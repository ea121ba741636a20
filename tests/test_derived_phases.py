"""Phases and executed actions of imported demonstrations, by a declared rule: what it says, how well, and where it is
not enough."""

import numpy as np
import pytest

from helpers.errors import printed_field
from helpers.studies import STUDY
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config import DataConfig
from muvla.config.serialization import replace
from muvla.data.derived_phases import find_first_movement, measure_accuracy
from muvla.data.importer import import_config, import_dataset
from muvla.data.label_audit import audit
from muvla.data.normalization import Statistics
from muvla.data.readers.formats import choose_schema, open_source
from muvla.data.store import EpisodeStore
from muvla.data.writers import write_dataset
from muvla.errors import MuvlaError
from muvla.training.coverage import measure_coverage
from muvla.training.trainer import Trainer

TASK = "RecallPosition3-v0"
NAMED = ("steps/observation/proprio", "steps/action")


@pytest.fixture(scope="module")
def given_away(store, tmp_path_factory):
    return write_dataset(store, tmp_path_factory.mktemp("given") / "toy", "rlds")


def brought_back(path, root, derive=None, schema="mikasa"):
    """As one who knows no more than what is published."""
    source = open_source(path)
    of = (
        choose_schema(source, schema, (), *([name] for name in NAMED))
        if schema == "mikasa"
        else choose_schema(source, schema)
    )
    return import_dataset(source, of, import_config(source, TASK), root, accuracy=derive)


def test_the_first_movement():
    place = np.zeros((6, 3), np.float32)
    place[3:, 0] = [1, 2, 3]
    assert find_first_movement(place) == 2, "the action of frame 2 moved it"
    place[1:3, 1] = 0.09, 0.09
    assert find_first_movement(place) == 2, "what settles by less than a tenth of the longest step is no movement"
    place[1:3, 1] = 0.11, 0.11
    assert find_first_movement(place) == 0
    assert find_first_movement(np.zeros((4, 3))) == 4 and find_first_movement(np.ones((1, 3))) == 1
    gripper = np.zeros((4, 7))
    gripper[:, 6] = range(4)
    assert find_first_movement(gripper) == 4, "its fingers are no place"


def test_it_is_measured_on_what_is_known(store, tmp_path):
    """In the suite the effector stands still until the decision and then moves: the rule is right everywhere. In data
    where it creeps before, it is wrong there, and says so."""
    found = measure_accuracy(store)
    assert found.frames == 1 and found.whole == 1 and found.episodes == 24 and found.executed_error == 0
    assert 0.85 < found.low < 0.87 and found.high == 1, "24 of 24"
    creeping = EpisodeStore(store.path)
    proprio = np.array(store["proprio"])
    proprio[store.starts[:6] + 1] += 1
    creeping._columns["proprio"] = proprio
    worse = measure_accuracy(creeping)
    assert worse.whole == 0.75 and 0.54 < worse.low < 0.56 < 0.88 < worse.high < 0.89 and worse.frames < 1
    assert "every frame in 0.75 [0.55, 0.88] of 24 episodes" in worse.line()


def test_what_is_derived_is_what_was(store, given_away, tmp_path):
    plain = brought_back(given_away, tmp_path / "plain")
    known = brought_back(given_away, tmp_path / "derived", measure_accuracy(store))
    assert np.array_equal(known["executed_action"], store["executed_action"])
    assert np.array_equal(known.is_executed, store.is_executed) and set(np.asarray(known["phase"])) == {3, 4}
    assert known.sha256 != plain.sha256 and known.meta["derived"]["rule"] == "motion"
    assert known.meta["derived"]["checked_on"]["content"] == store.sha256
    assert Statistics.from_store(known).action_low == Statistics.from_store(store).action_low
    with pytest.raises(MuvlaError) as info:
        brought_back(given_away, tmp_path / "plain", measure_accuracy(store))
    assert info.value.field.endswith("toy")
    known.verify()


@pytest.mark.slow
def test_cells_train_on_it(store, base, given_away, tmp_path):
    """Supervised as cells of the demonstrations that it was made of; masked where nothing was executed."""
    known = brought_back(given_away, tmp_path, measure_accuracy(store))
    for labels in ("executed", "masked"):
        cells = [replace(base, {"data": DataConfig(one.spec, labels=labels)}) for one in (store, known)]
        ours, theirs = Trainer(cells[0], store), Trainer(cells[1], known)
        assert ours.step()[0] == theirs.step()[0]


def test_what_needs_more_is_refused(store, base, given_away, tmp_path):
    known = brought_back(given_away, tmp_path, measure_accuracy(store))
    cell = replace(base, {"data": DataConfig(known.spec)})
    with pytest.raises(MuvlaError) as info:
        measure_coverage(known, cell.data, cell.budget, 0, [1], [1])
    assert info.value.field == "toy: coverage"
    with pytest.raises(MuvlaError) as info:
        measure_accuracy(known)
    assert info.value.field == "toy: a derivation's accuracy"
    told = brought_back(given_away, tmp_path / "told", schema="muvla")
    assert told.knows_phases
    with pytest.raises(MuvlaError) as info:
        measure_accuracy(told)
    assert info.value.field == "--checked-on"
    with pytest.raises(MuvlaError) as info:
        audit(known, "recorded", 1)
    assert info.value.field == str(known.path)
    with pytest.raises(MuvlaError) as info:
        brought_back(given_away, tmp_path / "again", measure_accuracy(store), "muvla")
    assert info.value.field == "--derive"


def test_from_the_command_line(store, given_away, tmp_path, capsys):
    place = ["--data", str(store.path.parent)]
    command = [
        "data",
        "import",
        str(given_away),
        "--schema",
        "mikasa",
        "--proprio",
        NAMED[0],
        "--action",
        NAMED[1],
        "--task",
        TASK,
        "--name",
        "derived",
        *place,
    ]
    for half in (["--derive", "motion"], ["--checked-on", store.path.name]):
        assert main([*command, *half]) == EXIT_BAD_INPUT
        assert printed_field(capsys) in ("--derive", "--checked-on")
    assert main([*command, "--derive", "motion", "--checked-on", store.path.name]) == 0
    out = capsys.readouterr().out
    assert store.path.name in out and "1.0000" in out and "1.00 [0.86, 1.00]" in out
    assert "episodes=24, source='derived'))" in out, "as a study writes it"
    assert main(["data", "show", "derived", *place]) == 0
    out = capsys.readouterr().out
    assert "by motion" in out and store.path.name in out and "decision" in out and "no_op" in out
    dataset = 'DataConfig(DatasetConfig(TaskConfig("RecallPosition3-v0"), episodes=24, source="derived"))'
    old = 'DataConfig(DatasetConfig(task=TaskConfig("RecallPosition3-v0"), episodes=24))'
    (tmp_path / "study.py").write_text(STUDY.format(updates=2).replace(old, dataset))
    assert main(["sweep", str(tmp_path), "--runs", str(tmp_path / "runs"), *place, "--plan"]) == 0
    assert "by motion" in capsys.readouterr().out
