"""The variants of the published table: what their two versions differ in, and that they run."""

import dataclasses

import pytest

from helpers import released
from helpers.errors import refused
from helpers.paths import ROOT
from helpers.release_size import SIZE
from helpers.studies import DATASET
from muvla.checkpoints.build import get_prompts
from muvla.cli.main import main
from muvla.config import DatasetConfig, TaskConfig
from muvla.config.presets import (
    CONFOUNDS,
    FACTORS,
    UNGUARDED,
    VARIANTS,
    confounds,
    of_version,
    paper_variants,
    single_task,
)
from muvla.config.serialization import canonical_json, replace
from muvla.config.serialization import difference as declared_difference
from muvla.data.collect import collect
from muvla.data.mixture import join
from muvla.data.mixture_sampling import get_pieces_per_round
from muvla.envs.mikasa.tasks import TRAINED
from muvla.envs.registry import task_info
from muvla.evaluation.catalog import get_protocols
from sweeps.difference import difference
from sweeps.launchers.base import Job, Status
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.work import bring_to_end

FOLDER = ROOT / "experiments" / "paper_table"
FILES = {"controlled": ("study.py", "alone.py"), "published": ("published.py", "published_alone.py")}
UNFITTING = (
    "mikasa-shell-game-push-rh@1"  # its prompt has another length than the prompt of the task of the study `alone`
)
VERSIONS = pytest.mark.parametrize("version", FILES)


@pytest.fixture(scope="module")
def cells():
    """(controlled, published): the cells of the first seed by variant. Without the checkpoint, which is not here."""
    studies = [load_study(FOLDER / file) for file, _ in FILES.values()]
    return tuple({c.variant: c.cell for c in study.cells() if c.cell.seed == 0} for study in studies)


def test_the_variants_of_the_table_are_all_there(cells):
    assert all(tuple(version) == VARIANTS for version in cells) and len(VARIANTS) == 12
    recurrent = {(c.memory.m, c.memory.alpha, c.truncation) for c in cells[0].values() if c.recurs}
    assert recurrent == {(m, 1.0, K) for m in (1, 64) for K in (1, 2, 8)} | {(64, 0.1, 1), (64, 0.1, 8)}
    assert cells[0]["OFT"].data.order == "shuffled" and cells[0]["first image"].data.first_image
    assert cells[0]["EMA, guard full"].model.guard == "full"


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_variant_differs_from_its_twin_in_the_listed_confounds_and_nothing_else(cells, variant):
    controlled, published = (version[variant] for version in cells)
    listed = {field: (c.controlled, c.published) for field, c in confounds(variant).items()}
    assert declared_difference(controlled, published) == listed
    # As computations: m reserved positions instead of 64, the window that the regime makes of K, and the K that means
    # nothing without recurrence.
    shown = difference(controlled, published)
    assert shown.keys() <= listed.keys() | {"model.reserve", "truncation"}
    assert {
        "data.labels",
        "data.statistics",
        "data.augmentation",
        "model.chunk",
        "budget.slots",
        "optimizer.clip",
    } <= shown.keys()
    assert ("truncation" in shown) == (not controlled.recurs)


def test_confounds_name_their_sections():
    text = (FOLDER.parents[1] / "docs" / "published.md").read_text()
    for confound in (CONFOUNDS | UNGUARDED).values():
        assert f"\n- {confound.section} " in text or f"\n## {confound.section} " in text
        assert confound.published != confound.controlled and confound.why


@VERSIONS
def test_within_a_version_variants_differ_in_factors_alone(version):
    table, alone = (load_study(FOLDER / file) for file in FILES[version])
    for item in table.cells():
        assert declared_difference(table.base, item.cell).keys() <= {*FACTORS, "seed"}
    both, one = (item.cell for item in alone.cells()[:2])
    assert declared_difference(both, one).keys() == difference(both, one).keys() == {"data.mixture"}
    assert both in [item.cell for item in table.cells()]  # one train id: it is trained once


