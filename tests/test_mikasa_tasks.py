"""The tasks of MIKASA-Robo without their simulator: the table, what each family reads, assets, refusals."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from analysis.frames import best_constant_choice
from helpers.errors import refused
from muvla.cli import diagnosis as doctor
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config import DatasetConfig, TaskConfig
from muvla.data.collect import collect
from muvla.envs.assets import content as assets_content
from muvla.envs.mikasa import ALL_SHORT, LONG, MIKASA_TASKS, PUBLISHED, TRAINED, simulator, stand_ins
from muvla.envs.mikasa.assets import LAMP, SHELLGAME
from muvla.envs.mikasa.families import FAMILIES, Family
from muvla.envs.mikasa.instructions import INSTRUCTIONS
from muvla.envs.registry import backends, make_env, task_info
from muvla.errors import MuvlaError


@pytest.fixture
def asset_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path))
    return tmp_path


def family(name, **base):
    """The family of a task on a made-up environment; numbers become the tensors of one environment."""
    task = MIKASA_TASKS[name]
    return FAMILIES[task.family](SimpleNamespace(**base), task)


def actor(*position):
    return SimpleNamespace(pose=SimpleNamespace(p=torch.tensor([position])))


def test_the_23_published_tasks():
    """Step limits, objects and families of μVLA spec 6.1."""
    published = {name: MIKASA_TASKS[name] for name in PUBLISHED}
    assert len(published) == 23 and set(TRAINED) < set(published)
    limits = {"ShellGame": 30, "Intercept": 60, "RotateLenient": 60, "RotateStrict": 90, "TakeItBack": 60, "Rem": 25}
    for name, task in published.items():
        assert task.step_limit == next(limit for start, limit in limits.items() if name.startswith(start)), name
        assert name.startswith(task.family) and name.endswith("-VLA-v0")
        assert task.assets == ((SHELLGAME,) if name.startswith("ShellGame") else ()) and not task.free
        assert (task.objects is None) == (FAMILIES[task.family].target is Family.target)
        assert task.expert == (FAMILIES[task.family].expert is not Family.expert)
        known = task_info(name)
        assert (known.suite, known.own_process, known.chance) == ("mikasa", True, task.chance)
        assert known.instruction == INSTRUCTIONS[task.family] and known.expert == task.expert
    chosen = {name.removesuffix("-VLA-v0"): task.objects for name, task in published.items() if task.objects}
    assert chosen == {
        **{f"RememberColor{n}": n for n in (3, 5, 9)},
        **{f"RememberShape{n}": n for n in (3, 5, 9)},
        "RememberShapeAndColor3x2": 6,
        "RememberShapeAndColor3x3": 9,
        "RememberShapeAndColor5x3": 15,
        "ShellGameTouch": 3,
        "ShellGamePush": 3,
        "ShellGamePick": 3,
    }
    assert all(MIKASA_TASKS[name].expert for name in TRAINED)
    assert task_info("RememberShapeAndColor3x2-VLA-v0").chance == pytest.approx(1 / 6)
    assert task_info("TakeItBack-VLA-v0").chance is None


def test_the_tasks_that_are_not_published():
    """Nine of 400 steps, which with the 23 are the 32 of the suite's first version, and 26 long ones. None holds the
    arm, so that none has demonstrations of ours and none takes other phases."""
    more = {name: task for name, task in MIKASA_TASKS.items() if name not in PUBLISHED}
    assert (len(ALL_SHORT), len(LONG), len(more)) == (32, 26, 35) and set(more) == {*ALL_SHORT, *LONG} - {*PUBLISHED}
    assert {task.step_limit for name, task in more.items() if name in ALL_SHORT} == {400}
    assert {"-Long-" in name for name in LONG} == {True}
    for name, task in more.items():
        assert task.free and not task.expert and not task_info(name).expert
        assert (task.objects is None) == (FAMILIES[task.family].target is Family.target)
        assert task.step_limit > task.cue[1] + task.delay[1]
        assert (LAMP in task.assets) == name.startswith(("Blink", "Timed", "ShellGameShuffleColorLamp"))
        with pytest.raises(MuvlaError) as info:
            make_env(TaskConfig(name, cue=(3, 3)))
        assert info.value.field == "task.cue"
    assert MIKASA_TASKS["ChainOfColors5-VLA-v0"].objects == 9
    assert {task.chance for task in more.values()} == {None}, "the pose of an arm that moves can keep the cue"
    assert task_info("BunchOfColors5-Long-VLA-v0").chance is None
    assert "exactly on step 500 of" in task_info("TimedTransferMedium-Long-VLA-v0").instruction


def test_the_choice_in_a_sequence_is_the_first_cube_that_the_suite_counts():
    chain = family(
        "ChainOfColors3-VLA-v0",
        true_color_indices=torch.tensor([[4, 0, 7]]),
        cue_steps_per_env=torch.tensor([12]),
        empty_steps_per_env=torch.tensor([2]),
        touched_cubes_idx=torch.tensor([[-1, -1, -1]]),
    )
    assert (chain.lengths(), chain.target(), chain.touched(np.zeros(3))) == ((12, 2), 4, -1)
    chain.base.touched_cubes_idx = torch.tensor([[7, 4, -1]])
    assert chain.touched(np.zeros(3)) == 7


def test_shuffled_cups_are_named_by_the_place_that_they_have_in_the_end():
    places = torch.tensor([[[0.0, -0.2, 0.05], [0.0, 0.0, 0.05], [0.0, 0.2, 0.05]]])
    cups = family(
        "ShellGameShuffleTouch-Long-VLA-v0",
        oracle_info=torch.tensor([2]),
        slot_positions=places,
        cue_steps_per_env=torch.tensor([20]),
        empty_steps_per_env=torch.tensor([120]),
    )
    assert (cups.lengths(), cups.target(), cups.altered()) == ((20, 120), 2, ())
    assert [cups.touched(np.array([0.0, y, 0.12])) for y in (-0.2, 0.01, 0.2, 0.1)] == [0, 1, 2, -1]


@pytest.mark.parametrize(
    ("task", "option"),
    [
        ("RememberShape3", {"palette": ("red", "blue", "white")}),
        ("ShellGameTouch", {"delay": (3, 3)}),
        ("InterceptMedium", {"cue": (1, 2)}),
        ("TakeItBack", {"delay": (1, 2)}),
        ("RotateStrictPos", {"cue": (1, 1)}),
    ],
)
def test_what_the_suite_fixes_is_refused(task, option):
    with pytest.raises(MuvlaError) as info:
        make_env(TaskConfig(f"{task}-VLA-v0", **option))
    assert info.value.field == f"task.{next(iter(option))}"


def test_phase_lengths_are_set_where_the_family_draws_them():
    remember = family("RememberShape5-VLA-v0", CUE_PHASE_STEPS=[1, 5], EMPTY_PHASE_STEPS=[1, 5])
    remember.set_lengths({"cue": (20, 20), "delay": (3, 30)})
    assert (remember.base.CUE_PHASE_STEPS, remember.base.EMPTY_PHASE_STEPS) == ([20, 20], [3, 30])
    # With both fixed to N, 2N + 15: as many steps for the decision as after the longest published phases.
    assert 25 + Family.more_steps({"cue": (20, 20), "delay": (20, 20)}) == 2 * 20 + 15
    assert Family.more_steps({"cue": (1, 2)}) == Family.more_steps({}) == 0


def test_remember_reads_the_cued_object_and_where_it_will_appear():
    lengths = {"cue_steps_per_env": torch.tensor([2]), "empty_steps_per_env": torch.tensor([4])}
    hidden = {i: torch.tensor([[0.1 * i, 0.2, 0.02]]) for i in range(9)}
    actors = {i: actor(0.1 * i, -0.2, 0.02) for i in range(9)}
    shapes = family(
        "RememberShapeAndColor3x3-VLA-v0",
        true_shape_indices=torch.tensor([4]),
        initial_poses=hidden,
        shape_actors=actors,
        **lengths,
    )
    assert (shapes.lengths(), shapes.target()) == ((2, 4), 4)
    np.testing.assert_allclose(shapes.places(hidden=True)[4], [0.4, 0.2, 0.02], atol=1e-6)
    np.testing.assert_allclose(shapes.places(hidden=False)[4], [0.4, -0.2, 0.02], atol=1e-6)
    tcp = np.array([0.4, 0.0, 0.3, 0, 0, 0, 0.04])
    assert shapes.expert(tcp, hidden=True)[1] > 0 > shapes.expert(tcp, hidden=False)[1]


def test_shell_game_has_a_cue_and_no_delay_and_sees_lifted_cups_where_they_come_down():
    cups = {"mug_left": actor(0, -0.2, 1000.05), "mug_center": actor(0, 0, 1000.05), "mug_right": actor(0, 0.2, 0.05)}
    push = family(
        "ShellGamePush-VLA-v0",
        cue_steps_per_env=torch.tensor([3]),
        HEIGHT_OFFSET=1000,
        cup_with_ball_number=torch.tensor([2]),
        goal_site=actor(0.1, 0.2, 0.05),
        **cups,
    )
    assert (push.lengths(), push.target()) == ((3, 0), 2)
    np.testing.assert_allclose(push.places(hidden=True), [[0, -0.2, 0.05], [0, 0, 0.05], [0, 0.2, 0.05]], atol=1e-4)
    assert push.expert(np.array([0, 0, 0.3, 0, 0, 0, 0.08]), hidden=True)[1] > 0.5  # to the right cup


@pytest.mark.parametrize("task", ["InterceptFast", "InterceptGrabSlow", "RotateLenientPos", "TakeItBack"])
def test_families_without_no_op_phases_choose_nothing(task):
    plain = family(f"{task}-VLA-v0")
    assert (plain.lengths(), plain.target(), plain.places(hidden=False).shape) == ((0, 0), None, (0, 3))


def test_the_instruction_of_rotate_is_the_episodes():
    told = "Rotate the peg by -21 degrees to match the target angle."
    assert family("RotateLenientPosNeg-VLA-v0").instruction({"language_instruction": [told]}) == told
    assert family("TakeItBack-VLA-v0").instruction({}) == INSTRUCTIONS["TakeItBack"]


def test_every_instruction_of_a_task_is_known_before_it_runs():
    """The suite draws 0.1 rad to a quarter turn, or to an eighth in either direction, and rounds to degrees."""
    assert task_info("TakeItBack-VLA-v0").instructions == (INSTRUCTIONS["TakeItBack"],)
    for task, angles in (("RotateLenientPos", (6, 90)), ("RotateStrictPosNeg", (-45, -6, 6, 45))):
        told = task_info(f"{task}-VLA-v0").instructions
        assert len(told) == len(set(told)) and all(any(f" {angle} degrees" in one for one in told) for angle in angles)
        assert not any(" 91 degrees" in one or "-46" in one for one in told)


def test_take_it_back_goes_back_once_the_goal_was_reached():
    held = np.array([0.1, 0.0, 0.02, 0, -0.4, 0, 0.037])
    for reached, sign in ((0.0, 1), (1.0, -1)):
        task = family(
            "TakeItBack-VLA-v0",
            goal_reached_status=torch.tensor([reached]),
            cube=actor(0.1, 0.0, 0.02),
            goal_region=actor(0.2, 0, 0),
            initial_region=actor(0.0, 0, 0),
        )
        assert sign * task.expert(held, hidden=False)[0] > 0.2


def test_a_task_without_an_expert_has_no_demonstrations(tmp_path):
    assert family("ShellGamePick-VLA-v0").expert(np.zeros(7), hidden=False) is None
    with refused("data.dataset.task.name"):
        collect(DatasetConfig(TaskConfig("ShellGamePick-VLA-v0"), episodes=2), tmp_path)


def test_black_pictures_are_refused_where_pictures_are_part_of_the_physics():
    with refused("frames"):
        simulator.blind(SimpleNamespace(gpu_sim_enabled=True))


def test_on_a_gpu_the_cups_of_shell_game_touch_are_left_as_they_are():
    """There the suite's lift is in the pictures alone."""
    backend = SimpleNamespace(sim_backend="physx_cuda")
    on_gpu = family("ShellGameTouch-VLA-v0", backend=backend)
    on_gpu.settle(hidden=True)
    assert on_gpu.altered() == ()
    on_cpu = family("ShellGameTouch-VLA-v0", backend=SimpleNamespace(sim_backend="physx_cpu"))
    assert on_cpu.altered() == ("lifted cups are weightless",)
    assert family("ShellGamePush-VLA-v0", backend=SimpleNamespace(sim_backend="physx_cpu")).altered() == ()


