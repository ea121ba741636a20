"""From rows to intervals, tables, figures, reports."""

import dataclasses

import numpy as np
import pytest

from analysis import tables
from analysis.frames import best_constant_choice, tidy, update_rule
from analysis.learned import above_chance_counts, above_chance_sentence
from analysis.report.checks import mixed
from helpers.errors import refused
from helpers.figures import all_inside, draw, legend_of
from helpers.rows import PROVENANCE, records, row, write
from muvla.config import canonical, dummy, ema, no_memory, tbptt
from muvla.config.serialization import replace
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.protocol import chance
from muvla.evaluation.records import GridPoint, GridRows, TakenMeasurement
from muvla.stats import wilson


def test_wilson_against_published_values():
    """Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3: 81/263, 15/148, 0/20, 1/29."""
    for k, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(k, n) == pytest.approx((low, high), abs=5e-5)
    assert np.isnan(wilson(0, 0)).all()
    assert wilson(5, 10, 0.9)[0] > wilson(5, 10)[0]


def test_the_frame_counts_and_never_pools(cells):
    frame = tidy(cells)
    assert len(frame) == 2 + 4
    one = frame[(frame.variant == "none") & (frame.seed == 0)].iloc[0]
    assert (one.touch_rate, one.choice_rate, one.success_rate) == (18 / 20, 6 / 18, 6 / 20)
    assert (one.choice_low, one.choice_high) == wilson(6, 18)
    untouched = frame[(frame.variant == "none") & (frame.seed == 1)].iloc[0]
    assert np.isnan(untouched.choice_rate), "no touch is no choice, not a wrong one"
    with_errors = frame[(frame.variant == "K=8") & (frame.seed == 1) & (frame.intervention == "none")].iloc[0]
    assert (with_errors.errors, with_errors.measured, with_errors.success_rate) == (4, 20, 1.0)


def test_rules_are_named(base):
    rules = [
        update_rule(canonical(replace(base, c)))
        for c in (no_memory(), dummy(4), tbptt(2, 4), ema(0.1, 4), {"memory.alpha": 0.1})
    ]
    assert rules == ["none", "dummy", "K=2", "EMA 0.1", "EMA 0.1, K=8"]


def test_tables(cells):
    frame = tidy(cells)
    main = tables.main_table(frame)
    assert list(main["variant"]) == ["none", "none", "K=8", "K=8"]
    assert main.iloc[0]["success"] == "0.30 [0.15, 0.52]" and main.iloc[1]["first-touch accuracy given a touch"] == "–"
    assert main.iloc[3]["n"] == 20 and main.iloc[3]["success"] == "1.00 [0.84, 1.00] (+4 errors)"
    across = tables.by_seed(frame, "touch", "none", counts=True).to_dict("records")
    assert across[0]["seed 1"] == "0.00 [0.00, 0.16] 0/20"
    assert across[1]["seed 1"] == "1.00 [0.84, 1.00] 20/20 (+4 errors)"
    assert tables.by_seed(frame, "choice", "none", counts=True).iloc[0]["seed 0"].endswith("6/18"), "of those touched"
    interventions = tables.intervention_table(frame)
    assert list(interventions.columns) == ["variant", "seed", "none", "zero"] and set(interventions["variant"]) == {
        "K=8"
    }


def test_a_missing_cell_is_not_run_and_never_a_zero(cells):
    frame = tidy(cells[:3])
    assert tables.by_seed(frame, "success", "none").iloc[1]["seed 1"] == "not run"


def test_two_training_lengths_are_told_apart(base, cells):
    longer = [dataclasses.replace(c, cell=replace(c.cell, {"budget.updates": 8})) for c in cells]
    frame = tidy(cells + longer)
    table = tables.by_seed(frame, "choice", "none")
    assert list(table["U"]) == [4, 4, 8, 8] and list(table["variant"]) == ["none", "K=8"] * 2
    assert [axes.get_title() for axes in draw("rates", frame).axes] == ["U = 4 updates", "U = 8 updates"]
    assert "U = 8, none: 0 of 2" in above_chance_sentence(frame[frame["intervention"] == "none"])
    titles = [axes.get_title() for axes in draw("interventions", frame).axes]
    assert titles[:2] == ["U = 4 updates", "U = 8 updates"]