@VERSIONS
def test_the_five_published_tasks_are_trained_in_one_policy_and_evaluated(version):
    table, alone = (load_study(FOLDER / file) for file in FILES[version])
    tasks = [one.task.name for one in table.base.data.datasets]
    assert sorted(tasks) == sorted(TRAINED) and all(d.episodes == 250 for d in table.base.data.datasets)
    regimes = ("rh", "ol8") if version == "published" else ("rh",)  # chunks of one action run open loop nowhere
    assert table.protocols == tuple(one for regime in regimes for one in get_protocols(f"mikasa5-{regime}@1"))
    assert {one.task for one in table.protocols} == {data.task for data in table.base.data.datasets}
    assert list(alone.variants) == ["all tasks", "RememberColor5-VLA-v0 alone"]
    assert {one.task.name for one in alone.protocols} == {"RememberColor5-VLA-v0"}
    assert alone.cells()[1].cell.data.datasets == (table.base.data.dataset,)


def test_budgets_are_matched_under_control_and_grow_with_k_as_published(cells):
    controlled, published = cells
    assert len({c.effective_budget for c in controlled.values()}) == 1
    frames = {variant: c.effective_budget.frames_per_update for variant, c in published.items()}
    assert [frames[f"m=64, K={K}"] for K in (1, 2, 8)] == [32, 64, 256] and frames["OFT"] == frames["EMA"] == 32
    assert controlled["OFT"].effective_budget.frames_per_update == 32


# Of another prompt length than DATASET's, so that batches are padded, and of longer episodes.
OTHER = DatasetConfig(TaskConfig("RecallColor3-v0", cue=(4, 5)), episodes=6)


@VERSIONS
def test_presets_fit_a_study_of_another_size(base, version):
    """On the embedded suite: not bound to the published size."""
    cell = replace(base, {"model.images": "released", "model.reserve": 64, **of_version(version)})
    for changes in [*paper_variants(version).values(), *single_task(DATASET.task.name).values()]:
        replace(cell, changes)


def test_tasks_have_the_published_shares_in_every_variant(cells, data_root):
    """Drawn episode by episode there, counted here; of single frames the shares that whole episodes give (spec 4.1)."""
    stores = [collect(one, data_root) for one in (DATASET, OTHER)]
    longer = stores[1].lengths.mean() / stores[0].lengths.mean()
    assert longer > 1
    for cell in (cell for version in cells for cell in version.values()):
        often = get_pieces_per_round(join(stores), cell.data)
        assert often == pytest.approx([1, longer if cell.data.order == "shuffled" else 1])


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """Changes of the base: a tiny OpenVLA, two tasks of the embedded suite and a tiny budget in place of the real
    ones."""
    own = {"muvla_size": dataclasses.asdict(SIZE)}
    path = released.write(tmp_path_factory.mktemp("stand in") / "base", "openvla", own=own)
    return {
        "model.size": SIZE,
        "start.checkpoint": str(path),
        "data.dataset": DATASET,
        "data.mixture": [OTHER],
        "lora.rank": 4,
        "budget.updates": 1,
        "budget.slots": 2,
    }


def _plan(file, stand_in, tmp_path, capsys):
    """Rows of the printed plan by variant: of the real tasks and budget, without data or simulator."""
    given = [f"{name}={canonical_json(stand_in[name])}" for name in ("model.size", "start.checkpoint", "lora.rank")]
    options = ["--plan", *(word for one in given for word in ("--set", one)), "--runs", str(tmp_path / "runs")]
    assert main(["sweep", str(FOLDER / file), *options, "--data", str(tmp_path / "data")]) == 0
    out = capsys.readouterr().out
    assert "mikasa-remember-color5-rh@1 (100 episodes)" in out and "The data are not collected yet" in out
    return {line.split("  ")[0]: line.split() for line in out.splitlines()}


