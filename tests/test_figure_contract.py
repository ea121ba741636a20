"""The contract of figures, over every registered figure and over one of another package."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Drawing

from analysis.costs import NUMBERS, cost_frame
from analysis.figures.base import FRAMES, Figure, Subject, subjects_of
from analysis.figures.registry import FIGURES, figures_of, get_figure
from analysis.figures.style import COLOURS, assign_colours
from analysis.frames import tidy
from analysis.intervention_frames import grid_frame, paired_frame
from analysis.report.folder import MOST_VARIANTS, ReportFolder, save
from analysis.training_log import FIRST_DECISION
from helpers.figures import all_inside
from helpers.packages import write_package
from helpers.paths import ROOT
from helpers.rows import records, row, write
from muvla.config import no_memory, tbptt
from muvla.errors import MuvlaError
from muvla.evaluation.records import GridPoint, GridRows, TakenMeasurement

VARIANTS = ("none", "K=8", "K=2")
COLOURS_OF = assign_colours(VARIANTS)


@pytest.fixture
def cells(base):
    """Three variants of two seeds; with an intervention, a transplant and a grid of each kind on the last two."""
    made = [records(base, "none", no_memory(), seed, 6, 12, 2) for seed in (0, 1)]
    for variant, K in (("K=8", 8), ("K=2", 2)):
        for seed in (0, 1):
            cell = records(base, variant, tbptt(K, 4), seed, 12 + 4 * seed, 3, 1)
            given = [dataclasses.replace(row(i, i % 2), donor_target=1, intervention="transplant") for i in range(20)]
            cell = dataclasses.replace(cell, rows=cell.rows | {("p@1", "transplant"): given})
            made.append(dataclasses.replace(cell, grids=(_grid(cell, None), _grid(cell, "tokens"))))
    return made


def _grid(cell, y):
    points = [
        GridPoint({"step": step, "tokens": tokens}, "p@1", name, 1 / 3, cell.rows["p@1", name])
        for step in (0, 1)
        for tokens in ("all", "[0:2]")
        for name in ("none", "zero")
    ]
    return GridRows("curves@1" if y is None else "map@1", "step", y, None, "", tuple(points))


@pytest.fixture
def subjects(cells):
    """Frame → subjects: at least one of every frame."""
    protocol = {"study": "Which variants remember?", "colours": COLOURS_OF}
    chunks = pd.DataFrame(
        {"order": i, "variant": variant, "seed": 0, "intervention": name, "since_cue": since, "value": 0.1 * since}
        for i, variant in enumerate(VARIANTS)
        for name in ("zero", "transplant")
        for since in (0, 1, 2)
    )
    measured = pd.DataFrame(
        {"x": x, "y": x / 4, "curve": "a", "variant": variant, "seed": seed, "order": i}
        for i, variant in enumerate(VARIANTS)
        for seed in (0, 1)
        for x in (0, 1, 2)
    )
    taken = TakenMeasurement("m@1", "p@1", "x", "y", "curve", None, None, None, 1, "", "x")
    rates = tidy(cells)
    longer = pd.concat([rates, rates.assign(U=rates["U"] * 2)], ignore_index=True)
    updates = pd.DataFrame(
        {"order": i, "variant": variant, "label": variant, "seed": seed, "U": 400, "protocol": "p@1", "update": update}
        | {"success_rate": update / 800, "success_low": 0.1, "success_high": 0.9, "goal": 0.9}
        for i, variant in enumerate(VARIANTS)
        for seed in (0, 1)
        for update in (100, 200, 400)
    )
    delays = pd.DataFrame(
        {"order": i, "variant": variant, "seed": seed, "protocol": "p@1", "chance": 1 / 3, "delay": delay}
        | {"quantity": "accuracy", "n": 10, "rate": 0.5, "low": 0.3, "high": 0.7}
        for i, variant in enumerate(VARIANTS)
        for seed in (0, 1)
        for delay in (1, 2)
    )
    costs = pd.DataFrame(
        {"variant": variant} | dict.fromkeys(NUMBERS, f"{i + 1},000") for i, variant in enumerate(VARIANTS)
    )
    logs = pd.DataFrame(
        {"order": i, "variant": variant, "seed": seed, "update": update, "demonstrations": name, "error": 1 / update}
        for i, variant in enumerate(VARIANTS)
        for seed in (0, 1)
        for name in FIRST_DECISION.values()
        for update in (25, 50, 75)
    )
    scored = rates.assign(score=rates["choice_rate"], metric="choice")
    tasks = pd.concat([scored.assign(task="easy"), scored.assign(task="hard", score=scored["score"] / 2)])
    grids = [
        Subject(grid_frame(cells, grid.id), suffix=f"-{grid.id[:-2]}", probe=grid, **protocol)
        for grid in cells[-1].grids
    ]
    return {
        "rates": [Subject(rates, **protocol), Subject(longer, suffix="-longer", **protocol)],
        "training": [Subject(logs, **protocol)],
        "updates": [Subject(updates, **protocol)],
        "tasks": [Subject(tasks, **protocol)],
        "delays": [Subject(delays, **protocol)],
        "costs": [Subject(cost_frame(rates, costs), **protocol)],
        "paired": [Subject(paired_frame(cells), **protocol)],
        "chunks": [Subject(chunks, **protocol)],
        "grid": grids,
        "measurement": [Subject(measured, suffix="-m", probe=taken, **protocol)],
    }


def check_contract(figure: Figure, subjects: dict[str, list[Subject]], folder: Path) -> None:
    """Everything that the report relies on."""
    assert figure.frame in FRAMES
    drawn = [
        each for subject in subjects[figure.frame] for each in subjects_of(figure, subject) if figure.applies(each)
    ]
    assert drawn, "the figure applies to none of the small frames"
    stems = [figure.stem(each) for each in drawn]
    assert len(set(stems)) == len(stems) and all(re.fullmatch(r"[\w.@=,-]+", stem) for stem in stems)
    for each in drawn:
        other = figure.stem(dataclasses.replace(each, suffix="-second"))
        assert other != figure.stem(each), "two protocols would overwrite each other"
        caption = figure.caption(each)
        assert caption[0].isupper() and len(caption.split()) > 2 and "\n" not in caption
        lines = each.lines.copy()
        drawing = figure.draw(each)
        assert isinstance(drawing, Drawing) and drawing.axes and drawing.get_suptitle()
        pd.testing.assert_frame_equal(each.lines, lines)
        assert all_inside(drawing)
        _check_colours(drawing)
        contents = []
        for name in ("a", "b"):
            save(figure.draw(each), folder, name)
            contents.append([(folder / f"{name}.{suffix}").read_bytes() for suffix in ("png", "pdf")])
        assert contents[0] == contents[1], "equal lines give equal files"


def _check_colours(drawing: Drawing) -> None:
    """A line is grey or has the colour of one of the study's variants."""
    for axes in drawing.axes:
        for line in axes.lines:
            colour = to_hex(line.get_color()).upper()
            grey = len({colour[1:3], colour[3:5], colour[5:7]}) == 1
            assert grey or colour in {c.upper() for c in COLOURS_OF.values()}, colour


