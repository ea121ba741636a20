"""Tables for a paper: their numbers, stars and bold print, their width, and the committed files.

The heavy tests compile them.
"""

import re
import shutil
import subprocess

import pandas as pd
import pytest

from analysis.contrasts import contrast_frame
from analysis.frames import read_cells
from analysis.paper.folder import DOCUMENT, FOLDER, write_paper
from analysis.paper.latex import escape, text_width, wrap
from analysis.paper.layout import COLUMN, GAP, PAGE, SIZES, Entry, PaperTable, Row
from analysis.paper.results import variant_table
from helpers.paths import ROOT
from sweeps.contrasts import Contrasts
from sweeps.loader import load_study

COMMITTED = sorted((ROOT / "experiments").glob("*/results*/cells.csv"))
QUICK = ROOT / "experiments" / "recall_quick" / "results"
# The file of a study whose file is not study.py; of a report on several studies, the first.
FILES = {"recall_causality-mikasa": "mikasa.py", "recall_twins": "position3.py"}
BAD = re.compile(r"^(?:!|Overfull|.*Float too large|.*undefined|.*Missing character).*$", re.MULTILINE)


def frame(rates, U=10, protocol="p@1"):
    """Tidy lines without intervention: variant → success rate of each training seed; nothing is chosen."""
    lines = [
        {"variant": variant, "seed": seed, "success_rate": rate, "order": i}
        for i, (variant, of_variant) in enumerate(rates.items())
        for seed, rate in enumerate(of_variant)
    ]
    constant = {"U": U, "protocol": protocol, "intervention": "none", "never_fired": False, "choices": 0, "errors": 0}
    further = {"measured": 100, "chance": float("nan"), "best_constant": float("nan"), "choice_low": float("nan")}
    limits = {"success_low": 0.0, "success_high": 1.0}
    return pd.DataFrame(lines).assign(**constant, **further, **limits)


def table_of(rates, pairs):
    lines = frame(rates)
    contrasts = contrast_frame(lines, Contrasts(), pairs)
    return variant_table(lines, contrasts, pd.DataFrame(), "tab:x", "Which?")


def entries(table, name):
    (row,) = [row for row in table.rows if row.name == name]
    return [entry.text for entry in row.entries]


HIGH, LOW = (0.9, 0.91, 0.92, 0.93, 0.94), (0.3, 0.31, 0.32, 0.33, 0.34)


def test_a_row_has_mean_spread_and_the_contrast_with_its_stars():
    table = table_of({"a_b": HIGH, "none": LOW}, (("a_b", "none"),))
    assert entries(table, "a_b") == ["0.92±.02", "+0.60**"] and entries(table, "none") == ["0.32±.02", ""]
    text = table.latex()
    assert r"\textbf{0.92$\pm$.02}" in text and r"a\_b" in text and r"\toprule" in text
    assert "n = 100 episodes per seed, 5 training seeds" in text and "Protocol p@1" in text


@pytest.mark.parametrize(
    ("rates", "pairs"),
    [
        ({"a": HIGH, "b": HIGH, "none": LOW}, (("a", "none"), ("b", "none"))),  # the best two are not compared
        ({"a": HIGH, "none": (0.3, 0.95, 0.96, 0.93, 0.97)}, (("a", "none"),)),  # the difference does not hold
        ({"a": HIGH[:3], "none": LOW[:3]}, (("a", "none"),)),  # three seeds cannot conclude
        ({"a": HIGH, "none": LOW}, ()),
    ],
)
def test_no_variant_is_bold_without_a_planned_contrast_that_holds(rates, pairs):
    assert "textbf" not in table_of(rates, pairs).latex()


def test_a_decrease_and_a_contrast_with_a_second_reference_are_marked():
    table = table_of({"a": LOW, "b": HIGH, "c": HIGH}, (("a", "b"), ("a", "c"), ("c", "b")))
    (row,) = [row for row in table.rows if row.name == "a"]
    assert row.entries[-1] == Entry("−0.60*a", more=("−0.60*b",)) and "(a: b, b: c)" in table.caption
    assert entries(table, "c")[-1] == "+0.00a"


def test_the_committed_study_has_its_own_numbers():
    rates = read_cells(QUICK / "cells.csv")
    of = rates[(rates["variant"] == "K=2") & (rates["intervention"] == "none") & (rates["U"] == 800)]["success_rate"]
    text = (QUICK / FOLDER / "variants.tex").read_text()
    assert f"{of.mean():.2f}$\\pm${f'{of.std():.2f}'[1:]}" in text.split("after 800 updates")[1]
    assert text.count("$+$") == 0 and "+0.68*a" in text and "+0.28b" in text


