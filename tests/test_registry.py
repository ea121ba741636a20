"""The rule of every extension point: a taken name and a member that cannot be loaded stop nobody else."""

import pytest

from analysis.figures.registry import FIGURES
from helpers.packages import write_package
from muvla.envs.registry import SUITES
from muvla.errors import MuvlaError
from muvla.interventions.registry import INTERVENTIONS
from muvla.memory.registry import MECHANISMS
from muvla.probes.registry import PROBES
from sweeps.launchers.registry import LAUNCHERS

REGISTRIES = [MECHANISMS, SUITES, INTERVENTIONS, PROBES, LAUNCHERS, FIGURES]


@pytest.fixture(params=REGISTRIES, ids=lambda registry: registry.group)
def registry(request):
    return request.param


@pytest.fixture
def install(tmp_path, monkeypatch, registry):
    """`install(entries, package)`: an installed package whose entry points of the registry's group are `entries`."""

    def install(entries, package="stranger"):
        site = write_package(
            tmp_path / package, package, {f"{package}_members.py": "ANY = 1\n"}, {registry.group: entries}
        )
        monkeypatch.syspath_prepend(str(site))

    return install


def test_a_taken_name_is_left_out_with_a_warning(registry, install):
    taken, place = next(iter(registry.members.items()))
    before = registry.load(taken)
    install({taken: "stranger_members:ANY", "other": "stranger_members:ANY"})
    with pytest.warns(UserWarning, match=f"entry point {taken} "):
        places = registry.places()
    assert places[taken] == place and places["other"] == "stranger_members:ANY"
    with pytest.warns(UserWarning, match=f"entry point {taken} "):
        assert registry.load(taken) is before and registry.load("other") == 1


def test_the_first_distribution_by_name_keeps_a_name_that_two_claim(registry, install):
    install({"twice": "alpha_members:ANY"}, "alpha")
    install({"twice": "beta_members:ANY"}, "beta")  # earlier on the path
    with pytest.warns(UserWarning, match="beta_members:ANY"):
        assert registry.places()["twice"] == "alpha_members:ANY"


@pytest.mark.parametrize("place", ["nowhere:X", "stranger_members:NOTHING"])
def test_a_member_that_cannot_be_loaded_stops_no_other(registry, install, place):
    install({"broken": place, "sound": "stranger_members:ANY"})
    with pytest.raises(MuvlaError) as info:
        registry.load("broken")
    assert info.value.field == f"entry point broken of {registry.group}"
    with pytest.warns(UserWarning, match="entry point broken"):
        members = dict(registry.each())
    assert set(members) == {*registry.members, "sound"}


def test_a_module_that_raises_anything_is_one_error(registry, install, tmp_path):
    install({})
    (tmp_path / "stranger" / "raising_members.py").write_text("1 / 0\n")
    install({"raising": "raising_members:ANY"}, "second")
    with pytest.raises(MuvlaError) as info:
        registry.load("raising")
    assert info.value.field == f"entry point raising of {registry.group}" and "ZeroDivisionError" in info.value.got