def test_the_most_frequent_target_of_a_task_that_has_none():
    rows = [SimpleNamespace(error=None, target=None)] * 3
    assert np.isnan(best_constant_choice(rows))


# --- the mug ----------------------------------------------------------------------------------------------------------


def test_without_the_mug_the_remedy_is_named(asset_root):
    with refused("assets shellgame") as info:
        SHELLGAME.require()
    assert info.value.field == "assets shellgame" and str(asset_root) in info.value.got
    (finding,) = (one for one in doctor._assets() if one.name == "shellgame assets")
    assert not finding.ok and not finding.needed and "muvla assets fetch" in finding.remedy


def test_a_stand_in_says_that_it_is_one(asset_root, monkeypatch):
    assert stand_ins.stand_ins() == ()
    stand_ins.write_stand_in(asset_root)
    assert SHELLGAME.require() == asset_root and stand_ins.stand_ins() == ("025_mug",)
    (finding,) = (one for one in doctor._assets() if one.name == "shellgame assets")
    assert finding.ok and "with 1 stand-ins" in finding.what
    # ... in the provenance of every row and beside every dataset of the tasks that it is in
    monkeypatch.setattr(simulator, "backend", lambda field, asked: f"{field} {asked}")
    content = str(assets_content(SHELLGAME))
    assert content.endswith(" with 1 stand-ins")
    assert (
        backends(TaskConfig("ShellGamePush-VLA-v0"))
        == f"sim_backend cpu, render_backend auto, a scene per episode, {content}"
    )
    assert backends(TaskConfig("RememberColor3-VLA-v0")) == "sim_backend cpu, render_backend auto, a scene per episode"
    described = asset_root / SHELLGAME.parts[0]
    model = json.loads(described.read_text())
    del model["025_mug"]["stand_in"]  # as the published asset is described
    described.write_text(json.dumps(model))
    assert stand_ins.stand_ins() == ()