@VERSIONS
def test_the_plan_prints_the_budgets(version, stand_in, tmp_path, capsys):
    rows = _plan(FILES[version][0], stand_in, tmp_path, capsys)
    budgets = {variant: rows[variant][-7:-1] for variant in ("OFT", "m=64, K=2", "m=64, K=8")}
    steps = ["150000", "2000"]
    if version == "controlled":
        assert set(map(tuple, budgets.values())) == {("4", "8", *steps, "32", "4,800,000")}
    else:
        assert budgets == {
            "OFT": ["32", "1", *steps, "32", "4,800,000"],
            "m=64, K=2": ["32", "2", *steps, "64", "9,600,000"],
            "m=64, K=8": ["32", "8", *steps, "256", "38,400,000"],
        }
    alone = _plan(FILES[version][1], stand_in, tmp_path, capsys)
    assert alone["all tasks"][-7:-1] == alone["RememberColor5-VLA-v0 alone"][-7:-1] == budgets["m=64, K=2"]
    assert "mixture=none" in alone["RememberColor5-VLA-v0 alone"]


def _tiny(study, stand_in, tasks):
    """One training seed of it, with the stand-ins, and a short episode of each task, in the study's regimes by turns.
    Interventions are as anywhere."""
    regimes = list({one.regime: one for one in study.protocols}.values())
    short = [
        dataclasses.replace(
            regimes[i % len(regimes)],
            name=name,
            version=1,
            task=TaskConfig(name, (1, 1), (1, 1)),
            episodes=1,
            slots=1,
            step_limit=3,
        )
        for i, name in enumerate(tasks)
    ]
    base = replace(study.base, stand_in)
    return dataclasses.replace(study, base=base, protocols=tuple(short), interventions=(), seeds=(0,))


@VERSIONS
def test_protocols_of_every_prompt_that_is_trained_fit_and_of_no_other(version, stand_in):
    table, alone = (load_study(FOLDER / file) for file in FILES[version])
    real = {name: stand_in[name] for name in ("model.size", "start.checkpoint", "lora.rank")}
    prompts = get_prompts(replace(table.base, real))
    assert len({len(prompts.encode(task_info(name).instruction)) for name in TRAINED}) > 1
    for study in (table, alone):
        dataclasses.replace(study, base=replace(study.base, real)).check()
    with refused(f"study {alone.name}, protocol {UNFITTING}: task") as info:
        dataclasses.replace(alone, base=replace(alone.base, real), protocols=table.protocols).check()
    trained_alone, (refused_task,) = (
        "RememberColor5-VLA-v0",
        [p.task.name for p in table.protocols if p.id == UNFITTING],
    )
    lengths = [len(prompts.encode(task_info(name).instruction)) for name in (trained_alone, refused_task)]
    assert str(lengths[0]) in info.value.expected and info.value.got == lengths[1]
    if version == "controlled":
        with refused("study paper_table, protocol mikasa-shell-game-push-ol8@1: h"):
            dataclasses.replace(table, base=replace(table.base, real), protocols=get_protocols("mikasa5-ol8@1")).check()


@pytest.mark.slow
@VERSIONS
def test_every_variant_runs_on_a_tiny_checkpoint(version, stand_in, tmp_path):
    """To its rows: of all variants of the table, then the one of a single task, whose like is done by then."""
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    two = (DATASET.task.name, OTHER.task.name)
    for file, tasks, ran in zip(FILES[version], (two, two[:1]), (12, 1), strict=True):
        study = _tiny(load_study(FOLDER / file), stand_in, tasks)
        study.check()
        entries = ledger.entries(study, ledger.stores(study))
        todo = [entry for entry in entries if not entry.run.folder.exists()]
        assert len(todo) == ran
        for entry in todo:
            job = Job(entry.item.label, entry.run, entry.item.cell, tuple(entry.missing()), "cpu", 1)
            assert bring_to_end(job, lambda *_: None, lambda: False) == Status.DONE, entry.run.failure
        for entry in entries:
            rows = [row for of_one in entry.complete_rows().values() for row in of_one]
            assert len(rows) == len(study.protocols) and not any(row.error for row in rows)
