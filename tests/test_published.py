"""The papers' numbers as data: complete, joined with ours by task, and their averages recomputed."""

import pandas as pd
import pytest

from analysis.frames import read_cells
from analysis.published import TABLES, averages, beside, disagreements, published_for, published_frame
from analysis.published.averages import AGREES, DISAGREES, ROUNDING
from analysis.published.frame import printed
from analysis.report.folder import ReportFolder
from analysis.report.published import published_section
from experiments.paper_table.table import main
from helpers.paths import ROOT
from muvla.envs.mikasa.tasks import PUBLISHED, TRAINED
from muvla.envs.registry import task_info
from muvla.evaluation.catalog import declared_protocols
from muvla.stats import wilson


@pytest.fixture(scope="module")
def numbers():
    return published_frame()


def number(frame, table, model, task):
    (line,) = frame[(frame["table"] == table) & (frame["model"] == model) & (frame["task"] == task)].to_dict("records")
    return line


def test_every_number_is_a_rate_of_a_described_table(numbers):
    sizes = numbers.groupby("table").size()
    assert sizes["muvla_mikasa23"] == 23 * 11 and set(sizes.index) == {table.name for table in TABLES}
    assert numbers["rate"].between(0, 1).all() and not numbers.duplicated(["table", "model", "task"]).any()
    assert (numbers["differences"] != "").all() and numbers["source"].str.contains("arXiv").all()
    best = number(numbers, "muvla_mikasa23", "m64-K2", "RememberColor5")
    assert best["rate"] == 0.93 and best["n"] == 100 and (best["low"], best["high"]) == wilson(93, 100)
    assert number(numbers, "memoryvla_libero", "MemoryVLA", "Spatial")["rate"] == pytest.approx(0.984)


def test_unknown_numbers_of_episodes_have_no_interval(numbers):
    other = number(numbers, "muvla_mikasa4", "π0", "RememberColor5")
    assert pd.isna(other["n"]) and pd.isna(other["low"])


def test_our_tasks_and_variants_of_published_names_exist(numbers):
    named = numbers.dropna(subset=["our_task"])["our_task"].unique()
    tasks = {protocol.task.name for protocol in declared_protocols().values()}
    for name in named:
        assert any(task == name or (name.endswith("-") and task.startswith(name)) for task in tasks), name
    assert set(numbers[numbers["table"] == "muvla_mikasa23"]["our_task"]) == set(PUBLISHED)
    assert all(task_info(name) for name in TRAINED)
    from experiments.paper_table.alone import study as alone
    from experiments.paper_table.study import study

    counterparts = set(numbers["variant"].dropna())
    assert counterparts <= {*study.variants, *alone.variants}


@pytest.mark.parametrize(
    ("protocol", "tables"),
    [
        ("mikasa-remember-color5-ol8@1", {"muvla_mikasa23", "muvla_mikasa4"}),
        ("libero-10-3-rh@1", {"muvla_libero", "memoryvla_libero"}),
        ("bridge-put-eggplant-in-basket-scene-rh@1", {"memoryvla_bridge"}),
        ("recall-position3-rh@1", set()),
        ("no-such-protocol@1", set()),
    ],
)
def test_a_protocol_finds_the_numbers_of_its_task(protocol, tables):
    lines = published_for(protocol)
    assert set(lines["table"]) == tables
    assert lines["task"].nunique() <= 1


def test_our_rates_stand_beside_the_published_ones():
    rates = read_cells(ROOT / "experiments" / "mikasa_quick" / "results" / "cells.csv")
    joined = beside(rates)
    assert set(joined["task"]) == {"RememberColor3"} and set(joined["our_variant"]) == {"none", "K=8"}
    ours = rates[(rates["variant"] == "K=8") & (rates["intervention"] == "none")].iloc[0]
    (line,) = joined[(joined["model"] == "m64-K8") & (joined["our_variant"] == "K=8")].to_dict("records")
    assert line["our_mean"] == ours["success_rate"] and line["our_n"] == 30 and line["seeds"] == 1
    assert line["rate"] == 0.41 and not line["same_variant"]
    assert "published regime is not stated" in line["our_differences"]