@pytest.mark.parametrize("name", FIGURES.members)
def test_every_registered_figure_keeps_the_contract(name, subjects, tmp_path):
    check_contract(get_figure(name), subjects, tmp_path)


def test_every_frame_has_a_figure_and_stems_are_unique(subjects):
    stems = []
    for frame in FRAMES:
        figures = figures_of(frame)
        assert figures
        for figure in figures.values():
            for subject in subjects[frame]:
                stems += [figure.stem(each) for each in subjects_of(figure, subject) if figure.applies(each)]
    assert len(set(stems)) == len(stems)


def test_a_variant_has_one_colour_in_the_figures_of_a_study(subjects):
    for name, frame in (("rates", "rates"), ("paired", "paired"), ("curves", "grid")):
        drawing = get_figure(name).draw(subjects[frame][0])
        colours = {to_hex(line.get_color()).upper() for axes in drawing.axes for line in axes.lines}
        assert COLOURS_OF["K=8"] in colours and COLOURS_OF["K=2"] in colours
    many = assign_colours(f"variant {i}" for i in range(len(COLOURS)))
    assert len(set(many.values())) == len(COLOURS)


# --- another package --------------------------------------------------------------------------------------------------


def example() -> str:
    """The worked example of docs/extending/figure.md."""
    text = (ROOT / "docs" / "extending" / "figure.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    return code


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package with one module and one entry point; takes the module's text and the entry point's name."""

    def install(code: str, name: str = "touch") -> None:
        points = {FIGURES.group: {name: "touch_figure:TouchFigure"}}
        site = write_package(tmp_path / "site", "touch-figure", {"touch_figure.py": code}, points)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, "touch_figure", raising=False)

    yield install
    sys.modules.pop("touch_figure", None)


def test_the_documented_figure_of_another_package_keeps_the_contract(installed, subjects, tmp_path):
    installed(example())
    assert FIGURES.places()["touch"] == "touch_figure:TouchFigure"
    check_contract(get_figure("touch"), subjects, tmp_path)


def test_a_report_draws_the_figure_of_another_package(installed, cells, tmp_path, unrendered):
    installed(example())
    write(cells, tmp_path)
    assert (tmp_path / "out" / "touch.png").exists()
    assert "](touch.png)" in (tmp_path / "out" / "report.md").read_text()


def test_a_stem_that_is_taken_is_refused(installed, cells, tmp_path, unrendered):
    installed(example().replace('"touch" + subject.suffix', '"choice" + subject.suffix'), name="mine")
    with pytest.raises(MuvlaError) as info:
        write(cells, tmp_path)
    assert info.value.field == "figure mine: stem" and info.value.got == "choice"


@pytest.mark.parametrize("more", [0, 1])
def test_a_study_of_too_many_variants_has_no_figures(tmp_path, monkeypatch, more):
    variants = [f"lr {i}" for i in range(MOST_VARIANTS + more)]
    lines = pd.DataFrame({"variant": variants, "order": range(len(variants))})
    folder = ReportFolder(tmp_path, "a study", assign_colours(variants), print)
    drawn = []
    monkeypatch.setattr("analysis.report.folder.figures_of", lambda frame: drawn.append(frame) or {})
    said = folder.pictures("rates", Subject(lines))
    assert len(said) == more and len(drawn) == 1 - more


def test_a_class_that_is_no_figure_is_refused(installed):
    installed("class TouchFigure:\n    pass\n")
    with pytest.raises(MuvlaError) as info:
        get_figure("touch")
    assert info.value.field == "figure touch"


def test_an_unknown_figure_names_the_nearest(monkeypatch):
    with pytest.raises(MuvlaError) as info:
        get_figure("pared")
    assert info.value.field == "figure" and "paired" in info.value.remedy
