"""What is changed of a MIKASA task's looks bites on the pictures, and leaves bodies, places and targets alone."""

import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.looks import BOTH, COLOR, NEW
from helpers.paths import ROOT
from muvla.config import TaskConfig
from muvla.envs.colours import COLOURS
from muvla.envs.mikasa import MIKASA_TASKS, simulator
from muvla.envs.mikasa.appearance import change_appearance, colours
from muvla.envs.registry import make_env
from muvla.errors import MuvlaError

ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}


def base(**parts):
    """A made-up ManiSkill environment that counts how often it is built anew."""
    built = []
    return SimpleNamespace(reset=lambda options: built.append(options), built=built, **parts)


def test_colours_are_painted_where_the_suite_takes_them_from():
    plain = base(color_dict={})
    assert change_appearance(plain, MIKASA_TASKS[COLOR], None, None) == () and not plain.built
    cubes = base(color_dict={})
    assert change_appearance(cubes, MIKASA_TASKS[COLOR], NEW, None) == ("colours pink, lime, brown",)
    assert [(rgba * 255).round().tolist() for rgba in cubes.color_dict.values()] == [[*COLOURS[n], 255] for n in NEW]
    assert cubes.built == [{"reconfigure": True}]
    shapes = base(shape_color_dict={i: {"color_id": i % 3, "color": None} for i in range(6)})
    change_appearance(shapes, MIKASA_TASKS[BOTH], NEW, None)
    assert shapes.shape_color_dict[5]["color"].tolist() == [139 / 255, 69 / 255, 19 / 255, 1]


@pytest.mark.parametrize("palette", [("red", "lime"), ("red", "red", "blue"), ("red", "lime", "ultraviolet")])
def test_a_palette_that_does_not_fit_is_refused(palette):
    with pytest.raises(MuvlaError) as refused:
        change_appearance(base(color_dict={}), MIKASA_TASKS[COLOR], palette, None)
    assert refused.value.field == "task.palette"


def test_a_palette_is_refused_where_objects_do_not_differ_by_colour():
    with pytest.raises(MuvlaError) as refused:
        make_env(TaskConfig("RememberShape3-VLA-v0", palette=NEW))
    assert refused.value.field == "task.palette"


def test_half_the_light():
    lit = []
    scene = SimpleNamespace(set_ambient_light=lit.append, add_directional_light=lambda way, of: lit.append(of))
    dark = base(scene=scene)
    assert change_appearance(dark, MIKASA_TASKS[COLOR], None, "light") == ("light dimmed to 50%",)
    dark._load_lighting({})
    assert lit == [[0.15] * 3, [0.5] * 3, [0.5] * 3]


# --- with the simulator -----------------------------------------------------------------------------------------------


@pytest.mark.sim
@pytest.mark.slow
def test_a_change_of_looks_bites_on_pictures_alone(tmp_path):
    subprocess.run([sys.executable, "-m", "helpers.looks", tmp_path], cwd=ROOT / "tests", env=ENVIRONMENT, check=True)
    seen = {file.stem: pickle.loads(file.read_bytes()) for file in tmp_path.iterdir()}
    assert seen.keys() == {"plain", "palette", "camera", "light", "distractor", "shapes", "painted"}
    for change in ("palette", "camera", "light", "distractor"):
        look = seen[change]
        assert look.rest == seen["plain"].rest, "bit for bit: joints, places (through the expert), phases and targets"
        assert len(look.altered) == 1
        moved = np.abs(look.pictures - seen["plain"].pictures).max(axis=(2, 3, 4))  # (steps, cameras)
        # The wrist camera does not move with the base's, and does not see the distractor.
        assert (moved[-1] > 40).tolist() == [True, change in ("palette", "light")], change
        if change == "palette":
            assert not moved[5].any(), "an empty table in the delay"
        else:
            assert (moved[:, 0] > 40).all(), "in every phase"
    assert seen["plain"].altered == seen["shapes"].altered == ()
    assert seen["painted"].rest == seen["shapes"].rest, "the longer limit is the simulator's"
    assert seen["painted"].altered == ("colours pink, lime, brown",)
    assert np.abs(seen["painted"].pictures[-1] - seen["shapes"].pictures[-1]).max() > 40


@pytest.mark.sim
@pytest.mark.slow
def test_the_colours_are_the_suites():
    simulator.load_suite()
    from mikasa_robo_suite.vla.memory_envs.remember_color_vla import RememberColorVLABaseEnv
    from mikasa_robo_suite.vla.memory_envs.remember_shape_and_color_vla import RememberShapeAndColorVLABaseEnv

    named = [(name.lower(), tuple(rgba[:3])) for name, rgba in RememberColorVLABaseEnv.COLOR_MAPPING.values()]
    assert named == [(name, COLOURS[name]) for name in colours(MIKASA_TASKS["RememberColor9-VLA-v0"])]
    shown = [tuple((rgba[:3] * 255).astype(int)) for rgba in RememberShapeAndColorVLABaseEnv.COLOR_PALETTE.values()]
    assert shown == [COLOURS[name] for name in colours(MIKASA_TASKS[BOTH])]
