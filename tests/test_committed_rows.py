"""Committed rows give the frames of the runs folder, and a changed line is named."""

import dataclasses
import json
import shutil

import pytest

from analysis.frames import tidy
from analysis.intervention_frames import chunk_frame, paired_frame
from helpers.committed import DATA, commit, read_lines, study_results, write_lines
from helpers.errors import printed_field, refused, refused_at
from helpers.studies import STUDY, at
from muvla.cli.main import main
from muvla.cli.output import EXIT_MISSING
from muvla.config import identity
from sweeps.committed import committed_results, load_results, results_folder
from sweeps.loader import load_study
from sweeps.rows_format import NAME
from sweeps.rows_reader import read_rows_file
from sweeps.rows_writer import write_rows


def train_of(item):
    return identity.train_id(item.cell, DATA, None)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("written")
    (root / "study.py").write_text(STUDY.format(updates=4))
    results = study_results(load_study(root), train_of)
    commit(root, results)
    return root, results


@pytest.fixture
def place(written, tmp_path):
    shutil.copytree(written[0], tmp_path / "s")
    return tmp_path / "s"


def test_committed_rows_are_what_was_written(place, written):
    _, results = written
    read = load_results(place)
    assert [cell for _, cell in read.cells] == [cell for _, cell in results.cells]
    assert read.coverage == results.coverage and read.baselines["few@1"].rows == results.baselines["few@1"].rows
    assert tidy(read.records).equals(tidy(results.records))
    for frame in (paired_frame, chunk_frame):
        assert frame(read.records).equals(frame(results.records)) and len(frame(read.records))
    assert read.records[1].curve == {"update": [1.0, 2.0], "loss": [0.5, None]}


def test_equal_results_give_equal_bytes_in_any_order_of_rows(place, written):
    _, results = written
    file = place / "results" / NAME
    before = file.read_bytes()
    backwards = tuple(
        (item, dataclasses.replace(cell, rows={at: rows[::-1] for at, rows in cell.rows.items()}))
        for item, cell in results.cells
    )
    write_rows(file, [dataclasses.replace(results, cells=backwards)])
    assert file.read_bytes() == before


def lines_of(file, name):
    """Numbers of the lines of this name, or of the rows."""
    return [i for i, line in enumerate(read_lines(file)) if line.get("line", "row") == name]


