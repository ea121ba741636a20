"""The command line: exit statuses, the one error line, and the verbs on a small study."""

import json
import os
import re

import pytest

from helpers.paths import ROOT
from helpers.studies import FEW, STUDY, at
from muvla.cli.main import EXIT_BAD_INPUT, EXIT_FAILED_CELLS, main
from muvla.evaluation.catalog import declared_sets
from muvla.runs.find import find_run


@pytest.fixture(scope="module")
def place(tmp_path_factory, few):
    """A folder with a study, swept once through the command line."""
    root = tmp_path_factory.mktemp("cli")
    (root / "study.py").write_text(STUDY.format(updates=6))
    assert main(["sweep", str(root), *at(root), "--no-tracking"]) == 0
    return root


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "memory.width=3"], "memory.width: got an unknown field"),
        (["--set", "budget.window=12"], "truncation: got 8, expected a divisor K of the window W = 12"),
        (["--set", "truncation=4"], "--set truncation: got a field that is set by K=8"),
        (["--set", "optimizer.lr=-1"], "optimizer.lr: got -1.0, expected > 0"),
        (["--processes", "0"], "--processes: got 0, expected at least 1"),
        (["--workers", "0"], "--workers: got 0, expected at least 1"),
        (["--threads", "0"], "--threads: got 0, expected at least 1"),
        (["--time-limit", "0"], "--time-limit: got 0.0, expected more than 0"),
        (["--set", "memory.m"], "--set: got 'memory.m', expected field=value"),
        (["--set", "data.dataset.task.name=RecallSmell3-v0"], "task.name: got 'RecallSmell3-v0'"),
        (["--variant", "K=9"], "--variants: got 'K=9'"),
        (["--seeds", "zero"], "--seeds: got 'zero'"),
        (["--device", "cuda"], "--device: got 'cuda'"),
    ],
)
def test_bad_input_is_one_error_line_and_status_2(place, capsys, arguments, message):
    if "cuda" in arguments:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    assert main(["sweep", str(place), *at(place), "--plan", *arguments]) == EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Remedy: " in error and error.count("\n") == 1


def test_an_undeclared_difference_is_refused_before_anything_runs(tmp_path, capsys):
    text = STUDY.format(updates=6).replace("tbptt(8, 4)}", 'tbptt(8, 4) | {"optimizer.lr": 0.1}}')
    (tmp_path / "study.py").write_text(text)
    assert main(["sweep", str(tmp_path), *at(tmp_path)]) == EXIT_BAD_INPUT
    assert "optimizer.lr: 0.001 in the base, 0.1 in this variant" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_study_that_is_not_there(tmp_path, capsys):
    assert main(["sweep", str(tmp_path / "nowhere")]) == EXIT_BAD_INPUT
    assert "recall_quick" in capsys.readouterr().err


def test_a_failed_cell_gives_status_3(place, capsys):
    arguments = ["--set", "optimizer.lr=1e30", "--set", "optimizer.clip=null", "--variant", "K=8", "--no-tracking"]
    assert main(["sweep", str(place), *at(place), *arguments]) == EXIT_FAILED_CELLS
    out = capsys.readouterr().out
    assert "not a measurement" in out and "optimizer.lr" in out


