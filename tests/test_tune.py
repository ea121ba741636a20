"""Tuning: space, samplers, seeds and episodes of the objective, pruning, order of completion, continuation."""

import dataclasses
import json
import shutil
import sys
from types import ModuleType

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from helpers.errors import printed_field, refused
from helpers.launching import run_in_order
from helpers.studies import STUDY
from muvla.cli.main import main
from muvla.evaluation.catalog import get_protocol
from muvla.runs.run import Run
from muvla.training.options import TrainingOptions
from muvla.utils.io import read_lines
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.sweep import SweepOptions
from sweeps.tune.halving import Standing, survivors, training_loss
from sweeps.tune.journal import JOURNAL, write_journal
from sweeps.tune.run import ROWS, run_tuning
from sweeps.tune.samplers import ask_tpe, sobol_points
from sweeps.tune.space import parse_space
from sweeps.tune.trials import COMPLETE, FAILED, PRUNED, TrialRow, choose
from sweeps.tune.tuning import BLOCK, Tuning, default_protocol, default_seeds

RUNG = 0.97  # 25 of 26 updates, where the training log has its first line
LR, SLOTS = "optimizer.lr=1e-4:1e-2:log", "budget.slots=1,2"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two variants, 26 updates of four frames."""
    file = tmp_path_factory.mktemp("study") / "study.py"
    text = STUDY.format(updates=26).replace("slots=4, window=8", "slots=2, window=2")
    text = text.replace("truncation=8", "truncation=2").replace("tbptt(8, 4)", "tbptt(2, 4)")
    file.write_text(text, encoding="utf-8")
    return load_study(file), file


def tuning_of(study, **changes):
    settings = {"trials": 3, "rungs": (RUNG,), "seeds": (7,), "protocol": default_protocol(study, 4)} | changes
    return Tuning(study, parse_space(study, [LR, SLOTS]), **settings)


# --- the space --------------------------------------------------------------------------------------------------------


def test_a_range_a_logarithmic_range_whole_numbers_and_choices(study):
    space = parse_space(
        study[0], [LR, SLOTS, "budget.updates=100:103", "optimizer.warmup=0:0.5", "optimizer.clip=null,1"]
    )
    lr, slots, updates, warmup, clip = space
    assert [lr.at(0), lr.at(0.5)] == [1e-4, 1e-3] and lr.is_logarithmic and not warmup.is_logarithmic
    assert [slots.at(0), slots.at(0.99)] == [1, 2] and slots.choices == (1, 2)
    assert [updates.at(x) for x in (0, 0.26, 0.51, 0.99)] == [100, 101, 102, 103]
    assert warmup.at(0.12345678) == 0.06173, "four significant digits, which a person can repeat"
    assert clip.choices == (None, 1)


@pytest.mark.parametrize(
    ("over", "field"),
    [
        ([], "--over"),
        (["optimizer.lr"], "--over"),
        (["optimizer.rate=1:2"], "--over"),
        ([LR, LR], "--over"),
        (["memory.m=2,4"], "--over memory.m"),
        (["truncation=1,2"], "--over truncation"),
        (["seed=1,2"], "--over seed"),
        (["optimizer.lr=1e-3:1e-4"], "--over optimizer.lr"),
        (["optimizer.lr=0:1:log"], "--over optimizer.lr"),
        (["optimizer.lr=1:2:linear"], "--over optimizer.lr"),
        (["optimizer.lr=a:b"], "--over optimizer.lr"),
        (["optimizer.lr=1"], "--over optimizer.lr"),
        (["optimizer.lr=1,1"], "--over optimizer.lr"),
        (["budget.slots=1.5:3"], "--over budget.slots"),
        (["budget.slots=0:3"], "--over budget.slots: budget.slots"),
        (["optimizer.lr=fast,slow"], "--over optimizer.lr: optimizer.lr"),
    ],
)
def test_a_space_that_no_cell_takes_is_refused(study, over, field):
    with refused(field):
        parse_space(study[0], over)


# --- the objective ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seeds": (0, 7)}, "--seeds"),
        ({"seeds": (7, 7)}, "--seeds"),
        ({"seeds": ()}, "--seeds"),
        ({"protocol": get_protocol("recall-position3-rh@1")}, "--protocol"),
        ({"protocol": get_protocol("recall-color3-rh@1")}, "--protocol"),
        ({"sampler": "sobel"}, "--sampler"),
        ({"trials": None}, "--trials"),
        ({"sampler": "grid"}, "--trials"),
        ({"trials": 0}, "--trials"),
        ({"sampler": "tpe", "batch": 0}, "--batch"),
        ({"rungs": (0.5, 0.25)}, "--rungs"),
        ({"rungs": (1.0,)}, "--rungs"),
        ({"keep": 0.0}, "--keep"),
    ],
)
def test_an_objective_that_reads_the_test_and_bad_settings_are_refused(study, changes, field):
    with refused(field):
        tuning_of(study[0], **changes)


def test_an_episode_of_the_studys_evaluation_is_refused_wherever_it_lies(study):
    """Also for a protocol of the user whose block no suite declares."""
    custom = dataclasses.replace(get_protocol("recall-position3-rh@1"), name="custom", seed=5_000, episodes=10)
    of_custom = dataclasses.replace(study[0], protocols=(custom,))
    last = dataclasses.replace(default_protocol(study[0], 4), seed=5_009)
    with refused("--protocol"):
        tuning_of(of_custom, protocol=last)
    tuning_of(of_custom, protocol=dataclasses.replace(last, seed=5_010))


def test_the_defaults_are_seeds_and_episodes_of_no_evaluation(study):
    hundred = dataclasses.replace(study[0], seeds=(0, 100))
    assert default_seeds(hundred) == (101, 102)
    assert default_protocol(hundred).seed == BLOCK.start == get_protocol("recall-position3-search@1").seed
    tuning_of(hundred, seeds=default_seeds(hundred), protocol=default_protocol(hundred))


# --- samplers ---------------------------------------------------------------------------------------------------------


def test_every_variant_has_the_same_points_and_more_trials_continue_the_sequence(study):
    tuning = tuning_of(study[0])
    first, second = tuning.recipes([]).values()
    assert first == second and len(first) == 3
    assert sobol_points(tuning.space, 8, 0)[:3] == first != sobol_points(tuning.space, 3, 1)
    grid = Tuning(
        study[0], parse_space(study[0], ["optimizer.lr=1e-4,1e-3", SLOTS]), tuning.protocol, (7,), None, "grid"
    )
    assert [tuple(r.values()) for r in grid.recipes([])["none"]] == [(1e-4, 1), (1e-4, 2), (1e-3, 1), (1e-3, 2)]
    with refused("--over optimizer.lr"):
        dataclasses.replace(tuning, sampler="grid", trials=None).recipes([])


def rows_of(points, scores):
    return [
        TrialRow(i, "K=8", COMPLETE, point, 200, ("a",), success={7: score}, mean=score)
        for i, (point, score) in enumerate(zip(points, scores, strict=True))
    ]


def test_a_batch_of_tpe_follows_from_the_finished_batches_alone(study):
    space = parse_space(study[0], [LR, SLOTS])
    first = ask_tpe(space, [], 4, 0, "K=8")
    assert first == ask_tpe(space, [], 4, 0, "K=8") != ask_tpe(space, [], 4, 0, "none")
    good, bad = rows_of(first, (0.9, 0.1, 0.2, 0.3)), rows_of(first, (0.1, 0.9, 0.2, 0.3))
    assert ask_tpe(space, good, 4, 0, "K=8") == ask_tpe(space, good, 4, 0, "K=8") != ask_tpe(space, bad, 4, 0, "K=8")
    assert len({json.dumps(recipe) for recipe in ask_tpe(space, good, 4, 0, "K=8")}) == 4


def test_ties_go_to_the_fewest_frames_then_to_the_lower_values_then_to_the_lower_number(study):
    space = parse_space(study[0], [LR, SLOTS])
    points = [
        {"optimizer.lr": lr, "budget.slots": s} for lr, s in ((1e-3, 2), (1e-3, 1), (1e-4, 2), (1e-4, 1), (1e-4, 1))
    ]
    rows = rows_of(points, (0.9, 0.9, 0.9, 0.9, 0.9))
    assert choose(rows, space).number == 3
    assert choose([dataclasses.replace(rows[0], frames=100), *rows[1:]], space).number == 0
    assert choose([*rows[:4], dataclasses.replace(rows[4], mean=0.95)], space).number == 4
    assert choose([dataclasses.replace(row, outcome=PRUNED) for row in rows], space) is None


def test_the_lowest_losses_continue_and_ties_go_to_the_lower_number():
    standings = [Standing(0, 0.3), Standing(1, 0.1), Standing(2, 0.3), Standing(3, float("inf"))]
    assert survivors(standings, 0.5) == survivors(standings[::-1], 0.5) == {0, 1}
    assert survivors(standings, 0.3) == {0, 1} and survivors(standings, 0.25) == {1} and survivors([], 0.5) == set()


def test_the_loss_of_a_rung_is_read_up_to_its_update(tmp_path):
    log = tmp_path / "train.jsonl"
    rows = [{"update": update, "loss": float(update)} for update in (25, 50, 75, 100, 125)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert training_loss(log, 100) == 87.5 and training_loss(log, 30) == 25 and training_loss(log, 10) == float("inf")


# --- whole tunings ----------------------------------------------------------------------------------------------------


def run(study, root, monkeypatch, order=None, retry_failed=False, **changes):
    """One tuning in this process; returns (result, contents of trials.jsonl, labels of the started jobs)."""
    started = run_in_order(monkeypatch, order)
    tuning = tuning_of(study[0], **changes)
    ledger = Ledger(root / "runs", root.parent / "data")
    training = TrainingOptions(diagnostics=False)
    options = SweepOptions(processes=1, track=False, retry_failed=retry_failed, training=training)
    result = run_tuning(tuning, ledger, options, root / "tune", lambda _: None)
    return result, (root / "tune" / ROWS).read_bytes(), started


@pytest.fixture(scope="module")
def tuned(study, tmp_path_factory):
    root = tmp_path_factory.mktemp("tuned") / "first"
    with pytest.MonkeyPatch.context() as patch:
        return *run(study, root, patch), root


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--launcher", "slurm"], "--launcher slurm"),
        (["--launcher", "slurm", "--gpus-per-cell", "2"], "--launcher slurm"),
        (["--launcher", "slurm", "--option", "partitoin=gpu"], "--option of the launcher slurm"),
        (["--launcher", "slrum"], "--launcher"),
        (["--gpus-per-cell", "2"], "--gpus-per-cell"),
    ],
)
def test_a_launcher_that_cannot_start_is_refused_before_anything_is_collected(
    study, tmp_path, monkeypatch, capsys, words, field
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "submitit", ModuleType("submitit"))  # the launcher stops before it uses it
    places = ["--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data")]
    assert main(["tune", str(study[1]), "--over", LR, "--trials", "2", *words, *places]) == 2
    assert printed_field(capsys) == field and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_pruned_trials_are_rows_of_their_kind_and_no_finished_cells(tuned):
    result, _, _, root = tuned
    assert not result.unfinished
    for variant in ("none", "K=8"):
        rows = [row for row in result.rows if row.variant == variant]
        assert [row.number for row in rows] == [0, 1, 2]
        assert sorted(row.outcome for row in rows) == [COMPLETE, COMPLETE, PRUNED]
        worst_kept = max(row.losses[25] for row in rows if row.outcome == COMPLETE)
        for row in rows:
            run_of = Run(root / "runs", root.parent / "data", *row.train)
            if row.outcome == PRUNED:
                assert row.losses[25] >= worst_kept and row.mean is None and not row.success
                assert not run_of.is_trained and not run_of.rows.exists()
                assert max(line["update"] for line in read_lines(run_of.folder / "train.jsonl")) == 25
            else:
                assert run_of.is_trained and row.success.keys() == {7}


@pytest.mark.slow
def test_another_order_of_completion_and_a_kill_give_the_same_file(tuned, study, monkeypatch):
    _, content, started, root = tuned
    with pytest.raises(KeyboardInterrupt):
        run(study, root.parent / "second", monkeypatch, order=lambda jobs: _stop_after(reversed(jobs), 4))
    again, other, rest = run(study, root.parent / "second", monkeypatch, order=reversed)
    assert other == content and again.rows == tuned[0].rows
    assert len(rest) == len(started) - 4 and rest != started[-len(rest) :]


@pytest.mark.slow
def test_a_failed_trial_is_tried_again_on_request_although_it_is_beyond_the_rung(tuned, study, monkeypatch):
    result, content, _, root = tuned
    (train,) = next(row.train for row in result.rows if row.outcome == COMPLETE)
    again = root.parent / "again"
    shutil.copytree(root, again)
    Run(again / "runs", root.parent / "data", train).fail("failed", "killed")
    failed, _, _ = run(study, again, monkeypatch)
    assert [row.train for row in failed.rows if row.outcome == FAILED] == [(train,)]
    assert run(study, again, monkeypatch, retry_failed=True)[1] == content


def _stop_after(jobs, count):
    for number, job in enumerate(jobs):
        if number == count:
            raise KeyboardInterrupt
        yield job


@pytest.mark.slow
def test_the_verb_writes_a_study_a_report_and_a_journal_and_repeats_nothing(tuned, study, capsys, monkeypatch):
    result, content, _, root = tuned
    started, out = run_in_order(monkeypatch), root.parent / "out"
    words = ["tune", str(study[1]), "--over", LR, "--over", SLOTS, "--trials", "3", "--seeds", "7"]
    words += ["--rungs", str(RUNG)]
    places = ["--runs", str(root / "runs"), "--data", str(root.parent / "data"), "--out", str(out), "--episodes", "4"]
    assert main([*words, *places, "--json"]) == 0 and not started
    assert json.loads(capsys.readouterr().out)["trials"] == [json.loads(line) for line in content.splitlines()]
    assert (out / ROWS).read_bytes() == content
    chosen = load_study(out)
    chosen.check()
    space = parse_space(study[0], [LR, SLOTS])
    for variant in ("none", "K=8"):
        recipe = choose([row for row in result.rows if row.variant == variant], space).recipe
        assert chosen.variants[variant] == {**study[0].variants[variant], **recipe}
    written = (out / "study.py").read_text(encoding="utf-8")
    assert max(map(len, written.splitlines())) <= 120 and "'" not in written.partition("RECIPES = ")[2]
    assert chosen.seeds == study[0].seeds and chosen.protocols == study[0].protocols
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "4 complete, 2 pruned, 0 failed" in report and (out / "slices.png").exists()
    storage = JournalStorage(JournalFileBackend(str(out / JOURNAL)))
    assert {s.study_name for s in optuna.get_all_study_summaries(storage)} == {"tiny_study/none", "tiny_study/K=8"}


def test_the_journal_is_a_view_that_follows_the_rows(study, tmp_path):
    space = parse_space(study[0], [LR, SLOTS])
    rows = rows_of(sobol_points(space, 4, 0), (0.9, 0.1, 0.2, 0.3))
    rows[1] = dataclasses.replace(rows[1], outcome=PRUNED, mean=None, success={}, losses={25: 0.5})
    file = tmp_path / JOURNAL

    def written():
        storage = JournalStorage(JournalFileBackend(str(file)))
        return optuna.load_study(study_name="s/K=8", storage=storage).trials

    for part in (rows[:2], rows, rows):
        write_journal(file, "s", ["K=8"], space, part)
        assert [trial.state.name for trial in written()] == [row.outcome.upper() for row in part]
    assert written()[1].intermediate_values == {25: -0.5} and written()[0].value == 0.9
    assert written()[0].params == rows[0].recipe
    write_journal(file, "s", ["K=8"], space, rows[2:])
    assert [trial.value for trial in written()] == [0.2, 0.3], "a journal that disagrees is written anew"
    file.write_text("no journal\n", encoding="utf-8")
    write_journal(file, "s", ["K=8"], space, rows)
    assert len(written()) == 4


def test_a_share_outside_the_training_is_refused():
    for share in (0.0, 1.0, -1.0):
        with refused("until"):
            TrainingOptions(until=share)