# Each changes a field of the first line of a name: (name, change, end of the error's field).
CHANGES = {
    "choice": ("row", {"choice": 1}, ""),
    "success": ("row", {"success_once": False, "first_success_step": None}, ""),
    "seconds": ("row", {"seconds": 9.0}, ""),
    "provenance": ("provenance", {"record": {"code": "another"}}, ": record"),
    "protocol": ("protocol", {"hash": "0123456789ab"}, ": content"),
    "data": ("cell", {"data": "e" * 64}, ": train"),
    "train": ("cell", {"train": "0123456789ab"}, ": train"),
    "version": ("rows", {"version": 2}, ""),
    "unknown field": ("study", {"author": "x"}, ": author"),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("seal", [True, False], ids=["last digest kept up to date", "as it was"])
def test_a_changed_line_is_named_by_report_and_verify(place, name, seal, capsys):
    place_of, change, ending = CHANGES[name]
    file = place / "results" / NAME
    lines = read_lines(file)
    number = lines_of(file, place_of)[0]
    lines[number] |= change
    write_lines(file, lines, seal)
    field = f"{file}:{number + 1}{ending}"
    with refused(field):
        load_results(place)
    assert main(["verify", str(file), "--json"]) == EXIT_MISSING
    assert json.loads(capsys.readouterr().out)["runs"][0]["faults"][0]["file"] == field


def test_a_report_of_a_changed_line_names_the_line(place, capsys):
    file = place / "results" / NAME
    lines = read_lines(file)
    lines[lines_of(file, "row")[0]] |= {"choice": 1}
    write_lines(file, lines, seal=True)
    assert main(["report", str(place), "--committed", "--out", str(place / "out")]) == 2
    assert printed_field(capsys) == f"{file}:{lines_of(file, 'row')[0] + 1}"


@pytest.mark.parametrize("change", [{"title": "another"}, {"coverage": []}, {"costs": [["K=8"]]}])
def test_a_line_without_an_identity_is_held_by_the_last_digest(place, change):
    file = place / "results" / NAME
    lines = read_lines(file)
    lines[lines_of(file, "study")[0]] |= change
    write_lines(file, lines)
    with refused(f"{file}:{len(lines)}: sha256"):
        load_results(place)


def test_a_row_that_is_gone_twice_or_of_another_episode_is_refused(place):
    file = place / "results" / NAME
    lines, rows = read_lines(file), lines_of(file, "row")
    for changed in (
        lines[: rows[0]] + lines[rows[1] :],
        lines[: rows[0]] + [lines[rows[0]], *lines[rows[0] :]],
        [*lines[: rows[0]], lines[rows[1]], lines[rows[0]], *lines[rows[2] :]],
    ):
        write_lines(file, changed, seal=True)
        with refused_at("", "digest"):
            load_results(place)
    result = lines_of(file, "result")[0]
    fewer = [*lines[: rows[0]], *lines[rows[1] :]]
    fewer[result] = lines[result] | {"digests": lines[result]["digests"][1:]}
    write_lines(file, fewer, seal=True)
    with refused(f"{file}:{result + 1}: digests"):
        load_results(place)


@pytest.mark.parametrize("content", [b"", b"{}\n", b"\x1f\x8b\x08\x00cut", b"PK\x03\x04"])
def test_another_file_is_refused_by_name(place, content, capsys):
    file = place / "results" / NAME
    file.write_bytes(content)
    with refused(str(file)):
        load_results(place)
    assert main(["verify", str(file), "--json"]) == EXIT_MISSING
    assert json.loads(capsys.readouterr().out)["runs"][0]["faults"][0]["file"] == str(file)


def test_a_cut_file_is_refused(place):
    file = place / "results" / NAME
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with refused(str(file)):
        load_results(place)
    file.write_bytes(whole + whole)
    with refused(str(file)):
        load_results(place)
    file.write_bytes(whole)
    lines = read_lines(file)
    write_lines(file, lines[:-1])
    with refused(str(file)):
        load_results(place)


def test_a_changed_study_is_compared_with_its_rows(place):
    """Cells and protocols of other content are refused; what the file lacks is planned or partial."""
    content = read_rows_file(place / "results" / NAME)
    study = load_study(place)
    wider = study.with_base({"optimizer.lr": 0.5})
    with refused_at("optimizer.lr"):
        committed_results(wider, content)
    protocol = dataclasses.replace(study.protocols[0], break_at_success=not study.protocols[0].break_at_success)
    with refused_at("protocol few@1"):
        committed_results(dataclasses.replace(study, protocols=(protocol,)), content)
    with refused_at("study"):
        committed_results(dataclasses.replace(study, name="another"), content)
    more = dataclasses.replace(study, seeds=(0, 1), interventions=("zero", "freeze_first"))
    states = [cell.state for cell in committed_results(more, content).records]
    assert states == ["done", "partial", "planned", "planned"]
    less = committed_results(study.narrowed(variants=("K=8",)), content)
    assert [(cell.variant, len(cell.rows)) for cell in less.records] == [("K=8", 2)]


@pytest.mark.slow
def test_unsealed_results_and_unconfirmed_identities_are_stated(place, written, undrawn, capsys):
    _, results = written
    cells = tuple(
        (item, dataclasses.replace(cell, data=None, unsealed=frozenset({("few@1", "none")})))
        for item, cell in results.cells
    )
    file = place / "results" / NAME
    write_rows(file, [dataclasses.replace(results, cells=cells)], printed=results.cells[0][1].provenance)
    assert main(["report", str(place), "--committed", "--out", str(place / "out")]) == 0
    text = (place / "out" / "report.md").read_text()
    assert "older than seals: 2 results" in text and "none, seed 0; K=8, seed 0: its provenance was taken" in text
    assert "nothing confirms its train id" in text
    capsys.readouterr()
    assert main(["verify", str(file), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["runs"]
    assert (answer["sealed"], answer["not_sealed"], len(answer["notes"])) == (2, 2, 2)


def test_verify_of_a_clone_checks_the_rows_of_the_study(place, capsys):
    """Without runs and data."""
    assert main(["verify", str(place), *at(place), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["runs"]
    assert answer["train"] == str(place / "results" / NAME) and answer["sealed"] == 4


def test_study_files_beside_study_py_have_their_results(tmp_path):
    file = tmp_path / "mikasa.py"
    assert results_folder(file) == results_folder(tmp_path) == tmp_path / "results"
    (tmp_path / "results-mikasa").mkdir()
    assert results_folder(file) == tmp_path / "results-mikasa" and results_folder(tmp_path) == tmp_path / "results"
    assert results_folder(tmp_path / "study.py") == tmp_path / "results"


def test_no_rows_are_one_error(place):
    (place / "results" / NAME).unlink()
    with refused(str(place / "results" / NAME)):
        load_results(place)
