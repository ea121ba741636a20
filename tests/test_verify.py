"""Rows are believed for what can be checked: each manipulation is named, and costs its own result alone."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from helpers.errors import refused
from helpers.studies import FEW, STUDY, at, one_cell
from muvla.checkpoints import native
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.cli.output import EXIT_FAILED_CELLS, EXIT_MISSING
from muvla.errors import MuvlaError
from muvla.evaluation.records import DamagedResult, read_rows, result_id, summarise
from muvla.evaluation.seal import close_seal, digests, open_seal, seal_file
from muvla.runs.results import has_result, read_result
from muvla.runs.verify import verify_run
from muvla.utils.io import read_json, write_json
from sweeps.launchers.base import Status
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.sweep import SweepOptions, run_study
from sweeps.work import bring_to_end


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished cell with two sealed results of 20 episodes: without an intervention, and under `zero`."""
    root = tmp_path_factory.mktemp("finished")
    (root / "study.py").write_text(STUDY.format(updates=4))
    entry, job = one_cell(root / "study.py", root, updates=4)
    assert bring_to_end(job, lambda *_: None, lambda: False) == Status.DONE
    return root, entry


@pytest.fixture
def cell(finished, tmp_path):
    """A copy of the finished cell, to be damaged."""
    root, entry = finished
    shutil.copytree(root / "runs", tmp_path / "runs")
    run = dataclasses.replace(entry.run, root=tmp_path / "runs")
    return dataclasses.replace(entry, run=run)


def rows_of(entry, name="none"):
    return entry.run.rows / f"{result_id(entry.run.train, FEW, name)}.jsonl"


