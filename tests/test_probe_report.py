"""What a report makes of interventions, grids and readings: what it says of the missing, and how it is laid out."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from analysis import tables
from analysis.figures.heatmap import FEW
from analysis.figures.style import TALLEST
from analysis.frames import NEVER_FIRED, file_names, file_stems, tidy
from analysis.intervention_frames import grid_frame, paired_frame, quantities_of
from analysis.intervention_tables import difference_table, follow_table, short_difference_table, short_follow_table
from analysis.paired import QUANTITY_TITLES, difference
from analysis.verdicts import verdict_frame, verdict_table
from helpers.figures import all_inside, draw, legend_of, texts
from helpers.rows import records, row, write
from muvla.config import dummy, tbptt
from muvla.evaluation.records import GridPoint, GridRows, TakenMeasurement
from muvla.probes import attention, dynamics
from muvla.probes import linear_probes as decoders
from muvla.probes.base import RESERVED
from sweeps.predictions import Prediction

LATE = "zero@first_decision+11"
KINDS = ("none", "zero", "drop", "mean", "empty")


@pytest.fixture
def cells(base):
    """Two variants of two training seeds; something never fired in one cell of them, in all of the other variant."""
    late = (("p@1", LATE),)
    kinds = (*KINDS, LATE)
    one, other = (records(base, "K=8", tbptt(8, 4), seed, 18, 1, 1, kinds=kinds) for seed in (0, 1))
    other.rows.pop(("p@1", LATE))
    idle = [records(base, "dummy", dummy(4), seed, 6, 12, 2, kinds=KINDS) for seed in (0, 1)]
    return [one, *(dataclasses.replace(cell, never_fired=late) for cell in (other, *idle))]


# --- the block --------------------------------------------------------------------------------------------------------


def test_the_report_has_each_intervention_short_and_a_file_has_all_of_them(cells, tmp_path, unrendered):
    write(cells, tmp_path)
    report, by_seed = ((tmp_path / "out" / name).read_text() for name in ("report.md", "by-seed.md"))
    assert "[by-seed.md](by-seed.md)" in report
    assert "| none | 0.95 / 0.95 | 0.33 / 0.33 |" in report
    assert f"| `{LATE}` | 0.95 / {NEVER_FIRED} | {NEVER_FIRED} |" in report
    for kind in KINDS[1:]:
        assert f"under `{kind}`" not in report and f"| `{kind}` |" in report
        assert f"First-touch accuracy given a touch under `{kind}`:" in by_seed
    assert "0.95 [0.75, 0.99] 18/19" in by_seed and "untrained" not in by_seed
    for title in QUANTITY_TITLES.values():
        assert (f"Paired difference of {title}" in report) == (title != QUANTITY_TITLES["follow"])


def test_no_number_of_an_intervention_is_lost(cells, tmp_path, unrendered):
    """Every interval and count that a table by seed or of differences had is in the file."""
    write(cells, tmp_path)
    by_seed = (tmp_path / "out" / "by-seed.md").read_text()
    frame, changed = tidy(cells), paired_frame(cells)
    for kind in (*KINDS[1:], LATE):
        assert tables.to_markdown(tables.by_seed(frame, "choice", kind, counts=True)) in by_seed
    for quantity in ("choice", "own", "success"):
        assert tables.to_markdown(difference_table(changed, quantity)) in by_seed


def test_follow_rates_stand_in_one_row_and_their_shares_in_the_file(base, tmp_path, unrendered):
    cells = []
    for seed in (0, 1, 2):
        cell = records(base, "K=8", tbptt(8, 4), seed, 18, 2, 0, kinds=("none",))
        given = [dataclasses.replace(row(i, 1), donor_target=1, intervention="transplant") for i in range(20)]
        of_seed = ({"rows": cell.rows | {("p@1", "transplant"): given}}, {"never_fired": (("p@1", "transplant"),)}, {})
        cells.append(dataclasses.replace(cell, **of_seed[seed]))
    write(cells, tmp_path)
    (line,) = short_follow_table(paired_frame(cells)).to_dict("records")
    assert line["seed 0"].startswith("1.00 (+0.90 [") and line["seed 1"] == NEVER_FIRED and "seed 2" not in line
    text = (tmp_path / "out" / "report.md").read_text()
    assert line["seed 0"] in text and "0.00 / 1.00 / 0.00 / 0.00" not in text
    full = follow_table(paired_frame(cells)).set_index("seed")
    assert full.loc[1].tolist() == ["K=8", "`transplant`", NEVER_FIRED, "–", NEVER_FIRED, NEVER_FIRED]
    assert f"| K=8 | `transplant` | 1 | {NEVER_FIRED} |" in (tmp_path / "out" / "by-seed.md").read_text()
    figure = draw("follow", paired_frame(cells))
    assert texts(figure.axes[0]) == [NEVER_FIRED] and "training seed 1" in legend_of(figure)
    assert "0.00 / 1.00 / 0.00 / 0.00" in (tmp_path / "out" / "by-seed.md").read_text()


def test_a_study_without_interventions_has_rates_alone(base, tmp_path, unrendered):
    write([records(base, "K=8", tbptt(8, 4), 0, 18, 1, 1, kinds=("none",))], tmp_path)
    text = (tmp_path / "out" / "by-seed.md").read_text()
    assert "0.95 [0.75, 0.99] 18/19" in text and "Paired" not in text
    assert "Paired" not in (tmp_path / "out" / "report.md").read_text()


# --- what never fired -------------------------------------------------------------------------------------------------


def test_what_never_fired_says_so_in_every_table(cells):
    frame, changed = tidy(cells), paired_frame(cells)
    assert tables.by_seed(frame, "choice", LATE).iloc[0].to_dict() == {
        "variant": "K=8",
        "seed 0": "0.95 [0.75, 0.99]",
        "seed 1": NEVER_FIRED,
    }
    assert list(tables.intervention_table(frame)[LATE]) == ["0.95 [0.75, 0.99]", *[NEVER_FIRED] * 3]
    late = difference_table(changed, "choice").query(f"intervention == '`{LATE}`'")
    assert list(late["seed 1"]) == [NEVER_FIRED] * 2 and late.iloc[0]["seed 0"].startswith("+0.00")
    short = short_difference_table(changed, "own").set_index("intervention").loc[f"`{LATE}`"]
    assert short.to_dict() == {"K=8": f"+0.00 / {NEVER_FIRED}", "dummy": NEVER_FIRED}
    lost = [dataclasses.replace(cell, never_fired=()) for cell in cells]
    assert tables.short_intervention_table(tidy(lost)).iloc[-1].tolist() == [f"`{LATE}`", "0.95 / not run", "not run"]


def test_a_mean_over_a_set_that_never_fired_is_no_missing_one(cells):
    frame = tidy([dataclasses.replace(cell, sets={"s@1": ("p@1",)}) for cell in cells])
    means = tables.set_table(frame, {"s@1": ("p@1",)})
    assert list(means[LATE]) == ["0.90 over 1", *[NEVER_FIRED] * 3]


def test_what_never_fired_says_so_in_every_figure(cells):
    frame = tidy(cells)
    figure = draw("interventions", frame)
    assert NEVER_FIRED in texts(figure.axes[0]) and "0/20" not in figure.get_suptitle()
    figure = draw("paired", paired_frame(cells))
    used, idle = figure.axes
    assert texts(used) == [NEVER_FIRED] and texts(idle) == [NEVER_FIRED] * 2
    assert "no pair of episodes to compare" not in legend_of(figure)


def test_a_choice_task_is_of_choices_though_all_that_intervenes_never_fired(cells):
    idle = dataclasses.replace(cells[-1], rows={("p@1", "none"): cells[-1].rows["p@1", "none"]})
    lines = paired_frame([idle])
    assert lines["never_fired"].all() and quantities_of(lines) == ("choice", "own", "success")
    bare = [dataclasses.replace(r, target=None, choice=-1) for r in idle.rows["p@1", "none"]]
    assert quantities_of(paired_frame([dataclasses.replace(idle, rows={("p@1", "none"): bare})])) == ("success",)


def test_a_prediction_of_what_never_fired_says_so_and_stays_undecided(cells):
    cells[0].rows["p@1", LATE] = cells[0].rows["p@1", "none"] = cells[0].rows["p@1", "zero"] = episodes(30, 30)
    one = Prediction("too late", ("K=8",), LATE, "null")
    found = verdict_frame(cells, [one])
    assert list(found["effect"]) == ["+0.00 n 30", NEVER_FIRED]
    assert set(found["together"]) == {"undecided (never fired in 1 of 2 seeds)"}
    assert verdict_table(found).iloc[0]["seed 1"] == NEVER_FIRED
    against = dataclasses.replace(one, intervention="zero", versus=LATE)
    assert list(verdict_frame(cells, [against])["effect"]) == ["+0.00 n 30", NEVER_FIRED]


def test_a_prediction_of_a_grids_point_that_never_fired_says_so(base):
    cell = gridded(records(base, "K=8", tbptt(8, 4), 0, 18, 1, 1), MAP | {("[0:2]", 1): None})
    one = Prediction("too late", ("K=8",), "zero[0:2]@1", "null")
    assert list(verdict_frame([cell], [one])["effect"]) == [NEVER_FIRED]


# --- grids ------------------------------------------------------------------------------------------------------------

# (tokens, step) → own target of 30 episodes, how many were touched; the plain run has 27 of 30
MAP = {("all", 0): (10, 30), ("all", 1): (27, 30), ("[0:2]", 0): (9, FEW - 1), ("[0:2]", 1): (0, 0)}


def episodes(right, touched, protocol="p@1", kind="none"):
    choices = [0] * right + [1] * (touched - right) + [-1] * (30 - touched)
    return [dataclasses.replace(row(i, c), protocol=protocol, intervention=kind) for i, c in enumerate(choices)]


def gridded(cell, points):
    held = [
        GridPoint({"kind": "none", "step": step, "tokens": "all"}, "p@1", "none", 1 / 3, episodes(27, 30))
        for step in (0, 1)
    ]
    for (tokens, step), counts in points.items():
        name = f"zero{tokens.removeprefix('all')}@{step}"
        rows = [] if counts is None else episodes(*counts, kind=name)
        at = {"kind": "zero", "step": step, "tokens": tokens}
        held.append(GridPoint(at, "p@1", name, 1 / 3, rows, counts is None))
    grid = GridRows("map@1", "step", "tokens", "kind", "", tuple(held))
    return dataclasses.replace(cell, grids=(grid,))


def test_a_grid_has_the_paired_differences_from_its_own_plain_point(base):
    cell = gridded(records(base, "K=8", tbptt(8, 4), 0, 18, 1, 1), MAP)
    frame = grid_frame([cell], "map@1")
    told = frame.set_index(["condition", "step"])[["difference", "difference_low", "difference_high", "difference_n"]]
    assert told.loc["none"][["difference", "difference_n"]].to_numpy().tolist() == pytest.approx(
        np.array([[np.nan, 0]] * 2), nan_ok=True
    )
    for (tokens, step), counts in MAP.items():
        name = f"zero{tokens.removeprefix('all')}@{step}"
        expected = difference(episodes(27, 30), episodes(*counts), "choice")
        found = told.loc[(name, step)].tolist()
        assert found == pytest.approx([expected.value, expected.low, expected.high, expected.n], nan_ok=True)


def test_a_grid_without_plain_point_has_no_differences(base):
    cell = gridded(records(base, "K=8", tbptt(8, 4), 0, 18, 1, 1), MAP)
    bare = dataclasses.replace(cell.grids[0], points=cell.grids[0].points[2:])
    frame = grid_frame([dataclasses.replace(cell, grids=(bare,))], "map@1")
    assert not frame["difference_n"].any() and frame["difference"].isna().all()
    figure = draw("heatmap", frame, variant="K=8", probe=bare)
    assert len([axes for axes in figure.axes if axes.images]) == 2, "rates alone, of the mean and of the seed"


def test_a_heatmap_shows_rates_then_differences_and_greys_what_few_episodes_tell(base):
    cells = [gridded(records(base, "K=8", tbptt(8, 4), seed, 18, 1, 1), MAP) for seed in (0, 1)]
    cells[1] = gridded(cells[1], MAP | {("all", 0): None})
    figure = draw("heatmap", grid_frame(cells, "map@1"), variant="K=8", probe=cells[0].grids[0])
    panels = [axes for axes in figure.axes if axes.images]
    by_row = [panels[i : i + 3] for i in range(0, len(panels), 3)]
    assert [texts(row[1]) for row in by_row] == [[], ["–"], ["–"]], "a seed's panel has colours alone"
    assert texts(by_row[1][2])[0] == "×" and texts(by_row[1][0])[0] == ".33\n1/2", "over what has fired"
    assert texts(by_row[2][0])[0] == "-.57\n1/2" and texts(by_row[1][0])[2] == f".47\nn {FEW - 1}"
    assert [len([p for p in row[0].patches if p.get_hatch() == "...."]) for row in by_row] == [0, 1, 1]
    assert [axes.images[0].get_cmap().name for axes in (by_row[0][0], by_row[2][0])] == ["viridis", "RdBu"]
    assert by_row[2][0].images[0].get_clim() == (-1, 1)
    assert [len([p for p in row[1].patches if p.get_hatch()]) for row in by_row] == [0, 1, 1]
    assert [text.split(":")[0] for text in legend_of(figure)] == [
        f"fewer than {FEW} episodes",
        "k/N",
        "no episode counts",
        NEVER_FIRED,
    ]
    labels = [axes.get_ylabel().replace("\n", " ") for axes in figure.axes if not axes.images]
    assert [label.split(",")[0] for label in labels] == ["first-touch accuracy given a touch", "paired difference"]
    assert all_inside(figure)


def test_where_every_field_has_its_episodes_nothing_is_explained(base):
    full = {key: (20, 30) for key in MAP}
    cell = gridded(records(base, "K=8", tbptt(8, 4), 0, 18, 1, 1), full)
    figure = draw("heatmap", grid_frame([cell], "map@1"), variant="K=8", probe=cell.grids[0])
    assert not figure.legends and not [p for axes in figure.axes for p in axes.patches if p.get_hatch()]


def test_a_field_says_of_how_many_seeds_what_has_no_rate_is_told(base):
    """Of three seeds, in one of which nothing ran yet."""
    cells = [gridded(records(base, "K=8", tbptt(8, 4), seed, 18, 1, 1), MAP) for seed in (0, 1, 2)]
    cells[0] = gridded(cells[0], MAP | {("[0:2]", 0): None})
    cells[1] = gridded(cells[1], MAP | {("[0:2]", 0): None, ("[0:2]", 1): None})
    cells[2] = dataclasses.replace(cells[2], variant="K=1")
    figure = draw("heatmap", grid_frame(cells, "map@1"), variant="K=8", probe=cells[0].grids[0])
    panels = [axes for axes in figure.axes if axes.images]
    assert texts(panels[4]) == [".33\n2/3", ".90\n2/3", "×\n2/3", "–\n1/3"]
    assert texts(panels[7]) == ["not run"] and all_inside(figure)


def curves(base, xs, chunk=2, seeds=1):
    """A grid of one curve: x → own target of 30 episodes, several of some; by seed; None where it never fired."""
    cells = []
    for seed in range(seeds):
        told = [(x, right[seed] if isinstance(right, tuple) else right) for x, right in xs]
        points = tuple(
            GridPoint(
                {"h": x, "memory": "active"},
                f"p{i}@1",
                "none",
                1 / 3,
                [] if right is None else episodes(right, 30, f"p{i}@1"),
                right is None,
            )
            for i, (x, right) in enumerate(told)
        )
        grid = GridRows("lengths@1", "h", None, "memory", "", points)
        cell = records(base, "K=8", tbptt(8, 4) | {"model.chunk": chunk}, seed, 18, 1, 1)
        cells.append(dataclasses.replace(cell, grids=(grid,)))
    frame = grid_frame(cells, "lengths@1")
    return frame, draw("curves", frame, probe=grid)


def test_a_curve_says_where_it_never_fired_and_is_broken_there(base):
    _, figure = curves(base, [(1, 27), (2, None), (3, (9, None)), (4, 9)], chunk=4, seeds=2)
    for axes in figure.axes:
        assert texts(axes) == [NEVER_FIRED, f"{NEVER_FIRED}: 1 of 2"]
        assert [text.xy[0] for text in axes.texts] == [1, 2] and all(text.get_rotation() == 90 for text in axes.texts)
    one, other = (line.get_ydata() for line in figure.axes[0].lines)
    np.testing.assert_allclose(one, [0.9, np.nan, 0.3, 0.3])
    np.testing.assert_allclose(other, [0.9, np.nan, np.nan, 0.3])
    _, figure = curves(base, [(1, None), (4, None)])
    assert texts(figure.axes[0]) == [NEVER_FIRED] * 2 and not figure.axes[0].lines and all_inside(figure)


def test_where_some_point_has_an_h_every_line_says_whether_its_chunk_is_held(base):
    frame, _ = curves(base, [("all", 27), (2, 27), (4, None)])
    assert frame["held"].dtype == bool and frame["held"].tolist() == [False, False, True]
    assert "held" not in curves(base, [("all", 27)])[0]


def test_no_coordinate_has_the_name_of_a_grids_own_column(base):
    frame, _ = curves(base, [(1, 27)])
    assert all(RESERVED.fullmatch(column) for column in set(frame.columns) - {"h", "memory"})


def test_several_points_at_one_x_are_marks_and_the_line_goes_through_their_mean(base):
    _, figure = curves(base, [(1, 27), (2, 30), (2, 15), (2, 9)])
    axes = figure.axes[0]
    singles, line = [one for one in axes.lines if len(one.get_xdata())]
    assert singles.get_linestyle() == "None" and sorted(singles.get_ydata()) == [0.3, 0.5, 1.0]
    assert line.get_ydata().tolist() == pytest.approx([0.9, 0.6]) and line.get_linestyle() == "-"
    assert singles.get_markersize() < line.get_markersize()
    assert "one of several points at one x; the line: their mean" in legend_of(figure)
    _, figure = curves(base, [(1, 27), (2, 30)])
    assert len(figure.axes[0].lines) == 1 and not [t for t in legend_of(figure) if "several" in t]


def test_what_is_executed_beyond_the_chunk_is_hollow(base):
    frame, figure = curves(base, [(1, 27), (2, 27), (4, 9)])
    assert frame[["H", "held"]].to_numpy().tolist() == [[2, False], [2, False], [2, True]]
    line, hollow = figure.axes[0].lines
    assert line.get_markevery() == [0, 1] and hollow.get_xdata().tolist() == [2]
    assert to_hex(hollow.get_markerfacecolor()) == "#ffffff" and "H=2" in figure.axes[0].get_title()
    assert "h beyond the chunk H: its last action is held" in legend_of(figure)
    assert all_inside(curves(base, [(1, 27), (2, 27), (2, 9), (4, 9)])[1]), "with all that a legend can hold"
    _, figure = curves(base, [(1, 27), (2, 27), (4, 9)], chunk=4)
    assert len(figure.axes[0].lines) == 1 and not [t for t in legend_of(figure) if "beyond" in t]


# --- readings ---------------------------------------------------------------------------------------------------------


def read(**changes):
    told = TakenMeasurement("r@1", "p@1", "x", "y", "curve", None, None, "even_share", 1, "", "x")
    frame = pd.DataFrame(
        {
            "x": [0, 1] * 2,
            "y": [0.1, 0.2, 0.3, 0.2],
            "curve": ["a", "a", "b", "b"],
            "even_share": [0.4, 0.4, 0.5, 0.5],
            "variant": "K=8",
            "seed": 0,
            "order": 0,
        }
    )
    return draw("measurement", frame, probe=dataclasses.replace(told, **changes))


def test_shares_are_drawn_from_0_to_1_and_what_else_is_read_as_it_comes():
    assert {axes.get_ylim() for axes in read(share=True).axes} == {(-0.02, 1.02)}
    assert all(axes.get_ylim()[1] < 0.6 for axes in read().axes)
    assert attention.ATTENTION.share and decoders.DECODERS.share and not dynamics.DYNAMICS.share


def test_the_bound_that_a_reading_declares_is_dashed_and_named():
    figure = read()
    dashed = [line.get_ydata().tolist() for axes in figure.axes for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed == [[0.4, 0.4], [0.5, 0.5]] and "even share, mean over seeds" in legend_of(figure)
    assert attention.ATTENTION.chance == "uniform" and "uniform" in attention.ATTENTION.columns


def test_chunks_are_one_page_of_one_scale_with_every_name(base):
    variants = [f"K={k}" for k in range(1, 9)]
    names = [f"lesion({i})" for i in range(8)] + ["transplant", "transplant_same"]
    lines = [
        {"order": 0, "variant": variant, "seed": seed, "intervention": name, "since_cue": since, "value": 0.1 * i}
        for i, name in enumerate(names)
        for variant in variants
        for seed in (0, 1)
        for since in (0, 1)
    ]
    figure = draw("chunks", pd.DataFrame(lines))
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == variants
    labels = [label.get_text().strip() for label in panels[0].get_yticklabels()]
    assert labels == [*names[:9], "sham: transplant_same"]
    assert len({axes.images[0].get_clim() for axes in panels}) == 1
    assert all(axes.images[0].get_array().shape == (len(names) * 2, 2) for axes in panels)
    assert figure.get_figheight() <= TALLEST


# --- names ------------------------------------------------------------------------------------------------------------


def test_names_of_files_have_a_version_only_where_another_differs_in_nothing_else():
    assert file_names(["map@1", "map@2", "shift@1"]) == {"map@1": "map@1", "map@2": "map@2", "shift@1": "shift"}
    assert file_stems(["p@1", "p@2"]) == {"p@1": "-p@1", "p@2": "-p@2"} and file_stems(["p@1", "p@1"]) == {"p@1": ""}


def test_versions_of_a_probe_and_of_a_protocol_have_files_of_their_own(base, tmp_path, unrendered):
    cell = gridded(records(base, "K=8", tbptt(8, 4), 0, 18, 1, 1), MAP)
    rows = {(name, kind): found for (_, kind), found in cell.rows.items() for name in ("p@1", "p@2")}
    taken = [
        TakenMeasurement("r@1", name, "x", "y", None, None, None, None, 1, "x,y\n0,1\n", "x") for name in ("p@1", "p@2")
    ]
    cell = dataclasses.replace(
        cell,
        rows=rows,
        chance={"p@1": 1 / 3, "p@2": 1 / 3},
        measurements=tuple(taken),
        grids=(cell.grids[0], dataclasses.replace(cell.grids[0], id="map@2")),
    )
    write([cell], tmp_path)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {
        "main-p@1.md",
        "main-p@2.md",
        "paired-p@1.png",
        "paired-p@2.png",
        "probe-map@1.csv",
        "probe-map@2.csv",
        "probe-map@2-k-8.png",
        "probe-r-p@1.csv",
        "probe-r-p@2.csv",
    } <= names
    linked = re.findall(r"\]\(([^)]*)\)", (tmp_path / "out" / "report.md").read_text())
    assert set(linked) <= names