def test_a_wide_table_is_split_into_parts_that_fit_and_a_long_one_into_parts_of_a_page():
    names = [f"variant number {i}" for i in range(9)]
    cells = (Entry("0.25±.25"),) * len(names)
    rows = tuple(Row(f"row {i}", cells, "block" if i == 0 else "") for i in range(120))
    for width in (COLUMN, PAGE):
        table = PaperTable("tab:x", "A caption.", "corner", tuple(names), rows, ("group",) * len(names), width)
        text = table.latex()
        assert text.count(r"\begin{tabular}") >= 3 and f"Part 1 of {text.count('begin{tabular}')}" in text
        assert text.count(r"\emph{block}") == text.count(r"\begin{tabular}")  # a part repeats its block's heading
        for columns in re.findall(r"\{@\{\}l(c+)@\{\}\}", text):
            used = text_width("row 119") + len(columns) * (text_width("0.25±.25") + 2 * GAP)
            assert used * SIZES[r"\scriptsize"] <= width


def test_text_is_escaped_and_wrapped():
    assert escape("a_b & 10 % α ≤ λ") == r"a\_b \& 10 \% $\alpha$ $\leq$ $\lambda$"
    assert escape("é") == "e" and escape("漢") == "{[}U+6F22]" and escape("a\nb") == "a b"
    assert all(ord(letter) < 128 for letter in escape("ß†°√☃ \\^~"))
    assert wrap("permute_tokens(identity)", 60) == ["permute_", "tokens(identity)"]
    assert all(text_width(line) <= 20 for line in wrap("x" * 30, 20))


@pytest.mark.parametrize("cells", COMMITTED, ids=lambda path: "-".join(path.parts[-3:-1]))
def test_committed_tables_are_those_of_the_committed_rates(cells, tmp_path):
    folder = cells.parent
    for file in folder.glob("*.csv"):
        shutil.copy(file, tmp_path)
    study = load_study(folder.parent / FILES.get(folder.parent.name + folder.name.removeprefix("results"), "study.py"))
    write_paper(tmp_path, study.name, study.title)
    committed = {file.name: file.read_text() for file in (folder / FOLDER).glob("*.tex")}
    assert committed == {file.name: file.read_text() for file in (tmp_path / FOLDER).glob("*.tex")}


def compiled(folder, out):
    """Compile the document of a folder; return the complaints of LaTeX."""
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-output-directory", str(out), DOCUMENT]
    subprocess.run(command, cwd=folder, capture_output=True, check=False)
    log = (out / DOCUMENT).with_suffix(".log").read_text(errors="replace")
    return BAD.findall(log) + ([] if "Output written on" in log else ["no output"])


@pytest.fixture
def latex():
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex: run `make latex` as root")


@pytest.mark.paper
def test_every_committed_table_compiles_and_fits(latex, tmp_path):
    assert len(COMMITTED) >= 6
    for cells in COMMITTED:
        assert not compiled(cells.parent / FOLDER, tmp_path), cells


@pytest.mark.paper
def test_a_study_with_long_names_and_many_seeds_compiles_and_fits(latex, tmp_path):
    names = [f"{'a long name of a variant, ' * 2}number {i}" for i in range(14)]
    odd = ["α=0.1 & β_2", "100 % {x} \\y ~^", "Überlänge→漢字", "x" * 60, "$m$ #3", "[0:2]"]
    lines = frame({name: [i / 40 + seed / 100 for seed in range(8)] for i, name in enumerate(names + odd)})
    write_frames(lines, tmp_path, [(name, odd[0]) for name in (*names, *odd[1:])])
    write_paper(tmp_path, "a_study", "What does a study with a long title & odd letters (50 %) look like?")
    assert not compiled(tmp_path / FOLDER, tmp_path)


def write_frames(lines, folder, pairs):
    further = {f"{metric}_{end}": float("nan") for metric in ("touch", "choice") for end in ("rate", "low", "high")}
    lines = lines.drop(columns="order").assign(**{k: v for k, v in further.items() if k not in lines})
    lines.to_csv(folder / "cells.csv", index=False)
    contrasts = contrast_frame(read_cells(folder / "cells.csv"), Contrasts(), tuple(pairs))
    contrasts.to_csv(folder / "contrasts.csv", index=False)


@pytest.mark.paper
def test_a_table_that_is_too_wide_is_noticed(latex, tmp_path):
    (tmp_path / FOLDER).mkdir()
    text = (QUICK / FOLDER / DOCUMENT).read_text()
    wide = r"\begin{table}\begin{tabular}{l}\rule{3.4in}{1pt}\end{tabular}\end{table}"
    text = re.sub(r"\\input.*?\n", lambda _: wide, text, count=1).replace(r"\input", "%")
    (tmp_path / FOLDER / DOCUMENT).write_text(text)
    assert any(line.startswith("Overfull") for line in compiled(tmp_path / FOLDER, tmp_path))