def rewrite(path, change, number=3, seal=False):
    """Change line `number` of the rows; with `seal`, as a program that also keeps the digests up to date."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[number - 1] = change(lines[number - 1])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if not seal:
        seal_file(path).unlink()
    else:
        write_json(seal_file(path), read_json(seal_file(path)) | {"rows": digests(path)})


def test_a_finished_cell_holds(cell):
    verification = verify_run(cell.run, [FEW])
    assert not verification.faults and not verification.notes
    assert (verification.sealed, verification.unsealed, verification.unfinished) == (2, 0, 0)
    assert cell.state == "done" and cell.records().unsealed == 0


# Each changes line 3 of a result: (change, field of the error). The value is the wrong one of the row.
MANIPULATIONS = {
    "a seed before the protocol's": ({"seed": FEW.seed - 1}, "seed"),
    "a seed after the protocol's": ({"seed": FEW.seed + FEW.episodes}, "seed"),
    "success is a word": ({"success_once": "no"}, "success_once"),
    "success is a number": ({"success_once": 1}, "success_once"),
    "choice is a text": ({"choice": "1"}, "choice"),
    "choice is a fraction": ({"choice": 1.0}, "choice"),
    "choice is true": ({"choice": True}, "choice"),
    "no such object": ({"choice": 99}, "choice"),
    "no such target": ({"target": 3}, "target"),
    "choice below -1": ({"choice": -2}, "choice"),
    "protocol's hash": ({"protocol_hash": "0123456789ab"}, "result"),
    "protocol": ({"protocol": "other@1"}, "protocol"),
    "task": ({"task": "RecallPosition5-v0"}, "task"),
    "suite": ({"group": "mikasa"}, "group"),
    "another run": ({"train": "0123456789ab"}, "result"),
    "another intervention": ({"intervention": "zero"}, "result"),
    "another result": ({"result": "0123456789ab"}, "result"),
    "the seed of line 2": ({"seed": FEW.seed + 1}, "attempt"),
    "success without a step": ({"success_once": True, "first_success_step": None}, "success_once"),
    "an outcome beside an error": ({"error": "lost", "target": None, "choice": 1, "success_once": None}, "choice"),
    "no attempt": ({"attempt": 0}, "attempt"),
    "an attempt without a number": ({"attempt": None}, "attempt"),
    "no steps": ({"steps": 0}, "steps"),
    "seconds without end": ({"seconds": float("inf")}, "seconds"),
    "a field more": ({"reward": 1.0}, "reward"),
}


@pytest.mark.parametrize("name", MANIPULATIONS)
@pytest.mark.parametrize("sealed", [True, False], ids=["digests kept up to date", "not sealed"])
def test_a_manipulated_row_is_named_by_line(cell, name, sealed):
    change, field = MANIPULATIONS[name]
    path = rows_of(cell)
    rewrite(path, lambda row: row | change, seal=sealed)
    with pytest.raises(DamagedResult) as info:
        read_result(cell.run, FEW, "none")
    assert info.value.field == f"{path}:3: {field}"
    assert [fault.field for fault in verify_run(cell.run, [FEW]).faults] == [info.value.field]
    assert cell.state == "damaged"
    assert set(cell.complete_rows()) == {(FEW.id, "zero")}, "the other result is not concerned"
    (text,) = cell.records().damage
    assert str(path) in text


def test_a_row_that_was_edited_within_its_types_is_recognised_by_its_digest(cell):
    """The only trace of an honest-looking edit."""
    path = rows_of(cell)
    seal = read_json(seal_file(path))
    rewrite(path, lambda row: row | {"choice": (row["choice"] + 1) % 3}, seal=True)
    write_json(seal_file(path), seal)
    with refused(f"{path}:3", DamagedResult):
        read_result(cell.run, FEW, "none")
    assert verify_run(cell.run).faults[0].field == f"{path}:3"
    seal_file(path).unlink()
    assert read_result(cell.run, FEW, "none").is_complete, "a result that is older than digests is read"
    assert verify_run(cell.run, [FEW]).unsealed == 1 and cell.records().unsealed == 1


def test_a_measured_row_that_became_an_error_is_recognised(cell):
    """The error is visible in every count, and `--retry-errors` measures the episode again."""
    path = rows_of(cell)
    seal = read_json(seal_file(path))
    unmeasured = dict.fromkeys(("target", "choice", "success_once")) | {"error": "lost"}
    rewrite(path, lambda row: row | unmeasured, seal=True)
    write_json(seal_file(path), seal)
    assert [fault.field for fault in verify_run(cell.run, [FEW]).faults] == [str(path)]
    assert summarise(cell.complete_rows()[FEW.id, "none"]).errors == 1
    assert (FEW, "none") in cell.missing(retry_errors=True)


def test_a_row_twice_is_refused_and_a_second_attempt_follows_an_error_alone(cell):
    path = rows_of(cell)
    seal_file(path).unlink()
    whole = path.read_text()
    last = json.loads(whole.splitlines()[-1])
    for again in (last, last | {"choice": (last["choice"] + 1) % 3}, last | {"attempt": 2}):
        path.write_text(whole + json.dumps(again) + "\n")
        with refused(f"{path}:21: attempt", DamagedResult):
            read_result(cell.run, FEW, "none")
    unmeasured = dict.fromkeys(("target", "choice", "success_once"))
    first = whole.splitlines(keepends=True)[:-1]
    path.write_text("".join(first) + json.dumps(last | unmeasured | {"error": "lost"}) + "\n")
    assert read_result(cell.run, FEW, "none").has_errors
    path.write_text(path.read_text() + json.dumps(last | {"attempt": 2}) + "\n")
    result = read_result(cell.run, FEW, "none")
    assert result.is_complete and not result.has_errors


def test_rows_of_another_intervention_or_run_under_this_name(cell):
    path, other = rows_of(cell), rows_of(cell, "zero")
    shutil.copy(other, path)
    with refused(f"{path}:1: result", DamagedResult):
        read_result(cell.run, FEW, "none")
    shutil.copy(seal_file(other), seal_file(path))
    with refused(f"{seal_file(path)}: result", DamagedResult):
        read_result(cell.run, FEW, "none")
    elsewhere = cell.run.root / "0123456789ab"
    shutil.copytree(cell.run.folder, elsewhere)
    strange = verify_run(dataclasses.replace(cell.run, train="0123456789ab"), [FEW])
    fields = [fault.field for fault in strange.faults]
    assert f"{elsewhere / 'run.json'}: train" in fields and f"{other.name}:1: train" in " ".join(fields)


def test_what_runs_json_and_checkpoint_say_is_held_against_the_train_id(cell):
    file = cell.run.folder / "run.json"
    meta = read_json(file)
    write_json(file, meta | {"cell": meta["cell"] | {"seed": 7}})
    assert f"{file}: cell" in [fault.field for fault in verify_run(cell.run, [FEW]).faults]
    write_json(file, meta)
    (model,) = native.latest(cell.run.folder / "checkpoints").glob("model.safetensors")
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    assert [fault.field for fault in verify_run(cell.run, [FEW]).faults] == [str(model)]


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"kind": "x", "error": "", "traceback": ""}', "{", "\xff"])
def test_a_failure_mark_that_says_nothing_takes_all_numbers_back(cell, content):
    """An unreadable mark may be one of a broken invariant."""
    file = cell.run.folder / "failure.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(MuvlaError) as info:
        _ = cell.run.failure
    assert info.value.field.startswith(str(file))
    assert cell.state == "damaged" and not cell.complete_rows()
    assert [fault.field for fault in verify_run(cell.run, [FEW]).faults] == [info.value.field]


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"rows": 3}', "{", '{"train": 1}'])
def test_a_broken_seal_is_named(cell, content):
    file = seal_file(rows_of(cell))
    file.write_text(content)
    with pytest.raises(DamagedResult) as info:
        read_result(cell.run, FEW, "none")
    assert info.value.field.startswith(str(file))
    assert cell.state == "damaged"
    for named in info.value.remedy.split(";")[0].removeprefix("remove ").split(" and "):
        Path(named).unlink()
    assert cell.state == "partial", "the remedy helps"


def test_rows_that_are_gone_are_missing_and_run_again(cell):
    """A result without some of its sealed rows is not complete. Nobody can tell why; nothing false is read."""
    path = rows_of(cell)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert not has_result(cell.run, FEW, "none") and cell.state == "partial"
    assert [fault.field for fault in verify_run(cell.run, [FEW]).faults] == [str(path)]
    path.unlink()
    assert cell.missing() == [(FEW, "none")]
    assert [fault.field for fault in verify_run(cell.run, [FEW]).faults] == [str(path)]


def test_a_result_with_an_open_seal_is_not_finished(cell):
    """As a process leaves it that is killed between the last row and the digests."""
    path = rows_of(cell)
    before = seal_file(path).read_bytes()
    open_seal(path, cell.run.train, FEW, "none")
    assert not has_result(cell.run, FEW, "none") and cell.missing() == [(FEW, "none")]
    assert verify_run(cell.run, [FEW]).unfinished == 1
    close_seal(path)
    assert seal_file(path).read_bytes() == before and has_result(cell.run, FEW, "none")


def test_lists_of_runs_name_a_damaged_run_and_go_on(cell, tmp_path, capsys):
    shutil.copytree(cell.run.folder, tmp_path / "runs" / "0123456789ab")
    (tmp_path / "runs" / "0123456789ab" / "run.json").write_text("{")
    assert main(["ls", "runs", "--runs", str(tmp_path / "runs"), "--json"]) == 0
    runs = {run["train"]: run for run in json.loads(capsys.readouterr().out)["runs"]}
    assert runs["0123456789ab"]["state"] == "damaged" and "run.json" in runs["0123456789ab"]["error"]
    assert runs[cell.run.train]["state"] == "trained"


def test_logs_and_provenance_are_checked(cell):
    log = cell.run.folder / "train.jsonl"
    log.write_text(log.read_text() * 2)
    (record, *_) = (cell.run.folder / "provenance").iterdir()
    write_json(record, read_json(record) | {"device": "another"})
    fields = [fault.field for fault in verify_run(cell.run, [FEW]).faults]
    assert fields == [str(record), f"{log}:2: update"]


def test_the_verb_names_what_does_not_hold_and_exits_with_1(cell, tmp_path, capsys):
    folders = ["--runs", str(tmp_path / "runs"), "--data", str(cell.run.data)]
    assert main(["verify", *folders]) == 0
    rewrite(rows_of(cell), lambda row: row | {"success_once": "no"}, seal=True)
    capsys.readouterr()
    for what in ([], [cell.run.train], [cell.run.train[:6]], [str(tmp_path / "runs")], [str(cell.run.folder)]):
        assert main(["verify", *what, "--json", *folders]) == EXIT_MISSING
        answer = json.loads(capsys.readouterr().out)
        assert not answer["ok"]
        (fault,) = answer["runs"][0]["faults"]
        assert fault["file"] == f"{rows_of(cell)}:3: success_once" and fault["got"] == "no"
    assert main(["verify", "nothing", *folders]) == EXIT_BAD_INPUT
    assert main(["verify", "--runs", str(tmp_path / "none")]) == EXIT_BAD_INPUT


@pytest.mark.slow
def test_a_sweep_and_a_report_name_a_damaged_cell_and_go_on(tmp_path, capsys, undrawn):
    """The damaged cell is neither run nor in a table. After the remedy, the same command mends it."""
    (tmp_path / "study.py").write_text(STUDY.format(updates=4))
    command = [str(tmp_path), "--no-tracking", *at(tmp_path)]
    assert main(["sweep", *command]) == 0
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    study = load_study(tmp_path)
    entries = ledger.entries(study, ledger.opened(study))
    damaged = next(entry for entry in entries if entry.item.variant == "K=8")
    path = rows_of(damaged)
    sealed = path.read_bytes()
    rewrite(path, lambda row: row | {"success_once": "no"}, seal=True)
    assert main(["sweep", *command]) == EXIT_FAILED_CELLS
    assert f"{path}:3" in capsys.readouterr().out
    assert main(["status", str(tmp_path), *at(tmp_path), "--json"]) == 0
    states = {cell["variant"]: cell["state"] for cell in json.loads(capsys.readouterr().out)["cells"]}
    assert states == {"none": "done", "K=8": "damaged"}
    assert main(["report", str(tmp_path), *at(tmp_path), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert f"{path}:3" in text and "K=8, seed 0: damaged" in text
    plain = [line for line in (tmp_path / "out" / "cells.csv").read_text().splitlines() if ",none," in line]
    assert plain and not any(line.startswith("K=8") for line in plain)
    assert main(["verify", str(tmp_path), *at(tmp_path)]) == EXIT_MISSING
    (baseline,) = (tmp_path / "runs" / "random" / "rows").glob("*.jsonl")
    whole = {file: file.read_bytes() for file in (baseline, seal_file(baseline))}
    rewrite(baseline, lambda row: row | {"success_once": 1}, seal=True)
    assert main(["report", str(tmp_path), *at(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert f"{baseline}:3" in (tmp_path / "out" / "report.md").read_text()
    for file, content in whole.items():
        file.write_bytes(content)
    path.unlink()  # the remedy
    result = run_study(study, ledger, SweepOptions(processes=1, track=False), lambda _: None)
    assert not result.failed and [entry.state for entry in result.entries] == ["done", "done"]
    fresh = [
        dataclasses.asdict(row) | {"seconds": 0, "environment_seconds": 0, "provenance": ""} for row in read_rows(path)
    ]
    path.write_bytes(sealed)
    old = [
        dataclasses.asdict(row) | {"seconds": 0, "environment_seconds": 0, "provenance": ""} for row in read_rows(path)
    ]
    by_seed = lambda rows: sorted(rows, key=lambda row: row["seed"])  # noqa: E731
    assert by_seed(fresh) == by_seed(old)
