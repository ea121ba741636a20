"""Variants over several tasks: the contrast with the unit task × seed, what was learned, and the command."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.pooled import aggregate_frame, learned_table, pooled_frame, tasks_of
from analysis.report.pool import write_pooled
from helpers.committed import DATA, commit, study_results
from helpers.errors import printed_field, refused
from helpers.studies import STUDY
from muvla.cli.main import main
from muvla.config import identity
from muvla.stats.hypotheses import permutation_p, stratified_permutation_p
from muvla.stats.means import stratified_welch_interval, welch_interval
from sweeps.contrasts import Contrasts
from sweeps.loader import load_study

LEVELS = {"easy": (20, 16), "hard": (10, 6)}  # successes of the variant and of its reference, of 20 episodes


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.py").write_text(STUDY.format(updates=6))
    base = load_study(folder)
    first, second = list(base.variants)[:2]
    base = replace(base, seeds=(0, 1, 2, 3, 4), contrasts=Contrasts(pairs=((first, second),)), predictions=())

    def results(task):
        study = replace(base, name=f"ladder_{task}")
        of_variant, of_reference = LEVELS[task]
        return _with_targets(
            study_results(
                study,
                lambda item: identity.train_id(item.cell, DATA, None),
                lambda item: (of_variant if item.variant == first else of_reference) - (item.cell.seed == 4),
            )
        )

    return [results(task) for task in LEVELS]


def _with_targets(results):
    """The results with three targets in turn, so that no constant choice is right in all episodes."""
    cells = []
    for item, of_cell in results.cells:
        rows = {
            key: [replace(row, target=i % 3, choice=(i + (not row.success_once)) % 3) for i, row in enumerate(lines)]
            for key, lines in of_cell.rows.items()
        }
        cells.append((item, replace(of_cell, rows=rows)))
    return replace(results, cells=tuple(cells))


def test_tasks_of_other_difficulty_do_not_blur_a_difference():
    first, second = [[1.0, 0.99, 0.98], [0.3, 0.29, 0.28]], [[0.9, 0.89, 0.88], [0.2, 0.19, 0.18]]
    assert stratified_permutation_p(first, second) < 0.02
    assert permutation_p(np.ravel(first), np.ravel(second)) > 0.5, "regrouped over tasks, the tasks are the spread"
    assert stratified_permutation_p(first, first) > 0.9
    assert np.isnan(stratified_permutation_p([], [])) and np.isnan(stratified_permutation_p([[1.0]], [[0.0, 1.0]]))


def test_one_task_has_the_test_and_the_interval_of_a_single_contrast():
    first, second = [1.0, 0.9, 0.95, 0.7, 0.97], [0.3, 0.5, 0.9, 0.2, 0.6]
    assert stratified_permutation_p([first], [second]) == pytest.approx(permutation_p(first, second), abs=0.01)
    assert stratified_welch_interval([first], [second]) == welch_interval(first, second)
    low, high = stratified_welch_interval([first] * 4, [second] * 4)
    single = welch_interval(first, second)
    assert (high - low) < (single[1] - single[0]) / 2 and (high + low) == pytest.approx(sum(single))


def test_a_contrast_pools_task_and_seed(read):
    frame = pooled_frame(tasks_of(read))
    line = frame.iloc[0]
    assert (len(frame), line["tasks"], line["n"], line["reference_n"]) == (1, 2, 10, 10)
    assert line["difference"] == pytest.approx(0.2) and line["low"] < 0.2 < line["high"]
    assert line["p"] == line["p_holm"] < 0.01 and line["improvement"] == 1
    means = aggregate_frame(tasks_of(read)).set_index("variant")["mean"]
    assert means.iloc[0] - means.iloc[1] == pytest.approx(0.2)


def test_a_contrast_that_has_not_run_counts_in_the_correction(read):
    missing = replace(tasks_of(read), pairs=(*tasks_of(read).pairs, ("not there", "nor here")))
    frame = pooled_frame(missing)
    assert len(frame) == 1 and frame["p_holm"].iloc[0] == pytest.approx(2 * frame["p"].iloc[0])


def test_a_task_is_learned_where_more_than_half_of_the_seeds_have_learned_it(read):
    table = learned_table(tasks_of(read)).set_index("variant")
    assert table["ladder_easy"].iloc[0] == "**5 of 5**"
    assert table["ladder_hard"].iloc[1] == "0 of 5"
    assert list(table["tasks learned by most seeds"].iloc[:2]) == ["1 of 2", "1 of 2"]


def test_the_files_of_a_comparison(read, tmp_path):
    results = tmp_path / "RESULTS.md"
    write_pooled(read, tmp_path / "out", "ladder", "muvla pool a b", results, say=lambda text: None)
    names = {"tasks.csv", "pooled.csv", "aggregates.csv", "pooled.md", "profile.png", "profile.pdf"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names
    text = (tmp_path / "out" / "pooled.md").read_text()
    assert "+0.20 [" in text and "muvla pool a b" in text and "profile.png" in text
    assert "<!-- generated: ladder -->" in results.read_text() and "+0.20 [" in results.read_text()


def test_the_command_reads_committed_rows_and_refuses_one_study(read, tmp_path, capsys):
    folders = []
    for each in read:
        folder = tmp_path / each.study.name
        folder.mkdir()
        name = f"\nstudy = replace_(study, name={each.study.name!r}, seeds=(0, 1))\n"
        (folder / "study.py").write_text(STUDY.format(updates=6) + name)
        commit(folder, study_results(load_study(folder), lambda item: identity.train_id(item.cell, DATA, None)))
        folders.append(str(folder))
    assert main(["pool", *folders, "--committed", "--out", str(tmp_path / "out")]) == 0
    assert "muvla pool" in (text := (tmp_path / "out" / "pooled.md").read_text()) and "--committed" in text
    assert "pooled.md" in capsys.readouterr().out and (tmp_path / "out" / "pooled.csv").exists()
    assert main(["pool", folders[0], "--committed", "--out", str(tmp_path / "one")]) == 2
    assert printed_field(capsys) == "STUDY" and not (tmp_path / "one").exists()


def test_tasks_of_other_provenance_are_refused_or_stated(read, tmp_path):
    first, other = read
    cells = [
        (item, replace(c, provenance={k: v | {"code": "other"} for k, v in c.provenance.items()}))
        for item, c in other.cells
    ]
    mixed = [first, replace(other, cells=tuple(cells))]
    with refused("report"):
        write_pooled(mixed, tmp_path / "out", "ladder", "muvla pool a b", say=lambda text: None)
    assert not (tmp_path / "out").exists()
    write_pooled(mixed, tmp_path / "out", "ladder", "muvla pool a b", mix_provenance=True, say=lambda text: None)
    assert "mixed: " in (tmp_path / "out" / "pooled.md").read_text()


def test_studies_of_other_variants_or_contrasts_are_refused(read):
    first, other = read
    fewer = replace(other.study, variants=dict(list(other.study.variants.items())[1:]), contrasts=Contrasts())
    with refused("study ladder_hard: variants"):
        tasks_of([first, replace(other, study=fewer)])
    turned = Contrasts(pairs=tuple((b, a) for a, b in other.study.contrast_pairs))
    with refused("study ladder_hard: contrasts"):
        tasks_of([first, replace(other, study=replace(other.study, contrasts=turned))])