def test_without_the_bulb_of_the_lamps_the_remedy_is_named(asset_root, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MUVLA_MIKASA_LAMP", str(tmp_path / "lamp"))
    with refused("assets lamp") as info:
        simulator.require(MIKASA_TASKS["TimedTransferEasy-Long-VLA-v0"].assets)
    assert info.value.field == "assets lamp"
    assert main(["assets", "fetch", "lamp"]) == EXIT_BAD_INPUT
    remedy = capsys.readouterr().err
    assert "low_poly_light_bulb.glb" in remedy and str(tmp_path / "lamp") in remedy
    stand_ins.write_bulb(tmp_path / "lamp")
    assert LAMP.require() == tmp_path / "lamp" and stand_ins.stand_ins((LAMP,)) == ("low_poly_light_bulb.glb",)
    monkeypatch.setattr(simulator, "backend", lambda field, asked: f"{field} {asked}")
    assert backends(TaskConfig("TimedTransferEasy-Long-VLA-v0")).endswith(" with 1 stand-ins")
    assert main(["assets", "check", "lamp"]) == 0
    (tmp_path / "lamp" / "low_poly_light_bulb.glb").write_bytes(b"glTF of somebody else")
    assert stand_ins.stand_ins((LAMP,)) == ()


def test_the_stand_in_of_the_bulb_stands_upright(tmp_path):
    """As the suite turns and lowers it: a ball above its lamp, axis +y."""
    trimesh = pytest.importorskip("trimesh")
    stand_ins.write_bulb(tmp_path)
    mesh = trimesh.load(tmp_path / "low_poly_light_bulb.glb", force="mesh")
    np.testing.assert_allclose(mesh.bounds[:, [0, 2]], [[-0.014, -0.014], [0.014, 0.014]], atol=1e-4)
    assert mesh.bounds[0, 1] > 0.06 and (mesh.face_normals * (mesh.triangles_center - mesh.centroid)).sum(1).min() > 0


@pytest.mark.parametrize("file", ["collision.ply", "textured.obj", "texture_map.png"])
def test_a_foreign_mug_has_another_content_in_every_rows_provenance(asset_root, tmp_path, monkeypatch, file):
    """Whatever its description says."""
    monkeypatch.setattr(simulator, "backend", lambda field, asked: f"{field} {asked}")
    told = set()
    for place, change in (("a", False), ("b", True)):
        monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path / place))
        stand_ins.write_stand_in(tmp_path / place)
        if change:
            (tmp_path / place / SHELLGAME.parts[3] / file).write_text("another")
        told.add(backends(TaskConfig("ShellGamePush-VLA-v0")))
    assert len(told) == 2