def test_variants_of_different_budgets_stand_side_by_side_with_what_differs(base):
    """One variant per budget, as a study of budget regimes has them: in the study's order, in one table and one
    panel."""
    variants = {
        "K=2": {},
        "K=2, matched frames": {"budget.regime": "matched_frames"},
        "K=2, published": {"budget.regime": "published"},
    }
    cells = [records(base, variant, tbptt(2, 4) | change, 0, 18, 1, 1) for variant, change in variants.items()]
    frame = tidy(cells)
    table = tables.by_seed(frame, "choice", "none")
    assert list(table.columns) == ["variant", "W", "U", "frames", "seed 0"] and list(table["variant"]) == list(variants)
    assert table[["W", "U", "frames"]].to_numpy().tolist() == [[8, 4, 128], [2, 16, 128], [2, 4, 32]]
    assert list(tables.main_table(frame).columns)[:5] == ["variant", "W", "U", "frames", "seed"]
    assert "K=2: 0 of 1; K=2, matched frames: 0 of 1" in above_chance_sentence(frame[frame["intervention"] == "none"])
    (axes,) = draw("rates", frame).axes
    assert axes.get_title() == "U = 4 to 16 updates" and len([x for x in axes.lines if x.get_marker() == "o"]) == 3
    assert len(draw("interventions", frame).axes) == 2


def test_nothing_that_explains_a_figure_is_cut_off(cells):
    frame = tidy(cells)
    study = "Which variants remember the marked disc after twice the training length, and under which labels?"
    assert all(all_inside(draw(name, frame, study=study)) for name in ("rates", "interventions"))


def test_figures_show_every_seed_with_its_interval(cells):
    figure = draw("rates", tidy(cells))
    (axes,) = figure.axes
    marks = [line for line in axes.lines if line.get_marker() in ("o", "s")]
    assert len(marks) == 3 and len([x for x in axes.lines if x.get_marker() == "x"]) == 1, (
        "one variant-seed had no touch"
    )
    assert sorted(round(float(m.get_ydata()[0]), 3) for m in marks) == [0.333, 0.947, 1.0]
    assert any(line.get_linestyle() == "--" for line in axes.lines), "the chance line"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["none", "K=8"]


def test_a_report_holds_table_figures_and_provenance(cells, tmp_path):
    _, said = write(cells, tmp_path, costs=(("K=8", "K=8", "384", "4", "0", "1,000", "1,536"),))
    assert "| K=8 | K=8 | 384 | 4 | 0 | 1,000 | 1,536 |" in (tmp_path / "out" / "report.md").read_text()
    assert "1,536" in (tmp_path / "out" / "costs.csv").read_text()
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"cells.csv", "paired.csv", "by-seed.md", "report.md"} <= names
    assert {"main.md", "interventions.md"} <= names
    assert {f"{stem}.{suffix}" for stem in ("choice", "interventions", "paired") for suffix in ("png", "pdf")} <= names
    text = (tmp_path / "out" / "report.md").read_text()
    for needed in (
        "muvla sweep x",
        "A note.",
        "Pairs: K=8 0.67.",
        "c0de (commit 0123456789ab)",
        "by variant: none: 0 of 2; K=8: 0 of 2",
        "Training seeds: 0, 1",
        "in no rate: 8",
        "0.33",
        "training 4 min, evaluation 2 min",
    ):
        assert needed in text, needed
    assert "K=8" in said and "Tables and plots are in" in said


def test_a_report_names_what_never_fired(cells, tmp_path, undrawn):
    """Once, whichever cells it was silent in; and says nothing where all fired."""
    late = ("p@1", "zero@first_decision+11")
    silent = [dataclasses.replace(c, never_fired=(late,) if c.variant == "K=8" else ()) for c in cells]
    for made, told in ((silent, 1), (cells, 0)):
        write(made, tmp_path)
        text = (tmp_path / "out" / "report.md").read_text()
        assert text.count(f"`{late[1]}` under p@1") == told


def test_equal_rows_give_equal_bytes(cells, tmp_path):
    write(cells, tmp_path / "a")
    write(cells, tmp_path / "b")
    for one in (tmp_path / "a" / "out").iterdir():
        assert one.read_bytes() == (tmp_path / "b" / "out" / one.name).read_bytes(), one.name


