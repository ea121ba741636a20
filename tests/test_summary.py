"""Summaries of results: counts of training seeds, from the committed files and from small cells."""

import csv
import dataclasses
import re
from collections import defaultdict

import pytest

from analysis.report import committed
from analysis.report.markers import write_between_markers
from analysis.report.summary import Results, answers, spread, summary_block, variant_table, verdict_sentence
from helpers.paths import ROOT
from helpers.rows import records, row, write
from muvla.config import no_memory, tbptt
from muvla.errors import MuvlaError
from muvla.stats import wilson

RESULTS = ROOT / "RESULTS.md"
LONGEST = 200  # lines of RESULTS.md
COMMITTED = {
    "recall_quick": "recall_quick/results",
    "recall_budget": "recall_budget/results",
    "recall_width": "recall_width/results",
    "recall_causality": "recall_causality/results",
    "mikasa_quick": "mikasa_quick/results",
    "recall_causality_mikasa": "recall_causality/results-mikasa",
}


def block_of(name):
    text = RESULTS.read_text(encoding="utf-8")
    return text.partition(f"<!-- generated: {name} -->\n")[2].partition(f"<!-- end generated: {name} -->")[0]


def counted(folder):
    """(U, variant) → (training seeds above chance, training seeds), by hand from the counts in cells.csv."""
    seeds = defaultdict(list)
    with (folder / "cells.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line["intervention"] == "none":
                low, _ = wilson(int(line["correct"]), int(line["touched"]))
                bound = max(float(line["chance"]), float(line["best_constant"]))
                seeds[line["U"], line["variant"]].append(low > bound)
    return {key: (sum(values), len(values)) for key, values in seeds.items()}


# --- the committed results --------------------------------------------------------------------------------------------


def test_the_results_file_is_short_and_has_every_study():
    text = RESULTS.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    for study in (ROOT / "experiments").iterdir():
        if (study / "study.py").exists():
            assert f"](experiments/{study.name}/" in text, study.name
    for name in ("paper_table", "openvla_remember"):
        assert "Not run" in block_of(name)


@pytest.mark.parametrize("name", COMMITTED)
def test_counts_in_the_results_file_are_those_of_the_data(name):
    block, expected = block_of(name), counted(ROOT / "experiments" / COMMITTED[name])
    table = [line.strip("| ").split(" | ") for line in block.splitlines() if line.startswith("|")]
    header, shown = table[0] if table else [], {}
    for cells in table[2:]:
        line = dict(zip(header, cells, strict=True))
        for column, text in line.items():
            if column.endswith("seeds above chance") and " of " in text:
                length = column.removeprefix("U = ").partition(":")[0] if ":" in column else None
                shown[length, line["variant"]] = tuple(map(int, text.split(" of ")))
    several = len({variant for _, variant in expected}) < len(expected)
    one_seed = all(seeds == 1 for _, seeds in expected.values())  # no evidence, so no table
    tabled = {} if one_seed else expected
    assert shown == {(u if several else None, variant): counts for (u, variant), counts in tabled.items()}
    for (_, variant), (above, seeds) in expected.items():
        assert re.search(rf"{above} of {seeds}[^;]*`{re.escape(variant)}`", block), variant


@pytest.mark.parametrize("name", COMMITTED)
def test_the_results_file_is_what_the_data_give(name):
    """An edit by hand, or data without `make results`, is seen here."""
    title = block_of(name).partition("## ")[2].partition("\n")[0]
    results = Results.read(ROOT / "experiments" / COMMITTED[name])
    assert block_of(name) == summary_block(results, name, title, ROOT)


def test_every_link_of_the_results_file_leads_to_a_file():
    links = re.findall(r"\]\(([^)#]+)\)", RESULTS.read_text(encoding="utf-8"))
    assert links and all((ROOT / link).exists() for link in links)


@pytest.mark.slow
def test_the_command_writes_the_blocks_of_studies_with_and_without_results(tmp_path):
    file = tmp_path / "RESULTS.md"
    studies = [str(ROOT / "experiments" / name) for name in ("recall_budget", "openvla_remember")]
    committed.main([*studies, "--results", str(file)])
    text = file.read_text()
    assert "K=8, all three" in text and "**Not run:**" in text and text.count("<!-- generated: ") == 3
    committed.main([*studies, "--results", str(file)])
    assert file.read_text() == text


# --- small cells ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cells(base):
    """K=8 is above chance in both seeds, and without its memory in none; `none` in no seed."""
    made = []
    for seed in (0, 1):
        targets = [0, 1, 2] * 20
        plain = [row(i, target, target=target) for i, target in enumerate(targets)]
        middle = [row(i, 0, target=target) for i, target in enumerate(targets)]
        given = [
            dataclasses.replace(row(i, (target + 1) % 3, target=target), donor_target=(target + 1) % 3)
            for i, target in enumerate(targets)
        ]
        used = records(base, "K=8", tbptt(8, 4), seed, 1, 0, 0)
        rows = {"none": plain, "zero": middle, "transplant": given, "transplant_self": plain}
        rows = {("p@1", n): [dataclasses.replace(r, intervention=n) for r in several] for n, several in rows.items()}
        unused = records(base, "none", no_memory(), seed, 1, 0, 0)
        made += [dataclasses.replace(unused, rows={("p@1", "none"): middle}), dataclasses.replace(used, rows=rows)]
    return made


@pytest.fixture
def results(cells, tmp_path, unrendered):
    write(cells, tmp_path)
    return Results.read(tmp_path / "out")


def test_the_answer_counts_training_seeds(results):
    first, second, third = answers(results.rates, results.pairs)
    assert "2 of 2 training seeds are above chance for `K=8`; 0 of 2 for `none`" in first
    assert second.startswith("2 seeds") and "none under `zero` and `transplant`" in second
    assert "all under `transplant_self`" in second
    assert "touched first in 1.00 of the episodes of these 2 seeds, against 0.00 without it" in third
    assert "`transplant_self`" in third and "at most 0.00" in third


def test_the_table_has_a_row_per_variant_and_the_baselines(results):
    table = variant_table(results.rates, results.pairs, results.baselines).set_index("variant")
    assert list(table.index) == ["none", "K=8", "memoryless ideal"]
    assert list(table["seeds above chance"]) == ["0 of 2", "2 of 2", "–"]
    assert table.loc["K=8", "donor-following rate under `transplant`"] == "1.00"


def test_a_report_writes_the_summary_between_its_markers(cells, tmp_path, unrendered):
    file = tmp_path / "RESULTS.md"
    write(cells, tmp_path, results=file, name="small", title="Does it remember?")
    text = file.read_text()
    assert text.startswith("# Results") and "## Does it remember?" in text
    assert "](out/follow.png)" in text and "[report](out/report.md)" in text


def test_one_training_seed_is_called_no_evidence(cells, tmp_path, unrendered):
    write([cell for cell in cells if cell.cell.seed == 0], tmp_path)
    block = summary_block(Results.read(tmp_path / "out"), "small", "Does it remember?", tmp_path)
    assert "no evidence about memory" in block


def test_verdicts_are_counted_over_predictions_and_variants(results):
    verdicts = results.rates.head(0).assign(prediction=[], together=[])
    verdicts = verdicts[["prediction", "variant", "together"]]
    verdicts.loc[0] = [1, "K=8", "supported"]
    verdicts.loc[1] = [1, "K=8", "supported"]  # another training seed
    verdicts.loc[2] = [1, "K=1", "undecided (0 of 5 seeds have ground)"]
    verdicts.loc[3] = [2, "K=8", "refuted"]
    text = verdict_sentence(verdicts)
    assert "2 predictions" in text and "1 supported, 1 refuted, 1 undecided" in text


def test_a_spread_names_both_ends_where_they_differ(results):
    rates = results.rates["choice_rate"]
    assert spread(rates.head(0)) == "–" and spread(rates.iloc[:1] * 0 + 0.5) == "0.50"
    assert spread(rates.iloc[:3] * 0 + [0.2, 0.9, 0.4]) == "0.40 [0.20, 0.90]"


def test_a_lost_marker_is_refused(tmp_path):
    file = tmp_path / "R.md"
    file.write_text("<!-- generated: small -->\n")
    with pytest.raises(MuvlaError) as info:
        write_between_markers(file, "small", "text\n")
    assert info.value.field == str(file)


@pytest.mark.parametrize(
    "report", sorted((ROOT / "experiments").glob("*/results*/report.md")), ids=lambda file: file.parts[-3]
)
def test_a_committed_report_names_no_folder_of_one_machine(report):
    """The command is one that a reader can repeat in a checkout."""
    (command,) = [line for line in report.read_text(encoding="utf-8").splitlines() if line.startswith("Command: ")]
    assert not [word for word in command.strip("`").split() if word.startswith("/")]
