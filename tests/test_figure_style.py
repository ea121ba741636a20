"""The style of a paper's figures, the figures on updates, delay and cost, and committed pictures that are current."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from analysis.costs import cost_frame
from analysis.delays import delay_frame
from analysis.figures import style
from analysis.figures.base import Subject, subjects_of
from analysis.figures.digest import KEY, data_digest
from analysis.figures.panels import variant_panels
from analysis.figures.registry import figures_of, get_figure
from analysis.frames import read_cells, tidy
from analysis.report.committed import subjects
from analysis.report.costs import cost_section
from analysis.report.folder import ReportFolder, save
from helpers.paths import ROOT
from helpers.rows import records
from muvla.config import tbptt
from sweeps.loader import load_study

QUICK = ROOT / "experiments" / "recall_quick"
CAUSALITY = ROOT / "experiments" / "recall_causality"
FILES = {  # folder of results → file of the study
    QUICK / "results": "study.py",
    ROOT / "experiments" / "recall_budget" / "results": "study.py",
    ROOT / "experiments" / "recall_width" / "results": "study.py",
    CAUSALITY / "results": "study.py",
    CAUSALITY / "results-mikasa": "mikasa.py",
    ROOT / "experiments" / "mikasa_quick" / "results": "study.py",
    ROOT / "experiments" / "calibration" / "results": "study.py",
    ROOT / "experiments" / "recall_twins" / "results": "position3.py",
}


def drawable(folder):
    """(stem, function that draws) of every figure of a committed study."""
    study = load_study(folder.parent / FILES[folder])
    for name, subject in subjects(study, folder):
        for figure in figures_of(name).values():
            for each in subjects_of(figure, subject):
                if figure.applies(each):
                    yield figure.stem(each), lambda figure=figure, each=each: figure.draw(each)


def digest_of(picture):
    with Image.open(picture) as image:
        return image.text[KEY]


@pytest.fixture(scope="module")
def quick():
    return dict(drawable(QUICK / "results"))


def test_the_committed_picture_of_the_main_result_is_current(quick):
    assert data_digest(quick["choice"]()) == digest_of(QUICK / "results" / "choice.png")


@pytest.mark.paper
@pytest.mark.parametrize("folder", FILES, ids=lambda path: "-".join(path.parts[-2:]))
def test_every_committed_picture_is_current(folder):
    drawn = dict(drawable(folder))
    assert {path.stem for path in folder.glob("*.png")} == set(drawn) | pictures_without_csv(folder)
    for stem, draw in drawn.items():
        assert data_digest(draw()) == digest_of(folder / f"{stem}.png"), stem


def pictures_without_csv(folder):
    """Attention has a picture and no CSV file in committed results."""
    return {path.stem for path in folder.glob("probe-attention-*.png") if not path.with_suffix(".csv").exists()}


def test_another_number_gives_another_digest_and_another_style_does_not():
    rates = read_cells(QUICK / "results" / "cells.csv")
    figure = get_figure("rates")
    before = data_digest(figure.draw(Subject(rates)))
    assert (
        data_digest(figure.draw(Subject(rates, study="a title", colours=dict.fromkeys(rates["variant"], "k"))))
        == before
    )
    changed = rates.assign(choice_rate=rates["choice_rate"].where(rates.index != 0, 0.5))
    assert data_digest(figure.draw(Subject(changed))) != before


def test_figures_have_a_paper_s_width_letters_and_fonts(quick, tmp_path):
    for stem in ("choice", "interventions", "updates"):
        drawing = quick[stem]()
        width, height = drawing.get_size_inches()
        assert width in (style.COLUMN, style.PAGE) and height <= style.TALLEST
        sizes = {text.get_fontsize() for text in drawing.findobj(Text) if text.get_text().strip()}
        assert sizes <= {7, 8}, (stem, sizes)
    save(quick["choice"](), tmp_path, "choice")
    pdf = (tmp_path / "choice.pdf").read_bytes()
    assert b"/Type3" not in pdf and b"/CIDFontType2" in pdf


@pytest.mark.parametrize("stem", ["choice", "interventions", "updates", "paired", "delay", "chunks"])
def test_names_of_many_panels_lie_apart_inside_the_figure(quick, stem):
    """recall_quick has 12 variants of two training lengths."""
    drawing = quick[stem]()
    canvas = FigureCanvasAgg(drawing)
    canvas.draw()
    visible = [axes for axes in drawing.axes if axes.get_visible() and axes.get_title()]
    names = [axes.title.get_window_extent(canvas.get_renderer()) for axes in visible]
    assert names and all(drawing.bbox.contains(*corner) for name in names for corner in (name.min, name.max))
    assert not [(one, other) for i, one in enumerate(names) for other in names[i + 1 :] if one.overlaps(other)]
    assert all(axes.get_window_extent().height > 0.3 * drawing.dpi for axes in visible)


def test_the_legend_names_shams_where_there_are_some(quick):
    with_shams = dict(drawable(ROOT / "experiments" / "recall_width" / "results"))
    for drawing, expected in ((quick["paired"](), False), (with_shams["paired"](), True)):
        assert ("sham" in [text.get_text() for text in drawing.legends[0].get_texts()]) == expected


def test_a_name_breaks_at_commas_and_then_at_words():
    _, panels = variant_panels(["recorded, EMA 0.1, U=400", "a very long name of one part"] * 4, (1.2, 1.3), (0.8, 1.2))
    names = [axes.get_title() for axes in panels[0]]
    assert names[:2] == ["recorded, EMA 0.1,\nU=400", "a very long name\nof one part"] and panels.shape == (1, 8)


def test_a_paper_s_picture_has_no_title(quick, tmp_path):
    drawing = quick["choice"]()
    assert drawing.get_suptitle()
    save(drawing, tmp_path, "choice")
    assert not drawing.get_suptitle()


def test_interventions_fit_a_page_and_tell_every_seed_apart():
    rates = read_cells(CAUSALITY / "results" / "cells.csv")
    drawing = get_figure("interventions").draw(Subject(rates))
    (image,) = drawing.axes[0].images
    assert image.get_array().shape == (31, 4 * 5)
    line = rates[(rates["variant"] == "K=1") & (rates["intervention"] == "zero") & (rates["seed"] == 3)].iloc[0]
    labels = [label.get_text().strip() for label in drawing.axes[0].get_yticklabels()]
    assert image.get_array()[labels.index("zero"), 5 + 3] == line["choice_rate"]
    assert labels[labels.index("transplant") + 1] == "sham: transplant_same"


def test_more_seeds_than_marks_have_one_mark_and_one_entry():
    seeds = range(len(style.MARKS) + 1)
    assert {style.mark_of(seed, seeds) for seed in seeds} == {style.MARKS[0]}
    assert [handle.get_label() for handle in style.seed_handles(seeds)] == ["one of 11 training seeds"]
    assert style.seeds_text(seeds) == "0 to 10" and style.seeds_text([0, 1, 2]) == "0, 1, 2"
    assert len({style.mark_of(seed, range(10)) for seed in range(10)}) == len(style.seed_handles(range(10))) == 10


def test_updates_are_drawn_where_a_variant_has_several_lengths(quick):
    figure = get_figure("updates")
    assert not figure.applies(Subject(read_cells(CAUSALITY / "results" / "cells.csv")))
    axes = next(axes for axes in quick["updates"]().axes if axes.get_title() == "K=2")
    rates = read_cells(QUICK / "results" / "cells.csv")
    plain = rates[(rates["variant"] == "K=2") & (rates["intervention"] == "none") & (rates["seed"] == 1)].sort_values(
        "U"
    )
    assert axes.lines[1].get_xydata().tolist() == plain[["U", "success_rate"]].values.tolist()


def test_accuracy_against_delay_counts_the_episodes_of_each_delay(base):
    cell = records(base, "K=8", tbptt(8, 4), 0, 12, 4, 4, kinds=("none",))
    rows = [
        dataclasses.replace(row, delay_length=1 + i % 2, choice=row.target if i % 2 else -1)
        for i, row in enumerate(cell.rows["p@1", "none"])
    ]
    frame = delay_frame([dataclasses.replace(cell, rows={("p@1", "none"): rows})])
    assert frame["delay"].tolist() == [1, 2] and frame["n"].tolist() == [0, 10]
    assert pd.isna(frame["rate"].iloc[0]) and frame["rate"].iloc[1] == 1.0
    figure = get_figure("delay")
    assert figure.applies(Subject(frame)) and not figure.applies(Subject(frame.head(1)))
    assert figure.draw(Subject(frame)).axes[0].get_title() == "K=8"


def test_accuracy_against_cost_joins_the_variants_costs(base):
    cells = [records(base, name, tbptt(8, 4), 0, 18, 1, 1, kinds=("none",)) for name in ("K=8", "K=2", "other")]
    costs = pd.DataFrame(
        {"variant": name, "parameters": "1", "MEMORY tokens": "4", "memory FLOPs/tick": "0", "bytes/slot": "1,024"}
        | {"model FLOPs/tick": flops}
        for name, flops in (("K=8", "1,000"), ("K=2", "2,000"))
    )
    frame = cost_frame(tidy(cells), costs)
    assert frame["model FLOPs/tick"].tolist() == [1000, 2000] and set(frame["variant"]) == {"K=8", "K=2"}
    figure = get_figure("cost")
    assert figure.applies(Subject(frame)) and not figure.applies(Subject(frame.head(1)))
    panels = figure.draw(Subject(frame)).axes
    assert [line.get_xdata()[0] for line in panels[0].lines if line.get_marker() == "o"] == [1000, 2000]


def test_a_report_without_costs_says_so(tmp_path):
    folder = ReportFolder(tmp_path, "s", {}, lambda _: None)
    assert "Not known" in "".join(cost_section(folder, (), pd.DataFrame()))


def test_a_heat_table_of_a_probe_has_letters_of_seven_points_and_wide_fields():
    drawn = dict(drawable(CAUSALITY / "results"))
    drawing = drawn["probe-time-map-k-8"]()
    sizes = {text.get_fontsize() for text in drawing.findobj(Text) if text.get_text().strip()}
    assert min(sizes) >= 7, sizes
    FigureCanvasAgg(drawing).draw()
    means = drawing.axes[0]
    field = means.get_window_extent().width / means.images[0].get_array().shape[1]
    widths = [text.get_window_extent().width for axes in drawing.axes for text in axes.texts]
    assert 0 < max(widths) < field, "a number fits into its field"