@pytest.mark.parametrize("text", ['{"025_mug": ', "[]", "\udcff"])
def test_a_damaged_table_of_models_is_one_clear_error(asset_root, text):
    stand_ins.write_stand_in(asset_root)
    (asset_root / SHELLGAME.parts[0]).write_bytes(text.encode(errors="surrogateescape"))
    for ask in (stand_ins.stand_ins, lambda: assets_content(SHELLGAME)):
        with refused(str(asset_root / SHELLGAME.parts[0])) as info:
            ask()
        assert info.value.remedy == SHELLGAME.remedy
    (finding,) = (one for one in doctor._assets() if one.name == "shellgame assets")
    assert not finding.ok and "info_pick_v0.json" in finding.what


def test_the_stand_in_is_a_mug_of_closed_pieces(asset_root):
    trimesh = pytest.importorskip("trimesh")
    stand_ins.write_stand_in(asset_root)
    folder = (asset_root / SHELLGAME.parts[1]).parent
    for name in ("collision.ply", "textured.obj"):
        mesh = trimesh.load(folder / name, process=False)
        pieces = mesh.split()
        assert len(pieces) == 27 and all(p.is_watertight and p.is_convex and p.volume > 0 for p in pieces)
        size = mesh.bounds[1] - mesh.bounds[0]
        np.testing.assert_allclose(size, [0.117, 0.084, 0.081], atol=0.001)
        assert mesh.bounds[0, 2] == pytest.approx(-mesh.bounds[1, 2])  # the suite puts half its height on the table
        # Hollow, and closed at its base, so that upside down no camera sees what it hides.
        angle, radius = np.meshgrid(np.linspace(0, 2 * np.pi, 50), np.linspace(0, 0.041, 9))
        across = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(-1, 2)

        middle = across[np.linalg.norm(across, axis=1) < 0.035]
        assert _filled(pieces, across, -0.038).all() and not _filled(pieces, middle, 0.0).any()


def _filled(pieces, points, height):
    """Whether some convex piece holds the points (N, 2) at a height."""
    at = np.column_stack([points, np.full(len(points), height)])
    return np.any([_inside(piece, at) for piece in pieces], axis=0)


def _inside(piece, points):
    """Whether points (N, 3) lie in a convex piece: behind each of its faces."""
    offsets = points[:, None] - piece.triangles_center[None]
    return ((offsets * piece.face_normals[None]).sum(-1) <= 1e-9).all(axis=1)