def test_plan_lists_train_ids_and_runs_nothing(place, capsys):
    assert main(["sweep", str(place), *at(place), "--plan", "--set", "budget.updates=99"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^[0-9a-f]{12}  planned", out, re.MULTILINE)) == 2
    assert not [p for p in (place / "runs").iterdir() if p.name in out and (p / "train.jsonl").exists()]


def train_id_of(place, capsys, variant="K=8"):
    main(["sweep", str(place), *at(place), "--plan"])
    return re.search(rf"^([0-9a-f]{{12}})  done +{re.escape(variant)}", capsys.readouterr().out, re.MULTILINE)[1]


@pytest.mark.slow
def test_intervene_and_evaluate_on_a_trained_cell(place, capsys, monkeypatch):
    train = train_id_of(place, capsys)
    common = [train[:6], *at(place), "--protocol", FEW.id]
    assert main(["intervene", common[0], "noise_unit", "zero", *common[1:]]) == 0
    lines = capsys.readouterr().out.splitlines()
    results = [line for line in lines if line.startswith(FEW.id)]  # where nothing succeeded, checks stand under them
    assert [line.split(":")[0] for line in results] == [f"{FEW.id} {k}" for k in ("noise_unit", "zero")]
    assert main(["evaluate", *common]) == 0
    evaluated = capsys.readouterr().out
    assert "n 20, touch rate" in evaluated
    monkeypatch.setitem(declared_sets(), "some@1", (FEW,))
    assert main(["evaluate", *common[:-1], "some@1"]) == 0
    assert capsys.readouterr().out == evaluated, "a set is its protocols, and none is evaluated twice"
    for rows in (find_run(place / "runs", place / "data", train).rows).iterdir():
        if '"none"' in rows.read_text():
            rows.unlink()
    assert main(["evaluate", *common, "--workers", "3"]) == 0
    assert capsys.readouterr().out == evaluated, "another number of environments, the same result"
    assert main(["intervene", common[0], "amnesia", *common[1:]]) == EXIT_BAD_INPUT
    assert main(["evaluate", "ffffff", *common[1:]]) == EXIT_BAD_INPUT
    assert main(["evaluate", *common[:-1], "recall-position3-ol4@1"]) == EXIT_BAD_INPUT
    assert "chunk H = 1" in capsys.readouterr().err
    assert find_run(place / "runs", place / "data", train).failure is None, "a protocol that does not fit marks no cell"
    assert main(["evaluate", *common[:-1], "nowhere@1"]) == EXIT_BAD_INPUT


@pytest.mark.slow
def test_episodes_with_errors_are_named_and_run_again_when_asked(place, capsys):
    """By evaluate and by intervene; without being asked nothing is run twice."""
    train = train_id_of(place, capsys)
    common = [*at(place), "--protocol", FEW.id]
    nothing = (
        "target",
        "choice",
        "cue_length",
        "delay_length",
        "first_decision_step",
        "success_once",
        "success_at_end",
        "first_success_step",
        "steps",
    )
    for arguments, kind in ((["evaluate", train], "none"), (["intervene", train, "zero"], "zero")):
        assert main([*arguments, *common]) == 0
        clean = capsys.readouterr().out.splitlines()[0]
        rows = find_run(place / "runs", place / "data", train).rows
        (file,) = (path for path in rows.iterdir() if f'"intervention": "{kind}"' in path.read_text())
        first, *others = file.read_text().splitlines()
        broken = json.loads(first) | dict.fromkeys(nothing) | {"error": "WorkerLost: gone"}
        file.write_text("\n".join([*others, json.dumps(broken)]) + "\n")
        assert main([*arguments, *common]) == 0
        told = capsys.readouterr().out.splitlines()[0]
        assert told.startswith(f"{FEW.id} {kind}: n 19")
        assert told.endswith("1 episodes with errors, in no rate (--retry-errors runs them)")
        assert main([*arguments, *common, "--retry-errors"]) == 0
        assert capsys.readouterr().out.splitlines()[0] == clean and len(file.read_text().splitlines()) == 21


def test_train_then_evaluate(place, capsys):
    assert main(["train", str(place), *at(place), "--variant", "K=8", "--set", "budget.updates=3"]) == 0
    out = capsys.readouterr().out
    folder = re.search(r"trained, (\S+)", out)[1]
    run = find_run(place / "runs", place / "data", folder.split("/")[-1])
    assert run.is_trained and run.failure is None
    assert main(["train", str(place), *at(place), "--variant", "K=8", "--set", "budget.updates=3"]) == 0


def test_an_untrained_run_cannot_be_evaluated(place, capsys):
    from muvla.utils.io import read_json, write_json

    source = find_run(place / "runs", place / "data", train_id_of(place, capsys))
    copy = place / "runs" / "000000000000"
    write_json(copy / "run.json", read_json(source.folder / "run.json"))
    common = [*at(place), "--protocol", FEW.id]
    assert main(["evaluate", "000000", *common]) == EXIT_BAD_INPUT
    assert "train the cell first" in capsys.readouterr().err


def test_report(place, capsys):
    assert main(["report", str(place), *at(place)]) == 0
    out = capsys.readouterr().out
    assert "choice accuracy given a touch" in out and "choice.png" in out and "interventions.png" in out
    assert (place / "runs" / "report" / "tiny_study" / "main.tex").exists()


def test_a_plan_without_data_collects_nothing(tmp_path, capsys):
    (tmp_path / "study.py").write_text(STUDY.format(updates=6))
    assert main(["sweep", str(tmp_path), *at(tmp_path), "--plan"]) == 0
    assert "not collected yet" in capsys.readouterr().out
    assert not (tmp_path / "data").exists()


def test_training_a_marked_cell_is_refused(place, capsys):
    arguments = ["--set", "optimizer.lr=1e30", "--set", "optimizer.clip=null", "--variant", "K=8"]
    main(["sweep", str(place), *at(place), *arguments, "--no-tracking"])
    assert main(["train", str(place), *at(place), *arguments]) == EXIT_BAD_INPUT
    assert "a cell marked 'not a measurement'" in capsys.readouterr().err


def test_report_without_data_names_the_remedy(tmp_path, capsys):
    (tmp_path / "study.py").write_text(STUDY.format(updates=6))
    assert main(["report", str(tmp_path), *at(tmp_path)]) == EXIT_BAD_INPUT
    assert "error: " in capsys.readouterr().err


def test_collect(tmp_path, capsys):
    (tmp_path / "study.py").write_text(STUDY.format(updates=6))
    assert main(["collect", str(tmp_path), *at(tmp_path)]) == 0
    assert "24 episodes" in capsys.readouterr().out


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_collect_without_a_job_is_refused(tmp_path, capsys, jobs):
    (tmp_path / "study.py").write_text(STUDY.format(updates=6))
    assert main(["collect", str(tmp_path), *at(tmp_path), "--jobs", jobs]) == EXIT_BAD_INPUT
    assert "--jobs" in capsys.readouterr().err


def test_a_checkpoint_cut_short_is_one_clear_error(place, capsys):
    run = find_run(place / "runs", place / "data", train_id_of(place, capsys))
    (file,) = run.folder.glob("checkpoints/update-*/model.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[:1000])
    try:
        arguments = [run.train, "zero", *at(place), "--protocol", "recall-position5-rh@1"]
        assert main(["intervene", *arguments]) == EXIT_BAD_INPUT
        assert "model.safetensors" in capsys.readouterr().err
    finally:
        file.write_bytes(content)


def test_the_doctor_runs_where_torch_is_missing(tmp_path):
    """It is there to say so."""
    import subprocess
    import sys

    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")\n")
    run = subprocess.run(
        [sys.executable, "-m", "muvla.cli", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )
    assert run.returncode == 1 and "No module named 'torch'" in run.stdout and "Traceback" not in run.stderr


def test_help_of_every_verb(capsys):
    for verb in ("doctor", "collect", "train", "evaluate", "intervene", "watch", "sweep", "report"):
        with pytest.raises(SystemExit) as end:
            main([verb, "--help"])
        assert end.value.code == 0
    assert "usage" in capsys.readouterr().out
