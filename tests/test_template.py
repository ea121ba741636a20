"""The study that `muvla init` writes is complete, controlled and runs."""

import pytest

from muvla.errors import MuvlaError
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.sweep import SweepOptions, run_study
from sweeps.template import write_study


def test_the_template_is_a_controlled_study_under_the_given_name(tmp_path):
    file = write_study(tmp_path / "widths", "widths")
    study = load_study(tmp_path / "widths")
    study.check()
    assert file == tmp_path / "widths" / "study.py" and study.name == "widths"
    assert len(file.read_text().splitlines()) <= 60


@pytest.mark.slow
def test_the_template_runs(tmp_path):
    write_study(tmp_path / "widths", "widths")
    study = load_study(tmp_path / "widths").with_base({"budget.updates": 2})
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    result = run_study(study, ledger, SweepOptions(processes=2, track=False), lambda _: None)
    assert {entry.state for entry in result.entries} == {"done"}


def test_nothing_is_overwritten_and_a_name_is_an_identifier(tmp_path):
    write_study(tmp_path, "first")
    with pytest.raises(MuvlaError) as info:
        write_study(tmp_path, "second")
    assert info.value.field == str(tmp_path / "study.py")
    with pytest.raises(MuvlaError) as info:
        write_study(tmp_path / "other", "two words")
    assert info.value.field == "NAME"
