"""Time to learn: weights that a training stores, their evaluation, and the log-rank contrasts of a report."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from analysis.contrasts import contrast_frame, contrast_sentences, contrast_table
from analysis.frames import tidy
from analysis.page.answer import answer
from analysis.page.sections.learning import LearningSection
from analysis.paper.results import main_tables
from analysis.report.committed import write_contrasts
from analysis.report.summary import Results, summary_block
from analysis.time_to_learn import NAME, times_frame, update_frame
from helpers.committed import commit, study_results
from helpers.errors import refused
from helpers.html import parse
from helpers.pages import page_content
from helpers.rows import records, row, write
from helpers.studies import FEW, one_cell
from muvla.checkpoints import native
from muvla.checkpoints.native_policy import load_policy
from muvla.config import tbptt
from muvla.evaluation.records import Baselines, UpdateRows, read_rows, result_id
from muvla.runs.verify import verify_run
from muvla.stats.hypotheses import logrank_p, logrank_scores
from muvla.training.options import TrainingOptions
from muvla.training.run import train_to_the_end
from muvla.training.trainer import Trainer
from muvla.utils.io import read_lines
from sweeps.committed import committed_results
from sweeps.contrasts import Contrasts, design_lines
from sweeps.launchers.base import Status
from sweeps.ledger import Entry, Ledger
from sweeps.loader import load_study
from sweeps.rows_reader import read_rows_file
from sweeps.stored_weights import require_weights, storing
from sweeps.sweep import SweepOptions, run_study
from sweeps.time_to_learn import METRIC, TimeToLearn
from sweeps.work import bring_to_end

DURING = dataclasses.replace(FEW, name="during", seed=FEW.seed + 1000, episodes=8)
LEARNING = TimeToLearn(DURING, (2, 4))


def declared(entry, learning=LEARNING, **changes):
    """The entry of the same cell in a study with a time to learn, and without interventions."""
    study = dataclasses.replace(entry.study, time_to_learn=learning, interventions=(), **changes)
    return Entry(study, entry.item, entry.run)


def job_of(entry, job):
    missing = tuple(entry.missing())
    return dataclasses.replace(job, missing=missing, options=storing(job.options, entry.study, entry.item.cell))


@pytest.fixture(scope="module")
def finished(study_file, tmp_path_factory):
    """A finished cell of 4 updates with its job."""
    root = tmp_path_factory.mktemp("learning")
    entry, job = one_cell(study_file, root, updates=4)
    entry = declared(entry)
    job = job_of(entry, job)
    assert bring_to_end(job, lambda *_: None, lambda: False) == Status.DONE
    return root, entry, job


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_stored_weights_move_no_bit_of_a_training(store, cell_with, tmp_path):
    """Not with a stop between them either: the weights are those of the uninterrupted training after the update."""
    cell = cell_with({"budget.updates": 4})
    whole = train_to_the_end(Trainer(cell, store), tmp_path / "whole")
    options, asked = TrainingOptions(weights_at=(1, 3)), []
    stop = lambda: asked.append(0) or len(asked) == 2  # noqa: E731
    train_to_the_end(Trainer(cell, store), tmp_path / "cut", should_stop=stop, options=options)
    assert sorted(path.name for path in (tmp_path / "cut" / native.WEIGHTS).glob("u*")) == ["update-000001"]
    end = train_to_the_end(Trainer(cell, store), tmp_path / "cut", options=options)
    alone, cut = native.load(whole), native.load(end)
    for part in alone.tensors:
        assert all(torch.equal(value, cut.tensors[part][name]) for name, value in alone.tensors[part].items()), part
    trainer = Trainer(cell, store)
    for update in (1, 2, 3):
        trainer.step()
        if update in options.weights_at:
            stored = native.load(tmp_path / "cut" / native.WEIGHTS / native.folder_name(update), ("model",))
            assert set(stored.tensors) == {"model"}
            for name, parameter in load_policy(stored).named_parameters():
                assert torch.equal(parameter, trainer.policy.get_parameter(name)), name
    log = [{**line, "frames_per_second": 0, "peak_memory_mb": 0} for line in read_lines(tmp_path / "cut/train.jsonl")]
    uncut = [
        {**line, "frames_per_second": 0, "peak_memory_mb": 0} for line in read_lines(tmp_path / "whole/train.jsonl")
    ]
    assert log == uncut


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_every_declared_update_is_evaluated_and_its_rows_carry_the_update(finished):
    _, entry, _ = finished
    assert entry.state == "done"
    protocols = entry.study.time_to_learn.protocols
    for update, protocol in protocols.items():
        rows = read_rows(entry.run.rows / f"{result_id(entry.run.train, protocol, 'none')}.jsonl")
        assert [line.update for line in rows] == [update] * DURING.episodes
        assert {line.protocol for line in rows} == {f"during-u{update}@1"}
        assert sorted(line.seed for line in rows) == list(range(DURING.seed, DURING.seed + DURING.episodes))
    plain = read_rows(entry.run.rows / f"{result_id(entry.run.train, FEW, 'none')}.jsonl")
    assert {line.update for line in plain} == {None} and "update" not in plain[0].plain()
    during = entry.records().at_updates
    assert during.protocol == "during@1" and during.planned == (2, 4) and set(during.rows) == {2, 4}
    assert {protocol for protocol, _ in entry.records().rows} == {FEW.id}, "in no table of the study's protocols"


def test_an_update_is_evaluated_with_its_weights(finished):
    """After the last update the weights are those of the last checkpoint, and earlier ones are not."""
    _, entry, _ = finished
    last, early = entry.run.load_weights(4), entry.run.load_weights(2)
    final = entry.run.load_policy()
    same = [torch.equal(a, b) for a, b in zip(last.parameters(), final.parameters(), strict=True)]
    changed = [not torch.equal(a, b) for a, b in zip(early.parameters(), final.parameters(), strict=True)]
    assert all(same) and any(changed)


def test_the_rows_of_updates_are_sealed_and_verified(finished, tmp_path):
    root, entry, _ = finished
    shutil.copytree(root / "runs", tmp_path / "runs")
    run = dataclasses.replace(entry.run, root=tmp_path / "runs")
    assert not verify_run(run).faults and verify_run(run).sealed == 3
    file = run.rows / f"{result_id(run.train, LEARNING.protocols[2], 'none')}.jsonl"
    file.write_text(file.read_text().replace('"update": 2', '"update": 4', 1))
    (fault,) = verify_run(run).faults
    assert fault.field == f"{file}:1: update"
    weights = run.weights(2) / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert str(weights) in [fault.field for fault in verify_run(run).faults]


def test_a_killed_evaluation_continues(finished, tmp_path):
    root, entry, job = finished
    shutil.copytree(root / "runs", tmp_path / "runs")
    run = dataclasses.replace(entry.run, root=tmp_path / "runs")
    file = run.rows / f"{result_id(run.train, LEARNING.protocols[2], 'none')}.jsonl"
    before = file.read_text()
    file.write_text("".join(before.splitlines(keepends=True)[:3]))
    (run.folder / "seals" / f"{file.stem}.json").unlink()
    left = dataclasses.replace(entry, run=run)
    assert [protocol.update for protocol, _ in left.missing()] == [2] and left.state == "partial"
    again = dataclasses.replace(job, run=run, missing=tuple(left.missing()))
    assert bring_to_end(again, lambda *_: None, lambda: False) == Status.DONE and left.state == "done"
    outcome = [(line.seed, line.choice, line.steps) for line in read_rows(file)]
    file.write_text(before)
    assert outcome == [(line.seed, line.choice, line.steps) for line in read_rows(file)]


def test_a_cell_that_was_trained_without_these_weights_is_refused_before_anything_runs(finished):
    root, entry, _ = finished
    later = declared(entry, TimeToLearn(DURING, (2, 3, 4)))
    require_weights([entry])
    with refused("study tiny_study, time_to_learn.updates") as info:
        require_weights([later])
    assert str(info.value.got).startswith("3;")
    study = dataclasses.replace(later.study, time_to_learn=TimeToLearn(DURING, (3,)))
    with refused("study tiny_study, time_to_learn.updates"):
        run_study(study, Ledger(root / "runs", root / "data"), SweepOptions(processes=1, plan_only=True), print)


def test_a_plan_counts_the_evaluations(finished):
    root, entry, _ = finished
    said = []
    ledger = Ledger(root / "runs", root / "data")
    run_study(entry.study, ledger, SweepOptions(processes=1, plan_only=True), said.append)
    (line,) = [line for line in "\n".join(said).splitlines() if line.startswith("Time to learn")]
    assert "updates 2, 4" in line and "8 episodes of during@1" in line and line.endswith("in all: 2")


def test_committed_rows_hold_the_updates(finished, tmp_path):
    _, entry, _ = finished
    results = study_results(entry.study, lambda item: entry.run.train)
    results = dataclasses.replace(results, cells=((entry.item, entry.results()),))
    read = committed_results(entry.study, read_rows_file(commit(tmp_path, results)))
    by_seed = {
        update: sorted(rows, key=lambda line: line.seed) for update, rows in entry.records().at_updates.rows.items()
    }
    assert read.records[0].at_updates.rows == by_seed and read.records[0].state == "done"


# --- declaration ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("updates", [(), (0, 4), (4, 2), (2, 2), (2.0,), (True,)])
def test_updates_that_are_no_growing_numbers_are_refused(updates):
    with refused("time_to_learn.updates"):
        TimeToLearn(DURING, updates)


@pytest.mark.parametrize(
    ("learning", "field"),
    [
        (TimeToLearn(dataclasses.replace(DURING, seed=FEW.seed + 19), (2,)), "time_to_learn.protocol"),
        (TimeToLearn(dataclasses.replace(DURING, seed=FEW.seed - 7), (2,)), "time_to_learn.protocol"),
        (TimeToLearn(dataclasses.replace(DURING, seed=100_000), (999,)), "time_to_learn.updates"),
    ],
)
def test_episodes_of_another_evaluation_and_updates_that_no_training_has_are_refused(study_file, learning, field):
    study = dataclasses.replace(load_study(study_file), time_to_learn=learning)
    with refused(f"study tiny_study, {field}"):
        study.check()


def test_a_free_block_is_accepted_and_a_shorter_training_leaves_later_updates_out(study_file):
    study = dataclasses.replace(load_study(study_file), time_to_learn=TimeToLearn(DURING, (2, 999)))
    study.check()
    cell = study.of_one_seed[0].cell
    assert [protocol.id for protocol, _ in study.conditions(cell)] == ["few@1", "during-u2@1"]
    assert study.every_protocol[-3:] == (DURING, *study.time_to_learn.protocols.values())


def test_a_primary_time_to_learn_needs_updates_and_the_unpaired_test(study_file):
    study = load_study(study_file)
    for changes, field in (
        ({"contrasts": Contrasts(primary=METRIC)}, "contrasts.primary"),
        ({"contrasts": Contrasts(primary=METRIC, test="paired"), "time_to_learn": LEARNING}, "contrasts.test"),
    ):
        with refused(f"study tiny_study, {field}"):
            dataclasses.replace(study, **changes)
    assert "log-rank" in design_lines(Contrasts(primary=METRIC), 1, 5)[0]


# --- the test ---------------------------------------------------------------------------------------------------------


def numerator_and_scale(times, reached, first):
    """Events of the first group minus their expectation, and the standard deviation, summed over the event times."""
    difference = variance = 0.0
    for time in np.unique(times[reached]):
        at_risk, events = times >= time, (times == time) & reached
        n, mine, d = at_risk.sum(), (at_risk & first).sum(), events.sum()
        difference += (events & first).sum() - d * mine / n
        variance += d * mine / n * (1 - mine / n) * (n - d) / (n - 1) if n > 1 else 0
    return difference, np.sqrt(variance)


@pytest.mark.parametrize("case", range(8))
def test_the_scores_are_those_of_the_log_rank_test(case):
    rng = np.random.default_rng(case)
    times, reached = rng.choice([50, 100, 200, 400], 12).astype(float), rng.random(12) < 0.7
    first = np.arange(12) < 5 + case % 3
    difference, scale = numerator_and_scale(times, reached, first)
    scores = logrank_scores(times, reached)
    assert scores[first].sum() == pytest.approx(difference) and scores.sum() == pytest.approx(0, abs=1e-12)
    groups = [stats.CensoredData.right_censored(times[part], ~reached[part]) for part in (first, ~first)]
    assert abs(stats.logrank(*groups).statistic) == pytest.approx(abs(difference) / scale)


def test_the_p_counts_regroupings_and_meets_the_approximation_with_many_seeds():
    early, late = ([100, 200, 300], [True] * 3), ([400, 400, 400], [False] * 3)
    assert logrank_p(early, late) == pytest.approx(2 / 20)
    assert logrank_p(late, late) == 1.0 and np.isnan(logrank_p(([100], [True]), late))
    rng = np.random.default_rng(1)
    first, second = rng.exponential(200, 40), rng.exponential(300, 40)
    seen = [first < 400, second < 400]
    groups = [
        stats.CensoredData.right_censored(t.clip(max=400), ~s) for t, s in zip((first, second), seen, strict=True)
    ]
    exact = logrank_p((first.clip(max=400), seen[0]), (second.clip(max=400), seen[1]))
    assert exact == pytest.approx(stats.logrank(*groups).pvalue, abs=0.01)


# --- the report -------------------------------------------------------------------------------------------------------


def with_updates(cell, successes, planned=(100, 200, 400)):
    """The cell with these successes of 20 episodes after each update."""
    rows = {update: [row(i, int(i >= n)) for i in range(20)] for update, n in zip(planned, successes, strict=True)}
    return dataclasses.replace(cell, at_updates=UpdateRows("during@1", planned, rows))


@pytest.fixture
def learned(base):
    """Five seeds of a variant that learns after 100 or 200 updates, and of a variant that never does."""
    cells = []
    for seed in range(5):
        fast, slow = (records(base, name, tbptt(K, 4), seed, 12, 6, 2) for name, K in (("K=8", 8), ("K=2", 2)))
        cells += [with_updates(fast, (18 if seed else 3, 19, 17)), with_updates(slow, (5, 6, 7))]
    return cells


EXPERT = {"during@1": Baselines({"expert": [row(i, 0) for i in range(20)]})}
PAIRS = (("K=8", "K=2"),)


def test_a_time_is_the_first_update_at_the_level_and_other_times_are_censored(learned):
    times = times_frame(update_frame(learned, EXPERT)).set_index(["variant", "seed"])
    assert list(times.loc["K=8", "time"]) == [200, 100, 100, 100, 100] and times.loc["K=8", "reached"].all()
    assert set(times.loc["K=2", "time"]) == {400} and not times.loc["K=2", "reached"].any()


def test_the_level_is_measured_on_the_expert(learned):
    weak = {"during@1": Baselines({"expert": [row(i, int(i >= 6)) for i in range(20)]})}  # 0.9 of 0.3
    times = times_frame(update_frame(learned, weak)).set_index(["variant", "seed"])
    assert set(times.loc["K=2", "time"]) == {200} and times.loc["K=2", "reached"].all()


def test_a_cell_that_lacks_an_update_has_no_time(learned):
    rows = dict(list(learned[0].at_updates.rows.items())[1:])
    lacking = dataclasses.replace(learned[0], at_updates=dataclasses.replace(learned[0].at_updates, rows=rows))
    assert len(times_frame(update_frame([lacking, *learned[1:]], EXPERT))) == len(learned) - 1


def test_contrasts_take_the_time_to_learn(learned):
    updates = update_frame(learned, EXPERT)
    frame = contrast_frame(tidy(learned), Contrasts(), PAIRS, updates)
    (line,) = [line for _, line in frame[frame["metric"] == METRIC].iterrows()]
    assert line["p"] == pytest.approx(2 / 252) and not line["primary"] and pd.isna(line["p_holm"])
    assert (line["mean"], line["reference_mean"], line["difference"]) == (120, 400, -280)
    assert (line["learned"], line["reference_learned"]) == (5, 0)
    primary = contrast_frame(tidy(learned), Contrasts(primary=METRIC), (*PAIRS, ("K=8", "later")), updates)
    (line,) = [line for _, line in primary[primary["primary"]].iterrows()]
    assert line["metric"] == METRIC and line["p_holm"] == pytest.approx(4 / 252), "a planned contrast has not run"
    assert "-280 [" in contrast_sentences(primary)[0] and contrast_sentences(primary)[0].endswith("*.")
    assert len(contrast_table(primary[primary["metric"] == METRIC])) == 1


def test_a_report_writes_table_figure_and_contrast_and_committed_files_give_them_again(learned, tmp_path, unrendered):
    write(learned, tmp_path, baselines=EXPERT, pairs=PAIRS, contrasts=Contrasts(primary=METRIC))
    out = tmp_path / "out"
    text = (out / "report.md").read_text()
    assert "## Time to learn" in text and "](learning.png)" in text and "| > 400 |" in text
    assert (out / "learning.png").exists() and (out / "time-to-learn.md").exists()
    before = (out / "contrasts.csv").read_text()
    assert METRIC in before
    study = type("Declared", (), {"contrasts": Contrasts(primary=METRIC), "contrast_pairs": PAIRS, "title": "t"})
    (out / "contrasts.csv").unlink()
    write_contrasts(study, out)
    assert (out / "contrasts.csv").read_text() == before and (out / NAME).exists()
    tables = dict(main_tables(Results.read(out), "small", "a study"))
    assert set(tables) == {"variants", "contrasts", "interventions", "time-to-learn"}
    (line,) = tables["time-to-learn"].rows
    assert [entry.text for entry in line.entries] == ["5 v 5", "−280**", "[−336, −224]", "0.008"]
    assert "log-rank test" in tables["time-to-learn"].caption
    block = summary_block(Results.read(out), "small", "a study", tmp_path)
    assert "5 of 5 training seeds of `K=8` (after 100 to 200); 0 of 5 training seeds of `K=2`" in block
    assert "number of updates to 0.9 of the expert's success" in block


def test_the_page_has_a_section_with_charts_times_and_the_contrast(learned):
    content = page_content(learned, baselines=EXPERT, pairs=PAIRS, contrasts=Contrasts(primary=METRIC))
    assert LearningSection().applies(content) and not LearningSection().applies(page_content(learned[:0]))
    page = parse(LearningSection().html(content))
    charts = list(page.all("svg", role="img"))
    assert len(charts) == 2 and [len(list(chart.all("path", class_="curve"))) for chart in charts] == [5, 5]
    assert "200, 100, 100, 100, 100" in page.text and "> 400, > 400" in page.text and "0.0079" in page.text
    sentences = " ".join(answer(content))
    assert "is lower for `K=8` than `K=2` (120 v 400, p 0.0079 after Holm)" in sentences
    assert "5 of 5 training seeds of `K=8`" in sentences
