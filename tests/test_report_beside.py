"""Results of served policies and of other harnesses as marked lines beside a study's variants."""

import dataclasses
import json

import pandas as pd
import pytest

from analysis.report.beside import OtherResult, read_others
from helpers import rows
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.records import RowFile
from muvla.runs.results import row_file
from muvla.runs.run import Run
from muvla.stats import wilson
from muvla.utils.io import write_json

PROTOCOL = dataclasses.replace(get_protocol("recall-position3-rh@1"), name="beside", episodes=5)
TRAIN = "ab" * 8
LEROBOT = {"overall": {"pc_success": 75.0, "n_episodes": 4}}


def served(root, count=4, errors=1):
    """The run folder of a policy server with rows of PROTOCOL: half of them succeed."""
    run = Run(root / "runs", root / "data", TRAIN)
    write_json(run.folder / "server.json", {"train": TRAIN, "address": "ws://x", "wire": "openpi", "name": "pi"})
    file = row_file(run, PROTOCOL, "none")
    for i in range(count + errors):
        change = {
            "result": file.stem,
            "train": TRAIN,
            "training_seed": None,
            "protocol": PROTOCOL.id,
            "protocol_hash": PROTOCOL.hash,
            "task": PROTOCOL.task.name,
            "seed": PROTOCOL.seed + i,
        }
        row = rows.row(i, i % 2, error="RuntimeError: lost" if i >= count else None)
        change["first_success_step"] = 3 if row.success_once else None
        RowFile(run.rows, file.stem).append(dataclasses.replace(row, **change))
    return run


def lines_of(root, *names):
    return read_others(names, root / "runs", root / "data", [PROTOCOL])


def test_a_served_policy_is_a_line_without_its_errors(tmp_path):
    run = served(tmp_path)
    (line,) = lines_of(tmp_path, TRAIN[:6])
    assert (line.n, line.successes, line.errors, line.errors_are) == (4, 2, 1, "left out")
    assert line.task == PROTOCOL.id and line.policy.startswith("pi (served") and line.source == str(run.folder)


def test_a_result_of_another_harness_is_a_line_that_counts_errors(tmp_path):
    file = tmp_path / "eval_info.json"
    file.write_text(json.dumps(LEROBOT))
    (line,) = lines_of(tmp_path, str(file))
    assert (line.n, line.successes, line.errors, line.errors_are) == (4, 3, None, "counted as failures")
    assert line.policy == "LeRobot (another harness)" and line.source == str(file)


def test_the_report_sets_the_lines_beside_ours(base, tmp_path):
    other = OtherResult("pi (served)", "p@1", 20, 12, 1, "left out", "runs/x")
    cells = [rows.records(base, "K=8", {}, seed, 6, 2, 2) for seed in (0, 1)]
    rows.write(cells, tmp_path, others=(other,))
    text = (tmp_path / "out" / "report.md").read_text()
    low, high = wilson(12, 20)
    assert f"| pi (served) | p@1 | 0.60 [{low:.2f}, {high:.2f}] n = 20 | 1, left out | runs/x |" in text
    assert "(ours) | p@1 | 0.60 ± 0.00, 2 seeds of n = 10 | 0, left out |" in text
    frame = pd.read_csv(tmp_path / "out" / "beside.csv")
    assert frame.loc[0, ["n", "successes", "low", "high"]].tolist() == [20, 12, low, high]
    rows.write(cells, tmp_path / "without")
    assert not (tmp_path / "without" / "out" / "beside.csv").exists()


@pytest.mark.parametrize("name", ["zz", ""])
def test_a_name_that_is_no_policy_and_no_file_is_refused(tmp_path, name):
    if name == "":  # begins every id: two policies fit
        served(tmp_path)
        write_json(tmp_path / "runs" / "cd" / "release.json", {})
    with pytest.raises(MuvlaError) as info:
        lines_of(tmp_path, name)
    assert info.value.field == "--beside"


def test_a_policy_without_a_measured_episode_is_refused(tmp_path):
    served(tmp_path, count=0)
    with pytest.raises(MuvlaError) as info:
        lines_of(tmp_path, TRAIN)
    assert info.value.field == "--beside"
