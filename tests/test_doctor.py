"""The doctor says what is missing, with the remedy, in its exit status too."""

from importlib import metadata

import pytest

from muvla import doctor


def diagnosis(simulator_needed=False):
    said = []
    return doctor.diagnose(simulator_needed, said.append), "\n".join(said)


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
    without(*doctor.SIMULATOR)
    status, said = diagnosis()
    assert status == 0 and "Everything needed is there." in said
    assert "guard canary: leak 0.0 under `context`" in said and "absent   mani-skill" in said and "make sim" in said


def test_what_is_missing_is_named_with_its_remedy(without):
    without("mlflow", *doctor.SIMULATOR)
    status, said = diagnosis()
    assert status == 1 and "MISSING  mlflow: not installed\n         → run `make setup`" in said
    without(*doctor.SIMULATOR)
    assert diagnosis(simulator_needed=True)[0] == 1


def test_a_leaking_guard_is_found(without, monkeypatch):
    from muvla.models import attention

    without(*doctor.SIMULATOR)
    monkeypatch.setitem(attention.BARRED_ROWS, "context", ())
    monkeypatch.setattr(attention.AttentionPlan, "row_groups", property(lambda self: [
        ([slice(0, self.layout.length)], self.layout.length, None)]))  # fmt: skip
    status, said = diagnosis()
    assert status == 1 and "MISSING  guard canary" in said
