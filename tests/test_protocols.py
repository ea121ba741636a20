"""What a protocol is, and that none is edited."""

import json
from dataclasses import asdict, fields, replace

import pytest

from helpers.paths import TESTS
from muvla.config import TaskConfig
from muvla.config.serialization import content_hash
from muvla.envs.libero.tasks import LIBERO_TASKS
from muvla.envs.mikasa import TRAINED
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import declared_protocols, declared_sets, get_protocol, get_protocols
from muvla.evaluation.protocol import Protocol, require_decisions

GOLDEN = TESTS / "golden" / "protocols.json"
BASE = get_protocol("recall-position3-rh@1")
SHORT = replace(BASE, name="short", episodes=12, slots=5)


def test_an_edited_protocol_needs_a_new_version():
    """The committed hashes say what each id means. A new id is added to the file; a changed one is refused here. The
    protocols of a set are held by the set's."""
    golden = json.loads(GOLDEN.read_text())
    current = {id: content_hash([one.hash for one in several]) for id, several in declared_sets().items()}
    current |= {one.id: one.hash for one in declared_protocols().values() if one.task.name not in LIBERO_TASKS}
    changed = [id for id in golden if current.get(id) != golden[id]]
    assert not changed, f"{changed}: raise the version instead of editing or removing a published protocol"
    assert set(current) == set(golden), "add the new protocol's hash to tests/golden/protocols.json"


def test_a_suite_is_its_tasks_under_one_regime():
    sizes = {"mikasa5": 5, "mikasa23": 23, "mikasa32": 32, "mikasa-long": 26, "maniskill12": 12, "bridge4": 4}
    for name, size in sizes.items():
        assert [len(get_protocols(f"{name}-{regime}@1")) for regime in ("rh", "ol8")] == [size, size]
    assert set(get_protocols("mikasa23-rh@1")) < set(get_protocols("mikasa32-rh@1"))
    twins = get_protocols("bridge4-ol8@1")
    assert {(one.seed, one.episodes, one.h, one.task.physics) for one in twins} == {(0, 24, 8, None)}
    assert {one.task.name for one in get_protocols("mikasa5-ol8@1")} == set(TRAINED)
    for one in get_protocols("mikasa23-ol8@1"):
        assert (one.regime, one.h, one.tick, one.task.physics, one.episodes) == ("open_loop", 8, "call", "gpu", 100)
    closed = get_protocols("mikasa23-rh@1")
    assert {one.regime for one in closed} == {"receding"} and get_protocol("mikasa-remember-color3-rh@2") in closed
    assert get_protocols(BASE.id) == (BASE,)
    with pytest.raises(MuvlaError) as refused:
        get_protocols("mikasa5-rh@2")
    assert refused.value.field == "protocol" and "mikasa5-rh@1" in refused.value.remedy


@pytest.mark.parametrize("field", [f.name for f in fields(Protocol)])
def test_every_field_of_a_protocol_is_in_its_hash(field):
    other = {
        "name": "x",
        "version": 2,
        "task": replace(BASE.task, delay=(2, 2)),
        "episodes": 3,
        "seed": 1,
        "step_limit": 5,
        "regime": "open_loop",
        "h": 2,
        "tick": "call",
        "break_at_success": False,
        "image_size": 64,
        "slots": 3,
        "beyond": "hold_last",
        "horizon": 3,
        "alpha": 0.2,
        "jpeg": 95,
        "clock": "call",
        "update": 100,
    }
    values = asdict(BASE) | {"task": BASE.task}
    if field in ("h", "beyond"):
        values["regime"] = "open_loop"
    if field in ("horizon", "alpha"):
        values |= {"regime": "ensemble", "horizon": 2}
    assert Protocol(**values | {field: other[field]}).hash not in (BASE.hash, Protocol(**values).hash)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"h": 2}, "h"),
        ({"h": 0}, "h"),
        ({"beyond": "hold_last"}, "beyond"),
        ({"beyond": "repeat"}, "beyond"),
        ({"episodes": 0}, "episodes"),
        ({"slots": 0}, "slots"),
        ({"slots": None}, "slots"),
        ({"step_limit": 2.5}, "step_limit"),
        ({"seed": 2**32 - 1}, "seed"),
        ({"regime": "ensemble"}, "horizon"),
        ({"horizon": 2}, "horizon"),
        ({"regime": "ensemble", "horizon": True}, "horizon"),
        ({"regime": "ensemble", "horizon": 2, "h": 2}, "h"),
        ({"regime": "ensemble", "horizon": 2, "beyond": "hold_last"}, "beyond"),
        ({"regime": "ensemble", "horizon": 2, "alpha": float("nan")}, "alpha"),
        ({"regime": "ensemble", "horizon": 2, "alpha": "0.1"}, "alpha"),
        ({"alpha": 0.2}, "alpha"),
        ({"clock": "query"}, "clock"),
        ({"jpeg": 0}, "jpeg"),
        ({"jpeg": 101}, "jpeg"),
    ],
)
def test_bad_protocols_are_refused(changes, field):
    with pytest.raises(MuvlaError) as refused:
        replace(BASE, **changes)
    assert refused.value.field == f"protocol.{field}"