def test_a_suite_of_tasks_joins_the_mean_of_its_tasks_and_regimes_stay_apart():
    columns = {"intervention": "none", "U": 1, "measured": 50, "H": 8, "labels": "executed", "seed": 0}
    rates = pd.DataFrame(
        {"variant": "m=64, K=8", "protocol": f"libero-{suite}-{task}-{regime}@1", "success_rate": rate} | columns
        for suite, task, regime, rate in (
            ("10", 0, "rh", 0.5),
            ("10", 1, "rh", 1.0),
            ("10", 0, "ol8", 0.25),
            ("goal", 0, "rh", 0.1),
        )
    )
    joined = beside(rates)
    lines = joined[(joined["model"] == "μVLA (m=64, K=8)") & (joined["task"] == "Long-10")]
    assert lines["our_mean"].tolist() == [0.75, 0.25] and lines["our_n"].tolist() == [100, 50]
    assert lines["same_variant"].all() and lines["protocols"].iloc[0].count("libero-10-") == 2


def test_the_averages_of_the_papers_are_recomputed():
    lines = averages()
    assert len(lines) == 11 * 4 + 6 + 13 + 2 + 1 + 1 + 3 + 1
    assert set(lines["agreement"]) == {AGREES, ROUNDING, DISAGREES}
    over_all = lines[(lines["table"] == "muvla_mikasa23") & (lines["group"] == "")]
    assert (over_all["tasks"] == 23).all()
    pi = over_all[over_all["model"] == "pi0.5"].iloc[0]
    assert pi["recomputed"] == pytest.approx(2.81 / 23) and pi["agreement"] == DISAGREES
    libero = lines[(lines["table"] == "memoryvla_libero") & (lines["model"] == "MemoryVLA")].iloc[0]
    assert libero["recomputed"] == pytest.approx(96.44) and libero["agreement"] == ROUNDING
    assert len(disagreements()) == (lines["agreement"] == DISAGREES).sum() == 8


def test_the_row_of_four_tasks_joins_several_variants(numbers):
    """The stated difference: no column of the table of 23 tasks has all four numbers of the row."""
    four = numbers[(numbers["table"] == "muvla_mikasa4") & (numbers["model"] == "μVLA")].set_index("task")["rate"]
    wide = numbers[numbers["table"] == "muvla_mikasa23"].pivot(index="task", columns="model", values="rate")
    same = wide.loc[four.index].eq(four, axis=0)
    assert same.drop(index="InterceptMedium")["m64-K2"].all() and not same.all().any()
    assert same.loc["InterceptMedium", "m64-EMA-full"]


def test_files_hold_the_averages_apart_from_the_numbers():
    table = TABLES[0]
    assert len(printed(table)) == 27 * 11


def test_the_report_of_a_study_sets_published_numbers_beside_ours(tmp_path):
    """The study's protocol is no protocol of a suite; the study's declaration tells the task."""
    from experiments.recall_causality.mikasa import study

    rates = read_cells(ROOT / "experiments" / "recall_causality" / "results-mikasa" / "cells.csv")
    folder = ReportFolder(tmp_path, "S", {}, lambda _: None)
    text = "\n".join(published_section(folder, rates, study.protocols))
    assert "| m64-K2 (published) | 0.92 [0.85, 0.96] n = 100 |" in text
    assert "| K=8, U = 3000 (ours) | 0.12, 1 seed of n = 16 |" in text
    assert "Known differences: " in text and (tmp_path / "published.csv").exists()
    assert published_section(folder, rates, ()) == []


def test_the_table_of_23_tasks_says_where_ours_has_not_run(tmp_path, capsys):
    main(tmp_path)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.endswith("| not run |")]
    assert len(rows) == 23
    (tmp_path / "results").mkdir()
    rates = read_cells(ROOT / "experiments" / "mikasa_quick" / "results" / "cells.csv")
    rates.assign(variant=rates["variant"].replace("K=8", "m=64, K=8")).to_csv(tmp_path / "results" / "cells.csv")
    main(tmp_path)
    out = capsys.readouterr().out
    assert sum(line.endswith("| not run |") for line in out.splitlines()) == 22
    assert "| m=64, K=8 0.20, 1 seed of n = 30 |" in out and "0.10, recomputed 0.122" in out
    assert out.count("\n- `") == len(disagreements())