def test_unfinished_cells_are_named(cells, tmp_path, undrawn):
    missing = dataclasses.replace(cells[3], rows={}, state="failed")
    _, said = write([*cells[:3], missing], tmp_path)
    assert "Not complete: K=8, seed 1: failed" in said
    with pytest.raises(MuvlaError) as info:
        write([missing], tmp_path)
    assert info.value.field == "report" and info.value.got == "no complete result"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("code", "0ther", "code versions"),
        ("device", "H200", "devices"),
        ("threads", 2, "thread counts"),
        ("compiled", True, "settings of --compile"),
        ("cached_vision", True, "settings of --cache-vision"),
        ("one_pass", True, "settings of --one-pass"),
        ("simulator", "physx_cuda", "simulator backends of p@1 (physx_cpu; physx_cuda)"),
        ("environment", {"renderers": ["H200"]}, "simulator backends of p@1 (physx_cpu; physx_cpu, drawn by H200)"),
        ("packages", {"torch": "2.14"}, "versions of torch"),
    ],
)
def test_provenance_is_not_mixed_unless_told(cells, tmp_path, undrawn, key, value, message):
    here = {**PROVENANCE, "simulator": "physx_cpu"}
    one, other = (
        dataclasses.replace(cells[0], provenance={"x": here}),
        dataclasses.replace(cells[1], provenance={"x": {**here, key: value}}),
    )
    with pytest.raises(MuvlaError) as info:
        write([one, other], tmp_path)
    assert message in info.value.got
    write([one, other], tmp_path, mix_provenance=True)
    assert "Mixed by --mix-provenance" in (tmp_path / "out" / "report.md").read_text()
    write([one, dataclasses.replace(other, provenance={"x": here})], tmp_path)
    assert "Mixed" not in (tmp_path / "out" / "report.md").read_text()


def test_simulators_are_compared_within_a_protocol_and_within_an_variants_data(cells, tmp_path, undrawn):
    """One task has a stand-in among its assets, the other has none."""

    def simulated(cell, **by_id):
        rows = {
            (name, "none"): [dataclasses.replace(row, provenance=id) for row in cell.rows["p@1", "none"]]
            for name, id in (("p@1", "x"), ("q@1", "y"))
        }
        known = {name: {**PROVENANCE, "simulator": simulator} for name, simulator in by_id.items()}
        return dataclasses.replace(cell, rows=rows, provenance=known, chance={"p@1": 1 / 3, "q@1": 1 / 3})

    alike = [simulated(cell, trained=cell.variant, x="cpu", y="cpu, stand-in") for cell in cells[:3]]
    write(alike, tmp_path)
    assert "Mixed" not in (tmp_path / "out" / "report.md").read_text()
    for name, told in (("x", "p@1"), ("y", "q@1"), ("trained", "the data of none")):
        simulators = {"trained": "none", "x": "cpu", "y": "cpu, stand-in", name: "another"}
        (text,) = mixed([*alike[:2], simulated(cells[2], **simulators)])
        assert text.startswith(f"simulator backends of {told} ")


def test_grids_and_readings_are_compared_within_their_protocol(base):
    def simulated(cell, reading="cpu", point="cpu"):
        rows = {("p@1", "none"): [row(0, 0)]}
        drawn = {"environment": {"renderers": ["P"]}}
        known = {"trained": "cpu", "x": "cpu", "point": point, "reading": reading}
        known = {name: {**PROVENANCE, "simulator": one} for name, one in known.items()}
        known |= {name: known[name] | drawn for name in ("x", "point")}
        held = GridPoint({"h": 2}, "p+h2@1", "none", None, [dataclasses.replace(row(0, 0), provenance="point")])
        taken = TakenMeasurement("r@1", "p@1", "x", "y", None, None, None, None, 1, "", "reading")
        return dataclasses.replace(
            cell,
            rows=rows,
            provenance=known,
            grids=(GridRows("g@1", "h", None, None, "", (held,)),),
            measurements=(taken,),
        )

    cell = records(base, "K=8", tbptt(8, 4), 0, 1, 0, 0)
    assert mixed([simulated(cell), simulated(cell)]) == []
    for changes, protocol in (({"point": "cuda"}, "p+h2@1"), ({"reading": "cuda"}, "p@1")):
        (text,) = mixed([simulated(cell), simulated(cell, **changes)])
        assert text.startswith(f"simulator backends of {protocol} ")


