"""The planned studies on memories: controls, emptied twins, interventions and probes that the READMEs promise."""

import pytest

from helpers.paths import ROOT
from muvla.config import canonical
from muvla.config.serialization import difference
from sweeps.loader import load_study

LADDER = ROOT / "experiments/memory_ladder"
RUNGS = ("position3", "position3_delay5", "overwrite3", "sequence3")
COMMON = {"zero", "empty", "noise_matched", "transplant", "transplant_same", "freeze@cue_end.."}


@pytest.mark.parametrize("rung", RUNGS)
def test_a_rung_has_its_controls_twins_interventions_and_probe(rung):
    study = load_study(LADDER / f"{rung}.py")
    cells = {item.variant: item.cell for item in study.of_one_seed}
    assert set(study.interventions) == COMMON and len(study.seeds) == 5
    assert cells["target in words"].data.instruction == "with_target"
    references = dict(study.contrast_pairs)
    mechanisms = {name for name, cell in cells.items() if cell.recurs and "emptied" not in name}
    assert mechanisms == references.keys(), "every mechanism is compared with its emptied twin"
    assert not any(cells[name].recurs for name in references.values())
    measured = {name for name, cell in cells.items() if study.measurements_of(cell)}
    assert measured <= {"bank", "bank, emptied"} and "bank" in measured


@pytest.mark.parametrize("rung", RUNGS)
def test_the_twin_of_a_rung_has_its_recipe_and_budget(rung):
    study, twin = (load_study(LADDER / f"{rung}{suffix}.py") for suffix in ("", "_twin"))
    twin.check()
    (item,) = twin.cells()
    none = next(each.cell for each in study.of_one_seed if each.variant == "none")
    assert difference(canonical(none), canonical(item.cell)) == {"data.dataset.task.observable": (None, True)}
    assert (twin.protocols[0].seed, twin.protocols[0].episodes) == (
        study.protocols[0].seed,
        study.protocols[0].episodes,
    )
    assert twin.protocols[0].task == item.cell.data.dataset.task


def test_the_width_study_has_its_controls():
    study = load_study(ROOT / "experiments/recall_width")
    cells = {item.variant: item.cell for item in study.of_one_seed}
    assert {cell.memory.m for cell in cells.values() if cell.recurs} == {1, 2, 4, 8, 16}
    assert {(cell.truncation) for cell in cells.values() if cell.recurs} == {2, 8}
    assert cells["target in words"].data.instruction == "with_target" and cells["dummy"].memory.kind == "dummy"
    assert len(study.contrast_pairs) == 6 and len(study.seeds) == 5


def test_the_chunk_study_crosses_chunk_labels_memory_and_tick():
    study = load_study(ROOT / "experiments/recall_chunks")
    cells = [item.cell for item in study.of_one_seed]
    trained = {(cell.model.chunk, cell.data.labels) for cell in cells if cell.recurs}
    assert trained == {(H, labels) for H in (1, 4, 8) for labels in ("executed", "recorded")}
    (grid,) = study.probes
    points = [(dict(point.coordinates), point.intervention) for point in grid.points]
    assert {where["h"] for where, _ in points} == {1, 2, 4, 8}
    assert {where["tick"] for where, _ in points} == {"call", "env_step"}
    assert {intervention for _, intervention in points} == {"none", "zero", "drop"}
