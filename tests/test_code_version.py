"""The code version: what changes it, what does not, and how rows of several versions go together."""

import dataclasses
import shutil
import sys

import pytest

from analysis.report.checks import mixed
from helpers.packages import write_package
from helpers.paths import ROOT
from helpers.studies import STUDY
from muvla.utils.code_version import CODE_VERSION, EQUAL_CODE, NOT_COMPUTING, Code, comparable, member_versions
from muvla.utils.io import read_json, write_json
from muvla.utils.provenance import provenance_id
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.sweep import SweepOptions, run_study

FILES = {
    "__init__.py": '"""A package."""\n',
    "core.py": '"""Computes."""\nX = 1\n',
    "cli/__init__.py": "",
    "memory/__init__.py": "",
    "memory/registry.py": 'MEMORIES = {"tokens": "muvla.memory.tokens:Tokens", "bank": "muvla.memory.bank:Bank"}\n',
    "memory/tokens.py": "class Tokens:\n    m = 1\n",
    "memory/bank.py": "from muvla.memory.tokens import Tokens\n\nclass Bank(Tokens):\n    size = 4\n",
}


@pytest.fixture
def package(tmp_path):
    root = tmp_path / "muvla"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_what_is_skipped_exists():
    """A module that moves must not begin to count, or cease to, in silence."""
    for name in NOT_COMPUTING:
        if name != "muvla.serving":  # declared for the next capability
            place = ROOT / name.replace(".", "/")
            assert place.is_dir() or place.with_suffix(".py").exists(), name


def test_verbs_comments_and_docstrings_do_not_change_it_and_computing_code_does(package):
    version = Code(package).version
    (package / "cli" / "verb.py").write_text("def run():\n    return 3\n")
    (package / "core.py").write_text('"""Computes something."""\n\nX = 1  # one\n')
    assert Code(package).version == version
    (package / "core.py").write_text("X = 2\n")
    assert Code(package).version != version


def test_a_copy_of_the_library_has_its_version_until_it_changes(tmp_path):
    copy = shutil.copytree(ROOT / "muvla", tmp_path / "muvla", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "cli" / "another_verb.py").write_text("VERB = 1\n")
    assert Code(copy).version == CODE_VERSION
    (copy / "utils" / "rng.py").write_text((copy / "utils" / "rng.py").read_text() + "\nSEED = 1\n")
    assert Code(copy).version != CODE_VERSION


def test_a_member_counts_where_it_is_used(package):
    before = Code(package)
    (package / "memory" / "gru.py").write_text("class Gru:\n    pass\n")
    table = FILES["memory/registry.py"].replace("}", ', "gru": "muvla.memory.gru:Gru"}')
    (package / "memory" / "registry.py").write_text(table)
    (package / "memory" / "bank.py").write_text(FILES["memory/bank.py"].replace("4", "5"))
    after = Code(package)
    assert after.version == before.version, "a new member, and a changed one"
    assert after.member_version("muvla.memory.tokens") == before.member_version("muvla.memory.tokens")
    assert after.member_version("muvla.memory.bank") != before.member_version("muvla.memory.bank")
    (package / "memory" / "tokens.py").write_text("class Tokens:\n    m = 2\n")
    assert Code(package).member_version("muvla.memory.bank") != after.member_version("muvla.memory.bank"), "imported"
    assert Code(package).version == before.version


def test_a_member_that_the_core_imports_is_of_the_core(package):
    (package / "core.py").write_text("from muvla.memory.tokens import Tokens\n")
    code = Code(package)
    assert code.member_version("muvla.memory.tokens") is None and code.member_version("muvla.memory.bank")
    (package / "memory" / "tokens.py").write_text("class Tokens:\n    m = 2\n")
    assert Code(package).version != code.version


def test_a_member_of_another_package_is_named_with_distribution_and_source(tmp_path, monkeypatch):
    modules = {"muvla_gru/__init__.py": "", "muvla_gru/memory.py": "class Gru:\n    pass\n"}
    write_package(tmp_path, "muvla-gru", modules, {})
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    import muvla_gru.memory

    versions = member_versions([muvla_gru.memory.__name__])
    assert versions["muvla_gru"].startswith("muvla-gru 1.0, source ")


@pytest.mark.slow
def test_rows_of_the_code_before_the_move_are_continued_and_reported(tmp_path):
    """A runs folder as commit 247a420 wrote it: its code version, and no members."""
    (tmp_path / "study.py").write_text(STUDY.format(updates=2))
    study, ledger = load_study(tmp_path), Ledger(tmp_path / "runs", tmp_path / "data")
    options = SweepOptions(processes=2, track=False)
    run_study(dataclasses.replace(study, interventions=()), ledger, options, lambda _: None)
    (old,) = EQUAL_CODE
    for folder in (tmp_path / "runs").iterdir():
        _write_as_of(folder, old)
    result = run_study(study, ledger, options, lambda _: None)
    assert {entry.state for entry in result.entries} == {"done"}
    cells = [entry.records() for entry in result.entries]
    assert {record["code"] for cell in cells for record in cell.provenance.values()} == {old, CODE_VERSION}
    assert not mixed(cells)
    for folder in (tmp_path / "runs").iterdir():
        _write_as_of(folder, "0" * 12)
    assert not mixed([entry.records() for entry in result.entries]), "all of one version"
    _write_as_of(result.entries[0].run.folder, "1" * 12)
    assert mixed([entry.records() for entry in result.entries]), "a version that nobody declared equal"


def _write_as_of(folder, code):
    """Rewrites the provenance of a run folder as another code version would have written it, without seals."""
    shutil.rmtree(folder / "seals", ignore_errors=True)
    for file in list((folder / "provenance").glob("*.json")):
        record = read_json(file) | {"code": code}
        record.pop("members", None)
        identity = provenance_id(record)
        file.unlink()
        write_json(file.with_name(f"{identity}.json"), record)
        for lines in (folder / "timings.jsonl", *(folder / "rows").glob("*.jsonl")):
            lines.write_text(lines.read_text().replace(file.stem, identity))


def test_only_declared_versions_count_as_equal():
    (old,) = EQUAL_CODE
    assert comparable(old) == comparable(CODE_VERSION) == CODE_VERSION and comparable("another") == "another"
