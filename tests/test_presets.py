"""The arms of the published table: what their two versions differ in, and that they run."""

import dataclasses
from pathlib import Path

import pytest
import released
from conftest import DATASET
from test_checkpoints import SIZE

from muvla.cli import main
from muvla.config import DatasetConfig, TaskConfig
from muvla.configtools import canonical_json, difference, replace
from muvla.evaluation.protocol import Protocol
from muvla.presets import ARMS, CONFOUNDS, FACTORS, UNGUARDED, confounds, of_version, paper_arms, single_task
from sweeps.grid import certificate, load_study
from sweeps.ledger import Ledger
from sweeps.run import SweepOptions, run_study

FOLDER = Path(__file__).parents[1] / "experiments" / "paper_table"


@pytest.fixture(scope="module")
def cells():
    """(controlled, published): the cells of the first seed by arm. Without the checkpoint, which is not here."""
    studies = (load_study(FOLDER), load_study(FOLDER / "published.py"))
    return tuple({c.arm: c.cell for c in study.cells() if c.cell.seed == 0} for study in studies)


def test_the_arms_of_the_table_are_all_there(cells):
    assert all(tuple(version) == ARMS for version in cells) and len(ARMS) == 12
    recurrent = {(c.memory.m, c.memory.alpha, c.truncation) for c in cells[0].values() if c.recurs}
    assert recurrent == {(m, 1.0, K) for m in (1, 64) for K in (1, 2, 8)} | {(64, 0.1, 1), (64, 0.1, 8)}
    assert cells[0]["OFT"].data.order == "shuffled" and cells[0]["first image"].data.first_image
    assert cells[0]["EMA, guard full"].model.guard == "full"


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_differs_from_its_twin_in_the_listed_confounds_and_nothing_else(cells, arm):
    controlled, published = (version[arm] for version in cells)
    listed = {field: (c.controlled, c.published) for field, c in confounds(arm).items()}
    assert difference(controlled, published) == listed
    # As computations: m reserved positions instead of 64, the window that the regime makes of K, and the K that means
    # nothing without recurrence.
    shown = certificate(controlled, published)
    assert shown.keys() <= listed.keys() | {"model.reserve", "truncation"}
    assert {"data.labels", "data.augmentation", "model.chunk", "budget.slots", "optimizer.clip"} <= shown.keys()
    assert ("truncation" in shown) == (not controlled.recurs)


def test_confounds_name_their_sections():
    text = (FOLDER.parents[1] / "docs" / "published.md").read_text()
    for confound in (CONFOUNDS | UNGUARDED).values():
        assert f"- {confound.section} " in text or f"**{confound.section}. " in text
        assert confound.published != confound.controlled and confound.why


@pytest.mark.parametrize("version", [0, 1], ids=["controlled", "published"])
def test_within_a_version_arms_differ_in_factors_alone(cells, version):
    study = load_study(FOLDER / ("study.py", "published.py")[version])
    for cell in cells[version].values():
        assert difference(study.base, cell).keys() <= set(FACTORS)


def test_budgets_are_matched_under_control_and_grow_with_k_as_published(cells):
    controlled, published = cells
    assert len({c.effective_budget for c in controlled.values()}) == 1
    frames = {arm: c.effective_budget.frames_per_update for arm, c in published.items()}
    assert [frames[f"m=64, K={K}"] for K in (1, 2, 8)] == [32, 64, 256] and frames["OFT"] == frames["EMA"] == 32
    assert controlled["OFT"].effective_budget.frames_per_update == 32


@pytest.mark.parametrize("version", ["controlled", "published"])
def test_presets_fit_a_study_of_another_size(base, version):
    """On the embedded suite: not bound to the published size."""
    cell = replace(base, {"model.images": "released", "model.reserve": 64, **of_version(version)})
    other = DatasetConfig(TaskConfig("RecallColor3-v0"))
    for changes in [*paper_arms(version).values(), single_task(other)]:
        replace(cell, changes)
    assert difference(cell, replace(cell, single_task(other))).keys() == {
        "data.dataset.task.name", "data.dataset.episodes",
    }  # fmt: skip


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """Changes of the base: a tiny OpenVLA, the embedded suite and a tiny budget in place of the real ones."""
    own = {"muvla_size": dataclasses.asdict(SIZE)}
    path = released.write(tmp_path_factory.mktemp("stand in") / "base", "openvla", own=own)
    return {
        "model.size": SIZE, "start.checkpoint": str(path), "data.dataset": DATASET, "lora.rank": 4,
        "budget.updates": 2, "budget.slots": 2,
    }  # fmt: skip


FILES = pytest.mark.parametrize("file", [FOLDER, FOLDER / "published.py"], ids=["controlled", "published"])


@FILES
def test_the_plan_prints_the_budgets(file, stand_in, tmp_path, capsys):
    """Of the real budget, without data or simulator."""
    given = [f"{name}={canonical_json(stand_in[name])}" for name in ("model.size", "start.checkpoint", "lora.rank")]
    options = ["--plan", *(word for one in given for word in ("--set", one)), "--runs", str(tmp_path / "runs")]
    assert main(["sweep", str(file), *options, "--data", str(tmp_path / "data")]) == 0
    rows = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    budgets = {arm: rows[arm][-7:-1] for arm in ("OFT", "m=64, K=2", "m=64, K=8")}
    steps = ["150000", "2000"]
    if file == FOLDER:
        assert set(map(tuple, budgets.values())) == {("4", "8", *steps, "32", "4,800,000")}
    else:
        assert budgets == {
            "OFT": ["32", "1", *steps, "32", "4,800,000"],
            "m=64, K=2": ["32", "2", *steps, "64", "9,600,000"],
            "m=64, K=8": ["32", "8", *steps, "256", "38,400,000"],
        }


@pytest.mark.slow
@FILES
def test_every_arm_runs_on_a_tiny_checkpoint(file, stand_in, tmp_path):
    protocol = Protocol("tiny", 1, DATASET.task, episodes=2, slots=2)
    study = load_study(file).with_base(stand_in)
    study = dataclasses.replace(study, protocols=(protocol,), interventions=("zero",)).narrowed(seeds=(0,))
    said: list[str] = []
    ledger, options = Ledger(tmp_path / "runs", tmp_path / "data"), SweepOptions(processes=2, track=False)
    result = run_study(study, ledger, options, said.append)
    assert not result.failed and not result.not_run and len(result.entries) == len(ARMS), "\n".join(said)
    rows = [row for entry in result.entries for of_one in entry.complete_rows().values() for row in of_one]
    without_tokens = sum(entry.item.cell.memory.m == 0 for entry in result.entries)
    assert len(rows) == 2 * (2 * len(ARMS) - without_tokens) and not any(row.error for row in rows)