def test_cells_of_other_numbers_of_ranks_are_not_mixed_unless_told(cells, tmp_path, undrawn):
    """It is training's number: the records of evaluations, which have none, do not count as one more."""
    here = {**PROVENANCE, "simulator": "physx_cpu"}
    one = dataclasses.replace(cells[0], provenance={"x": here})
    of_two = {"trained": {**here, "ranks": "2 replicated"}, "x": here}
    two, alike = (dataclasses.replace(c, provenance=of_two) for c in cells[:2])
    assert mixed([one, alike]) == ["numbers of ranks (1, 2 replicated)"] and mixed([two, alike]) == []
    write([one, alike], tmp_path, mix_provenance=True)
    write([two, alike], tmp_path)
    assert "thread(s) per cell, trained by 2 replicated ranks" in (tmp_path / "out" / "report.md").read_text()


def test_where_nothing_bounds_a_memoryless_policy_no_chance_is_shown(cells, tmp_path, undrawn):
    """Open loop, a chunk issued during the cue still acts when the choice is made."""
    assert chance(get_protocol("recall-position3-rh@1")) == pytest.approx(1 / 3)
    assert chance(get_protocol("recall-position3-ol4@1")) is None
    unbounded = [dataclasses.replace(cell, chance={"p@1": None}) for cell in cells]
    figure = draw("rates", tidy(unbounded))
    assert not any(line.get_linestyle() == "--" for line in figure.axes[0].lines)
    assert not any("chance" in text for text in legend_of(figure))
    write(unbounded, tmp_path)
    assert "Expected without memory: no bound" in (tmp_path / "out" / "report.md").read_text()


def test_seeds_above_a_constant_choice_are_counted_by_variant(cells):
    plain = tidy(cells).query("intervention == 'none'").assign(best_constant=0.4)
    assert above_chance_counts(plain)[["above", "seeds"]].to_numpy().tolist() == [[0, 2], [2, 2]]
    higher = above_chance_counts(plain.assign(best_constant=0.8))
    assert higher["above"].tolist() == [0, 1], "18/19 is 0.75 at least"
    assert above_chance_counts(plain.assign(chance=0.8))["above"].tolist() == [0, 1], "the larger of the two bounds"


def test_fields_that_a_cell_does_not_use_are_blank(cells):
    frame = tidy(cells)
    assert frame[frame.variant == "none"][["K", "alpha"]].isna().all().all()
    assert set(frame[frame.variant == "K=8"]["K"]) == {8}


def test_a_package_that_was_added_later_is_no_mix(cells, tmp_path, undrawn):
    added = {**PROVENANCE, "packages": PROVENANCE["packages"] | {"sapien": "3.0.3"}}
    without = {**PROVENANCE, "packages": PROVENANCE["packages"] | {"sapien": None}}
    write(
        [
            dataclasses.replace(cells[0], provenance={"x": without}),
            dataclasses.replace(cells[1], provenance={"x": added}),
        ],
        tmp_path,
    )
    assert "Mixed" not in (tmp_path / "out" / "report.md").read_text()


def test_two_cells_that_would_be_one_line_are_refused(cells, tmp_path):
    with pytest.raises(MuvlaError) as info:
        write([*cells, dataclasses.replace(cells[0], train="another")], tmp_path)
    assert info.value.field == "report" and "two cells" in info.value.got


def test_the_best_constant_choice_is_that_of_these_episodes(cells):
    rows = [row(i, 0, target=t) for i, t in enumerate([0, 0, 0, 1, 2])] + [row(9, 0, error="RuntimeError: x")]
    assert best_constant_choice(rows) == 0.6
    assert np.isnan(best_constant_choice([]))


@pytest.mark.slow
def test_results_are_written_between_their_markers_only(cells, tmp_path, unrendered):
    results = tmp_path / "RESULTS.md"
    results.write_text(
        "# Results\n\nBy hand.\n\n<!-- generated: small -->\nold\n<!-- end generated: small -->\n\nAfter.\n"
    )
    write(cells, tmp_path, results=results)
    text = results.read_text()
    assert text.startswith("# Results\n\nBy hand.") and text.endswith("After.\n") and "old" not in text
    assert "](out/choice.png)" in text, "figures are linked from where the results file lies"
    write(cells, tmp_path, results=results)
    assert results.read_text() == text
    write(cells, tmp_path, results=results, name="other")
    assert results.read_text().count("<!-- generated:") == 2
    results.write_text("<!-- generated: small -->\n")
    with refused(str(results)):
        write(cells, tmp_path, results=results)