@pytest.mark.parametrize("find", [get_protocol, get_protocols])
def test_an_unknown_protocol_is_refused_with_the_nearest(find):
    with pytest.raises(MuvlaError) as refused:
        find("recall-position3-rh@9")
    assert refused.value.field == "protocol" and "recall-position3-rh@1" in refused.value.remedy


@pytest.mark.parametrize(
    ("task", "limit"),
    [
        (TaskConfig("RecallPosition3-v0"), 5),
        (TaskConfig("RecallPosition3-v0", blank=(0, 7)), 12),
        (TaskConfig("RecallColor3-v0", delay=(2, 9)), 12),
        (TaskConfig("RememberColor3-VLA-v0"), 10),
        (TaskConfig("RememberColor3-VLA-v0", cue=(20, 20)), 25),
        (TaskConfig("ChainOfColors7-Long-VLA-v0"), 1100),
    ],
    ids=str,
)
def test_a_step_limit_that_the_longest_phases_may_fill_is_refused(task, limit):
    """Its own step limit never is."""
    with pytest.raises(MuvlaError) as refused:
        require_decisions([BASE, Protocol("short", 1, task, 2, step_limit=limit)])
    assert (refused.value.field, refused.value.got) == ("protocol short@1: step_limit", limit)
    require_decisions([Protocol("long enough", 1, task, 2, step_limit=limit + 1), Protocol("its own", 1, task, 2)])


def test_every_published_protocol_leaves_steps_for_the_decision():
    require_decisions(declared_protocols().values())


def test_a_set_is_one_protocol_per_task():
    """A suite in both published regimes; four suites together; and a protocol alone is a set of one."""
    assert get_protocols(BASE.id) == (BASE,)
    spatial = get_protocols("libero-spatial-ol8@1")
    assert [one.task.name for one in spatial] == [f"libero_spatial-{i}" for i in range(10)]
    assert {(one.seed, one.episodes, one.regime, one.h, one.tick, one.break_at_success) for one in spatial} == {
        (0, 50, "open_loop", 8, "call", True)
    }
    assert spatial[3] == get_protocol("libero-spatial-3-ol8@1") and len(get_protocols("libero-90-rh@1")) == 90
    four = get_protocols("libero4-rh@1")
    assert len(four) == len({one.id for one in four}) == 40 and {one.regime for one in four} == {"receding"}
    assert "libero_90-0" not in {one.task.name for one in four}


def test_memoryvlas_protocols_differ_from_their_matched_twins_in_cadence_and_clock_alone():
    """Written once per query of several steps, or at every step as in training; the rest of the evaluation is alike."""
    sets = [name.removesuffix("@1") for name in declared_sets() if name.startswith("memoryvla")]
    paired = [name for name in sets if f"{name}-matched" in sets]
    assert len(paired) == 7 and "memoryvla-mikasa5" in paired
    for name in paired:
        for published, matched in zip(get_protocols(f"{name}@1"), get_protocols(f"{name}-matched@1"), strict=True):
            assert (published.tick, published.clock) == ("call", "call")
            assert replace(published, name=matched.name, tick="env_step", clock="step") == matched


def test_memoryvlas_protocols_are_the_published_evaluations():
    for protocol in get_protocols("memoryvla-mikasa5@1"):
        assert (protocol.seed, protocol.episodes, protocol.regime, protocol.h, protocol.task.physics) == (
            1,
            100,
            "open_loop",
            4,
            "gpu",
        )
    limits = {protocol.task.name: protocol.task.step_limit for protocol in get_protocols("memoryvla-mikasa5@1")}
    assert limits.pop("ShellGameTouch-VLA-v0") == limits.pop("InterceptMedium-VLA-v0") == 90
    assert list(limits.values()) == [60, 60, 60]
    for protocol in get_protocols("memoryvla-libero4@1"):
        assert (protocol.episodes, protocol.regime, protocol.h, protocol.jpeg) == (50, "open_loop", 8, 95)
    for protocol in get_protocols("memoryvla-bridge4@1"):
        assert (protocol.episodes, protocol.regime, protocol.horizon, protocol.alpha, protocol.h) == (
            24,
            "ensemble",
            7,
            0.1,
            1,
        )
