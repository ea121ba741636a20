"""The doctor says what is missing, with the remedy, in its exit status too."""

import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from helpers.paths import ROOT
from muvla.cli import diagnosis as doctor

SIMULATOR = ("mani-skill", "sapien", "mikasa-robo-suite")


def diagnosis(simulator_needed=False):
    """Exit status, and the text of all findings."""
    findings = list(doctor.diagnose(simulator_needed))
    missing = any(finding.needed and not finding.ok for finding in findings)
    return int(missing), "\n".join(finding.text() for finding in findings)


@pytest.fixture
def without(monkeypatch):
    """Pretend that packages are not installed."""

    def hide(*names):
        real = metadata.version

        def version(name):
            if name in names:
                raise metadata.PackageNotFoundError(name)
            return real(name)

        monkeypatch.setattr(metadata, "version", version)

    return hide


def test_a_core_installation_is_healthy_without_the_simulator(without):
    without(*SIMULATOR)
    status, said = diagnosis()
    assert status == 0
    assert "dense, split" in said and "leak test" in said
    assert "mani-skill" in said and "make sim" in said


def test_what_is_missing_is_named_with_its_remedy(without):
    without("mlflow", *SIMULATOR)
    status, said = diagnosis()
    assert status == 1 and "MISSING  mlflow" in said and "make setup" in said
    without(*SIMULATOR)
    assert diagnosis(simulator_needed=True)[0] == 1


def test_libero_is_told_in_a_line_where_it_is_not_installed(without):
    without(*SIMULATOR, "hf-libero")
    status, said = diagnosis()
    assert status == 0 and "hf-libero" in said and "make libero" in said
    assert "renderer of libero" not in said


def test_what_libero_renders_with_and_shows_is_told(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.setenv("MUVLA_LIBERO_ASSETS", "/nowhere")
    renderer = doctor._renderer("libero", needed=False)
    assert (renderer.ok, renderer.needed) == (False, False) and "MUJOCO_GL" in renderer.what
    monkeypatch.setattr(doctor.sys, "executable", "false")
    assert "exit code 1" in doctor._renderer("libero", needed=False).what
    (assets,) = (one for one in doctor._assets() if one.name == "libero assets")
    assert not assets.ok and "no /nowhere/" in assets.what and "muvla assets fetch libero" in assets.remedy


def test_a_leaking_guard_is_found(without, monkeypatch):
    from muvla.models import attention_plan, guard

    without(*SIMULATOR)
    monkeypatch.setitem(guard.BARRED_ROWS, "context", ())
    monkeypatch.setattr(
        attention_plan.AttentionPlan,
        "row_groups",
        property(lambda self: [([slice(0, self.layout.length)], self.layout.length, None)]),
    )
    status, said = diagnosis()
    assert status == 1 and "MISSING  leak test" in said


def test_every_declared_dependency_is_checked_and_its_version(without, monkeypatch):
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra, texts in (("", declared["dependencies"]), ("sim", declared["optional-dependencies"]["sim"])):
        assert {one.name for one in doctor.requirements(extra)} == {Requirement(text).name for text in texts}
    without(*SIMULATOR, "hf-libero")  # so that no renderer starts
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.2.0" if name == "gymnasium" else real(name))
    status, said = diagnosis()
    assert status == 1 and "MISSING  gymnasium: 1.2.0" in said and "<1.0,>=0.29.1" in said
