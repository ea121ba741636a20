"""The command line: exit statuses, the error's field, JSON, and every way to name a run."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request

import pytest
import typer

from helpers.paths import ROOT
from helpers.studies import FEW, STUDY, at
from muvla.cli.main import EXIT_BAD_INPUT, EXIT_FAILED_CELLS, app, main
from muvla.cli.options import _complete_run
from muvla.evaluation.catalog import declared_protocols, declared_sets
from muvla.runs.find import find_run
from muvla.runs.results import result_rows
from muvla.runs.run import Run
from muvla.utils.io import read_json, write_json

ROW_OUTCOME = (
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


@pytest.fixture(scope="module")
def place(tmp_path_factory, few):
    """A folder with a study, swept once through the command line."""
    root = tmp_path_factory.mktemp("cli")
    (root / "study.py").write_text(STUDY.format(updates=6))
    assert main(["sweep", str(root), *at(root), "--no-tracking"]) == 0
    return root


def field_of(capsys) -> str:
    """The field of the one error line on stderr."""
    lines = capsys.readouterr().err.splitlines()
    parts = re.fullmatch(r"error: (?P<field>.+?): got .+, expected .+\. Remedy: .+", lines[0])
    assert parts, lines
    assert all(line.startswith("  ") for line in lines[1:]), "only names follow, each on its line"
    return parts["field"]


def json_of(capsys, *words) -> dict:
    """The object on stdout of a command that succeeds."""
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def train_id_of(place, variant="K=8"):
    (folder,) = (
        path.parent
        for path in (place / "runs").glob("*/run.json")
        if (read_json(path)["cell"]["memory"]["kind"] == "none") == (variant == "none")
        and read_json(path)["cell"]["budget"]["updates"] == 6
        and read_json(path)["cell"]["optimizer"]["lr"] < 1
    )
    return folder.name


def run_of(place):
    return find_run(place / "runs", place / "data", train_id_of(place))


# --- help -------------------------------------------------------------------------------------------------------------


def verbs(command=None, path=()):
    """(words, command) of every verb."""
    command = command or typer.main.get_command(app)
    for name, sub in getattr(command, "commands", {}).items():
        if hasattr(sub, "commands"):
            yield from verbs(sub, (*path, name))
        else:
            yield (*path, name), sub


VERBS = dict(verbs())


def test_every_file_of_a_verb_is_registered():
    files = (ROOT / "muvla" / "cli").glob("*.py")
    names = {path.stem.replace("_", "-") for path in files if "def add(app" in path.read_text()}
    assert names == {words[0] for words in VERBS}


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_help_has_an_example_and_explains_every_parameter(words, capsys):
    assert main([*words, "--help"]) == 0
    assert f"Example: muvla {' '.join(words)}" in " ".join(capsys.readouterr().out.split())
    command = VERBS[words]
    assert command.help.splitlines()[0].endswith(".")
    for parameter in command.params:
        assert parameter.help, f"{' '.join(words)}: {parameter.name}"
        silent = parameter.required or parameter.default is False or parameter.multiple or parameter.is_eager
        assert silent or parameter.default is None or parameter.show_default, parameter.name


def test_without_arguments_help_is_printed(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    for panel in ("Study", "Policy", "Data", "Checkpoints", "System"):
        assert f"─ {panel} ─" in out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("muvla ")


def test_help_is_fast_because_it_imports_no_torch():
    code = "import sys; from muvla.cli.main import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_shell_completion_offers_verbs():
    words = {"_MUVLA_COMPLETE": "complete_bash", "COMP_WORDS": "muvla re", "COMP_CWORD": "1"}
    run = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv = ['muvla']; from muvla.cli.main import main; main()"],
        env=os.environ | words,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split() == ["report", "replay"]


def test_every_verb_can_print_one_json_object():
    def verbs(group, words=()):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from verbs(command, (*words, name))
            else:
                yield " ".join([*words, name]), {option for parameter in command.params for option in parameter.opts}

    assert not [verb for verb, options in verbs(typer.main.get_command(app)) if "--json" not in options]


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--set", "memory.width=3"], "memory.width"),
        (["--set", "budget.window=12"], "truncation"),
        (["--set", "truncation=4"], "--set truncation"),
        (["--set", "optimizer.lr=-1"], "optimizer.lr"),
        (["--processes", "0"], "--processes"),
        (["--runs", "r\udcff"], "--runs"),
        (["--data", "d\udcff"], "--data"),
        (["--set", "optimizer.weight_decay=1e30"], "optimizer.weight_decay"),
        (["--set", "memory.alpha=1e-30"], "--set memory.alpha"),
        (["--workers", "0"], "--workers"),
        (["--threads", "0"], "--threads"),
        (["--threads", "few"], "--threads"),
        (["--time-limit", "0"], "--time-limit"),
        (["--set", "memory.m"], "--set"),
        (["--set", "data.dataset.task.name=RecallSmell3-v0"], "task.name"),
        (["--variant", "K=9"], "--variant"),
        (["--seeds", "zero"], "--seeds"),
        (["--device", "cuda"], "--device"),
        (["--procesess", "2"], "muvla sweep"),
        (["--set"], "--set"),
        (["another"], "muvla sweep"),
    ],
)
def test_bad_input_is_one_error_and_status_2(place, capsys, arguments, field):
    if "cuda" in arguments:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    assert main(["sweep", str(place), *at(place), "--plan", *arguments]) == EXIT_BAD_INPUT
    assert field_of(capsys) == field


@pytest.mark.parametrize(
    ("words", "field", "names"),
    [
        (["swep"], "VERB", "sweep"),
        (["data", "sho"], "VERB", "show"),
        (["ls", "task"], "VERB", "tasks"),
        (["sweep", "recal_quick"], "STUDY", "recall_quick"),
        (["sweep", "memoryvla_ablations"], "STUDY", "memoryvla_ablations/position3_delay2.py"),
        (["sweep"], "STUDY", "--help"),
        (["diff", "recall_quick", "K=8"], "B", "--help"),
        (["diff", "recall_quick", "K=8", "k=2"], "VARIANT", "K=2"),
        (["baselines", "recall-positoin3-rh@1"], "protocol", "recall-position3-rh@1"),
        (["data", "show", "nothing"], "DATASET", "muvla collect"),
        (["data", "write", "x", "y", "--format", "rds"], "--format", "rlds"),
        (["evaluate", "x", "--protocol", "y", "--precision", "float16"], "--precision", "bfloat16"),
        (["init", "my-study"], "NAME", "my_study"),
        (["watch"], "VERB", "replay"),
        (["ceilings"], "VERB", "baselines"),
        (["sweep", "recall_quick", "--arm", "K=8"], "--arm", "--variant"),
        (["sweep", "recall_quick", "--between", "K=8", "K=2"], "--between", "muvla diff"),
    ],
)
def test_an_unknown_or_old_name_names_the_right_one(words, field, names, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    assert main(words) == EXIT_BAD_INPUT
    error = capsys.readouterr()
    assert not error.out and names in error.err
    assert error.err.startswith(f"error: {field}: got ")


@pytest.mark.parametrize(
    "name", ["a**", "[", "x" * 5000, "a/" + "x" * 5000, "a/b/" + "x" * 300 + "/0", "..", "%s", "{0}"]
)
@pytest.mark.parametrize("verb", [["status"], ["evaluate", "--protocol", FEW.id], ["verify"], ["inspect"], ["export"]])
def test_a_strange_name_is_one_error(tmp_path, capsys, monkeypatch, verb, name):
    here = tmp_path / "here"  # `..` holds nothing of another test
    (here / "runs" / "0123456789ab").mkdir(parents=True)
    (here / "runs" / "0123456789ab" / "run.json").write_text("{}")
    monkeypatch.chdir(here)
    options = ["--out", str(tmp_path / "out")] if verb == ["export"] else []
    assert main([verb[0], name, *verb[1:], *options]) == EXIT_BAD_INPUT
    assert capsys.readouterr().err.startswith("error: ")


def test_completion_of_strange_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a**").mkdir(parents=True)
    (tmp_path / "runs" / "a**" / "run.json").write_text("{}")
    assert _complete_run("a**") == ["a**"] and _complete_run("[") == []


def test_names_with_commas_are_listed_one_a_line(capsys):
    assert main(["sweep", "recall_quick", "--plan", "--variant", "recorded"]) == EXIT_BAD_INPUT
    assert "\n  recorded, K=2\n" in capsys.readouterr().err


def test_an_undeclared_difference_is_refused_before_anything_runs(tmp_path, capsys):
    text = STUDY.format(updates=6).replace("tbptt(8, 4)}", 'tbptt(8, 4) | {"optimizer.lr": 0.1}}')
    (tmp_path / "study.py").write_text(text)
    assert main(["sweep", str(tmp_path), *at(tmp_path)]) == EXIT_BAD_INPUT
    assert "optimizer.lr" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# --- sweep, train, collect, report ------------------------------------------------------------------------------------


def test_a_failed_cell_gives_status_3(place, capsys):
    arguments = ["--set", "optimizer.lr=1e30", "--set", "optimizer.clip=null", "--variant", "K=8", "--no-tracking"]
    assert main(["sweep", str(place), *at(place), *arguments]) == EXIT_FAILED_CELLS
    assert "not a measurement" in capsys.readouterr().out
    assert main(["train", str(place), *at(place), *arguments[:-1]]) == EXIT_BAD_INPUT, "a marked cell is not trained"
    (cell,) = json_of(capsys, "status", str(place), *at(place), *arguments[:-1])["cells"]
    assert cell["state"] == "not a measurement" and cell["error"]


def test_plan_lists_train_ids_and_runs_nothing(place, capsys):
    before = sorted(path.name for path in (place / "runs").iterdir())
    plan = json_of(capsys, "sweep", str(place), *at(place), "--plan", "--set", "budget.updates=99")
    assert [cell["state"] for cell in plan["cells"]] == ["planned", "planned"]
    assert all(len(cell["train"]) == 12 and cell["updates"] == 99 for cell in plan["cells"])
    assert sorted(path.name for path in (place / "runs").iterdir()) == before


def test_a_plan_without_data_collects_nothing(tmp_path, capsys):
    (tmp_path / "study.py").write_text(STUDY.format(updates=6))
    plan = json_of(capsys, "sweep", str(tmp_path), *at(tmp_path), "--plan")
    assert {cell["train"] for cell in plan["cells"]} == {None}
    assert {cell["state"] for cell in json_of(capsys, "status", str(tmp_path), *at(tmp_path))["cells"]} == {"planned"}
    assert not (tmp_path / "data").exists()


def test_quiet_prints_results_alone(place, capsys):
    capsys.readouterr()
    assert main(["sweep", str(place), *at(place), "--plan", "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["ls", "runs", "-q", "--runs", str(place / "runs")]) == 0
    assert train_id_of(place) in capsys.readouterr().out


def test_verbose_names_device_and_code(place, capsys):
    assert main(["sweep", str(place), *at(place), "--plan", "-v", "--device", "cpu"]) == 0
    assert "device cpu" in capsys.readouterr().err


def test_train_then_evaluate(place, capsys):
    arguments = ["train", str(place), *at(place), "--variant", "K=8", "--set", "budget.updates=3"]
    (cell,) = json_of(capsys, *arguments)["cells"]
    assert (cell["variant"], cell["updates"]) == ("K=8", "3/3")
    run = find_run(place / "runs", place / "data", cell["train"])
    assert run.is_trained and run.failure is None
    assert main(arguments) == 0


def test_report(place, capsys):
    report = json_of(capsys, "report", str(place), *at(place))
    assert {"main.md", "choice.png", "interventions.png"} <= {file.split("/")[-1] for file in report["files"]}
    folder = place / "runs" / "report" / "tiny_study"
    assert (folder / "main.md").exists() and not (folder / "paper").exists()
    json_of(capsys, "report", str(place), *at(place), "--for", "paper")
    assert {"variants.tex", "appendix.tex"} <= {path.name for path in (folder / "paper").iterdir()}


def test_an_unknown_audience_is_refused(place, capsys):
    assert main(["report", str(place), *at(place), "--for", "papers"]) == EXIT_BAD_INPUT
    assert "--for" in field_of(capsys)


def test_report_without_data_names_the_remedy(tmp_path, capsys):
    (tmp_path / "study.py").write_text(STUDY.format(updates=6))
    assert main(["report", str(tmp_path), *at(tmp_path)]) == EXIT_BAD_INPUT
    assert field_of(capsys)


def test_collect(tmp_path, capsys):
    (tmp_path / "study.py").write_text(STUDY.format(updates=6))
    for jobs in ("0", "-1"):
        assert main(["collect", str(tmp_path), *at(tmp_path), "--jobs", jobs]) == EXIT_BAD_INPUT
        assert field_of(capsys) == "--jobs"
    (dataset,) = json_of(capsys, "collect", str(tmp_path), *at(tmp_path))["datasets"]
    assert dataset["episodes"] == 24
    (listed,) = json_of(capsys, "ls", "datasets", "--data", str(tmp_path / "data"))["datasets"]
    assert listed["episodes"] == 24 and dataset["path"].endswith(listed["dataset"])


def test_a_study_without_protocols_collects_and_is_not_swept(tmp_path, capsys):
    (tmp_path / "study.py").write_text(STUDY.format(updates=6).replace('(few,), ("zero",)', "()"))
    (dataset,) = json_of(capsys, "collect", str(tmp_path), *at(tmp_path))["datasets"]
    assert dataset["episodes"] == 24
    for options in ([], ["--plan"]):
        assert main(["sweep", str(tmp_path), *at(tmp_path), *options]) == EXIT_BAD_INPUT
        assert field_of(capsys) == "study tiny_study, protocols"


def test_init_writes_a_study_that_can_be_planned(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert json_of(capsys, "init", "my_study")["study"] == "my_study/study.py"
    assert (tmp_path / "my_study" / "README.md").exists()
    plan = json_of(capsys, "sweep", "my_study", "--plan")
    assert plan["study"] == "my_study" and len(plan["cells"]) > 1
    assert main(["init", "my_study"]) == EXIT_BAD_INPUT


# --- evaluate and intervene -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_intervene_and_evaluate_on_a_trained_cell(place, capsys, monkeypatch):
    train = train_id_of(place)
    common = [train[:6], *at(place), "--protocol", FEW.id]
    results = json_of(capsys, "intervene", common[0], "noise_unit", "zero", *common[1:])["results"]
    assert [result["intervention"] for result in results] == ["noise_unit", "zero"]
    assert {result["episodes"] for result in results} == {20}
    evaluated = json_of(capsys, "evaluate", *common)
    monkeypatch.setitem(declared_sets(), "some@1", (FEW,))
    assert json_of(capsys, "evaluate", *common[:-1], "some@1") == evaluated, "no episode is run twice"
    for rows in run_of(place).rows.iterdir():
        if '"none"' in rows.read_text():
            rows.unlink()
    assert json_of(capsys, "evaluate", *common, "--workers", "3") == evaluated, "another number of environments"
    for words in (
        ["intervene", common[0], "amnesia", *common[1:]],
        ["evaluate", "ffffff", *common[1:]],
        ["evaluate", *common[:-1], "recall-position3-ol4@1"],
        ["evaluate", *common[:-1], "nowhere@1"],
    ):
        assert main(words) == EXIT_BAD_INPUT
    assert run_of(place).failure is None, "a protocol that does not fit marks no cell"


@pytest.mark.slow
def test_episodes_with_errors_are_named_and_run_again_when_asked(place, capsys):
    """By evaluate and by intervene; without being asked nothing is run twice."""
    train = train_id_of(place)
    common = [*at(place), "--protocol", FEW.id]
    for words, name in ((["evaluate", train], "none"), (["intervene", train, "zero"], "zero")):
        (clean,) = json_of(capsys, *words, *common)["results"]
        (file,) = (path for path in run_of(place).rows.iterdir() if f'"intervention": "{name}"' in path.read_text())
        first, *others = file.read_text().splitlines()
        broken = json.loads(first) | dict.fromkeys(ROW_OUTCOME) | {"error": "WorkerLost: gone"}
        file.write_text("\n".join([*others, json.dumps(broken)]) + "\n")
        (with_error,) = json_of(capsys, *words, *common)["results"]
        assert with_error["errors"] == 1
        assert json_of(capsys, *words, *common, "--retry-errors")["results"] == [clean]
        assert len(file.read_text().splitlines()) == 21


def test_an_untrained_run_cannot_be_evaluated(place, capsys):
    copy = place / "runs" / "000000000000"
    write_json(copy / "run.json", read_json(run_of(place).folder / "run.json"))
    assert main(["evaluate", "000000", *at(place), "--protocol", FEW.id]) == EXIT_BAD_INPUT
    assert field_of(capsys) == str(copy)
    shutil.rmtree(copy)


def test_a_checkpoint_cut_short_is_one_clear_error(place, capsys):
    run = run_of(place)
    (file,) = run.folder.glob("checkpoints/update-*/model.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[:1000])
    try:
        words = [run.train, "zero", *at(place), "--protocol", "recall-position5-rh@1"]
        assert main(["intervene", *words]) == EXIT_BAD_INPUT
        assert "model.safetensors" in capsys.readouterr().err
    finally:
        file.write_bytes(content)


def test_an_unknown_probe_or_intervention_names_the_nearest(place, capsys):
    common = ["--protocol", FEW.id, *at(place)]
    for words, nearest in (
        (["probe", train_id_of(place), "decoder"], "decoders"),
        (["intervene", train_id_of(place), "transplnt"], "transplant"),
    ):
        assert main([*words, *common]) == EXIT_BAD_INPUT
        assert nearest in capsys.readouterr().err


# --- names of runs ----------------------------------------------------------------------------------------------------


def test_every_name_of_a_run_means_the_same_run(place, capsys):
    train = train_id_of(place)
    common = ["--protocol", FEW.id, *at(place)]
    for name in (train, train[:4], f"{place}/K=8/0"):
        assert json_of(capsys, "evaluate", name, *common)["train"] == train
        facts = json_of(capsys, "inspect", name, *at(place))
        assert facts["checkpoint"].endswith(train)
    for name, field in (
        (f"{place}/K=9/0", "--variant"),
        (f"{place}/K=8/7", "--seeds"),
        (f"{place}/nowhere/K=8/0", "STUDY"),
        ("zzzz", "RUN"),
    ):
        assert main(["evaluate", name, *common]) == EXIT_BAD_INPUT
        assert field_of(capsys) == field


def test_an_ambiguous_beginning_lists_the_candidates(place, capsys):
    train = train_id_of(place)
    twin = place / "runs" / f"{train[:8]}ffff"
    write_json(twin / "run.json", read_json(place / "runs" / train / "run.json"))
    try:
        assert main(["evaluate", train[:8], *at(place), "--protocol", FEW.id]) == EXIT_BAD_INPUT
        error = capsys.readouterr().err
        assert train in error and twin.name in error
        assert main(["evaluate", train, *at(place), "--protocol", FEW.id]) == 0, "the whole id is not ambiguous"
    finally:
        shutil.rmtree(twin)


# --- lists and states -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "key", "name"),
    [
        (["tasks"], "task", "RecallPosition3-v0"),
        (["protocols"], "protocol", "recall-position3-rh@1"),
        (["protocols"], "protocol", "mikasa5-rh@1"),
        (["variants", "recall_quick"], "variant", "recorded, K=2"),
        (["memories"], "memory", "tokens"),
        (["interventions"], "intervention", "transplant"),
        (["probes"], "probe", "decoders"),
    ],
)
def test_lists(words, key, name, capsys):
    assert name in [row[key] for row in json_of(capsys, "ls", *words)[words[0]]]
    assert main(["ls", *words]) == 0
    assert name in capsys.readouterr().out


def test_only_tasks_of_a_suite(capsys):
    assert {row["suite"] for row in json_of(capsys, "ls", "tasks", "--suite", "recall")["tasks"]} == {"recall"}
    assert main(["ls", "tasks", "--suite", "recal"]) == EXIT_BAD_INPUT


def test_status_by_cell_and_of_all_runs(place, capsys):
    cells = {cell["variant"]: cell for cell in json_of(capsys, "status", str(place), *at(place))["cells"]}
    assert cells["K=8"]["state"] == "done" and cells["K=8"]["updates"] == "6/6"
    assert cells["K=8"]["train"] == train_id_of(place) and cells["K=8"]["results"] == "2/2"
    runs = json_of(capsys, "status", "--runs", str(place / "runs"))["runs"]
    assert runs == json_of(capsys, "ls", "runs", "--runs", str(place / "runs"))["runs"]
    (row,) = (row for row in runs if row["train"] == train_id_of(place))
    assert row["state"] == "trained" and row["memory"] == "tokens, K=8"


def test_status_where_nothing_is(tmp_path, capsys):
    assert json_of(capsys, "status", "--runs", str(tmp_path / "runs")) == {"runs": []}


def test_diff_names_the_declared_field(capsys):
    found = json_of(capsys, "diff", "recall_quick", "K=8", "K=2")
    assert found["differences"] == {"truncation": {"K=8": 8, "K=2": 2}}
    assert main(["diff", "recall_quick", "K=8", "K=2"]) == 0
    assert "truncation: 8 | 2" in capsys.readouterr().out


def test_protocols_that_are_listed_exist(capsys):
    names = {row["protocol"] for row in json_of(capsys, "ls", "protocols")["protocols"]}
    assert names == {*declared_protocols(), *declared_sets()}


def test_the_doctor_runs_where_torch_is_missing(tmp_path):
    """Its finding says so."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")\n")
    run = subprocess.run(
        [sys.executable, "-m", "muvla.cli", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )
    findings = {finding["name"]: finding for finding in json.loads(run.stdout)["findings"]}
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert not findings["device"]["ok"] and "torch" in findings["device"]["what"]


# --- serve ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(*arguments):
    """The addresses of a server that `muvla serve` started in a process of its own."""
    command = [sys.executable, "-m", "muvla.cli.main", "serve", *arguments, "--port", "0", "--json"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        text = ""
        while not text.endswith("}\n"):
            line = server.stdout.readline()
            assert line, "the server ended"
            text += line
        try:
            yield json.loads(text)
        finally:
            server.terminate()
            assert server.wait(20) == 0


@pytest.mark.slow
def test_a_served_cell_has_the_rows_of_the_cell_and_stands_beside_its_study(place, capsys):
    train = train_id_of(place)
    with served(train, *at(place), "--slots", "4") as addresses:
        port = addresses["websocket"].split(":")[-1].strip("/")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=10) as reply:
            config = json.load(reply)["config"]
        answer = json_of(capsys, "evaluate", addresses["websocket"], "--protocol", FEW.id, *at(place))
    assert config["train"] == train and config["regime"]["gripper"]["form"] == "raw"
    assert config["conventions"]["environment"] == FEW.task.name and config["statistics"]
    (server,) = (place / "runs").glob("*/server.json")
    rows = [
        {row.seed: [getattr(row, name) for name in ROW_OUTCOME] for row in result_rows(run, FEW, "none")}
        for run in (Run(place / "runs", place / "data", name) for name in (train, server.parent.name))
    ]
    assert rows[0] == rows[1] and len(rows[0]) == FEW.episodes and answer
    json_of(capsys, "report", str(place), *at(place), "--episodes", "0", "--beside", server.parent.name[:6])
    folder = place / "runs" / "report" / "tiny_study"
    assert "(served)" in (folder / "report.md").read_text() and (folder / "beside.csv").exists()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (["--gripper", "close"], "--gripper"),
        (["--gripper", "closes"], "--gripper"),  # the recall suite has no gripper
        (["--regime", "chunk"], "--h"),
        (["--statistics", "bridge"], "--statistics"),
        (["--host", "0.0.0.0"], "--access-key"),
    ],
)
def test_a_server_that_cannot_serve_is_refused(place, capsys, options, field):
    assert main(["serve", train_id_of(place), *at(place), *options]) == EXIT_BAD_INPUT
    assert field_of(capsys) == field
