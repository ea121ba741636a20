"""Several studies in one report are checked as one study; demonstrations know what collected them."""

import dataclasses

import pytest

from analysis.frames import tidy
from analysis.report.checks import mixed
from analysis.report.provenance import provenance_lines
from helpers.committed import study_results
from helpers.errors import printed_field, refused
from helpers.studies import DATASET, STUDY, at
from muvla.cli.main import main
from muvla.config import no_memory, tbptt
from muvla.data.collect import collect
from muvla.data.store import META, EpisodeStore
from muvla.utils.code_version import CODE_VERSION
from muvla.utils.io import read_json, write_json
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.sweep import SweepOptions, run_study
from sweeps.union import inseparable_lines, require_one_study, union_differences


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    file = tmp_path_factory.mktemp("declared") / "study.py"
    file.write_text(STUDY.format(updates=2))
    return load_study(file)


def test_a_study_with_another_seed_variant_or_declared_factor_is_one_study_with_it(study):
    other = dataclasses.replace(study, name="other", seeds=(1,), variants={"K=4": tbptt(4, 4)})
    assert union_differences([study, other]) == []
    require_one_study([study, other])
    wider = study.with_base({"optimizer.lr": 0.5})
    more = dataclasses.replace(wider, name="lr", factors=(*study.factors, "optimizer.lr"))
    assert union_differences([study, more]) == [], "the other study declares the field"


@pytest.mark.parametrize(
    ("field", "value"), [("optimizer.lr", 0.5), ("data.labels", "recorded"), ("data.dataset.seed", 7)]
)
def test_an_undeclared_difference_of_two_studies_is_refused_by_name(study, field, value):
    other = dataclasses.replace(study.with_base({field: value}), name="other")
    with refused("STUDY") as info:
        require_one_study([study, study, other])
    assert field in info.value.got and "other" in info.value.got


def test_one_protocol_id_with_two_contents_is_refused(study):
    protocol = dataclasses.replace(study.protocols[0], episodes=10)
    with refused("STUDY") as info:
        require_one_study([study, dataclasses.replace(study, name="other", protocols=(protocol,))])
    assert f"protocol few@1: content {study.protocols[0].hash}" in info.value.got


@pytest.mark.slow
def test_the_report_refuses_or_states_what_two_studies_differ_in(study, tmp_path, capsys, undrawn):
    for name, text in (("a", ""), ("b", 'study = replace_(study, name="b").with_base({"optimizer.lr": 0.5})\n')):
        (tmp_path / f"{name}.py").write_text(STUDY.format(updates=2) + text)
    studies = [str(tmp_path / f"{name}.py") for name in ("a", "b")]
    assert main(["report", *studies, *at(tmp_path)]) == 2
    assert printed_field(capsys) == "STUDY"
    assert main(["report", *studies, "--mix-studies", *at(tmp_path)]) == 2
    assert printed_field(capsys) != "STUDY", "nothing has run, but the union is accepted"


def test_factors_that_always_change_together_are_named(study):
    assert inseparable_lines([study]) == [], "the width follows from the mechanism"
    two = {"m=4, K=8": tbptt(8, 4), "m=2, K=4": tbptt(4, 2), "none": no_memory()}
    moving = dataclasses.replace(study, variants={name: two[name] for name in list(two)[:2]})
    (line,) = inseparable_lines([moving])
    assert "`memory.m` and `truncation`" in line
    apart = dataclasses.replace(moving, variants=moving.variants | {"m=2, K=8": tbptt(8, 2)})
    assert inseparable_lines([apart]) == []
    more = dataclasses.replace(moving, name="more", variants={"m=2, K=8": tbptt(8, 2)})
    assert inseparable_lines([moving, more]) == [], "together the studies tell them apart"


def test_the_report_states_python_and_platform_and_refuses_neither(study):
    first, second = study_results(study, lambda item: item.variant).records
    records = [
        {name: record | {"python": version, "platform": f"Linux {version}"} for name, record in cell.provenance.items()}
        for cell, version in ((first, "3.11.7"), (second, "3.11.9"))
    ]
    cells = [
        dataclasses.replace(cell, provenance=record) for cell, record in zip((first, second), records, strict=True)
    ]
    assert mixed(cells) == []
    (text,) = [line for line in provenance_lines(cells, tidy(cells), "c", []) if "Systems" in line]
    assert "Python 3.11.7, Linux 3.11.7; Python 3.11.9, Linux 3.11.9" in text


def test_demonstrations_know_the_code_that_collected_them_and_keep_their_digest(tmp_path):
    store = collect(dataclasses.replace(DATASET, episodes=2), tmp_path)
    (record,) = store.collected
    assert record["code"] == CODE_VERSION and list(record["members"]) == ["muvla.envs.recall"]
    meta = read_json(store.path / META)
    write_json(store.path / META, {name: value for name, value in meta.items() if name != "collected"})
    older = EpisodeStore(store.path)
    older.verify()
    assert older.collected == [] and older.sha256 == store.sha256


@pytest.mark.slow
def test_a_cell_says_that_its_demonstrations_are_of_another_version_of_the_environment(study, tmp_path):
    few = dataclasses.replace(study, variants={"none": no_memory()}, interventions=())
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    (entry,) = run_study(few, ledger, SweepOptions(processes=1, track=False), lambda _: None).entries
    assert entry.records().remarks == ()
    file = entry.run.store().path / META
    meta = read_json(file)
    write_json(file, meta | {"collected": [{"code": "c0de", "members": {"muvla.envs.recall": "0123456789ab"}}]})
    (remark,) = entry.records().remarks
    assert "0123456789ab" in remark and entry.run.store().sha256 == meta["sha256"]
