"""`from muvla import …`: the public names, and what `import muvla` costs."""

import subprocess
import sys

import pytest

import muvla
from helpers.paths import ROOT
from muvla.runs.run import Run
from muvla.utils.io import write_json


@pytest.mark.parametrize("name", muvla.__all__)
def test_every_public_name_exists_and_is_documented(name):
    assert getattr(muvla, name).__doc__
    assert name in dir(muvla)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError):
        muvla.nothing  # noqa: B018


def test_importing_muvla_imports_no_torch():
    code = "import sys, muvla; dir(muvla); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_load_run_by_the_beginning_of_a_train_id(tmp_path):
    write_json(tmp_path / "0123456789ab" / "run.json", {})
    assert muvla.load_run(tmp_path, "0123") == Run(tmp_path, muvla.runs.find.Path("data"), "0123456789ab")
    with pytest.raises(muvla.MuvlaError) as info:
        muvla.load_run(tmp_path, "9")
    assert info.value.field == "RUN"
