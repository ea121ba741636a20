"""LIBERO's simulator: its package, its assets and its renderer, which are imported when a task is opened.

robosuite draws from NumPy's global generator and keeps an OpenGL context per thread, so every environment has a process
of its own (`muvla.envs.workers`).
"""

from __future__ import annotations

import os
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from muvla.config.serialization import content_hash
from muvla.envs.assets import content
from muvla.envs.libero.assets import LIBERO
from muvla.envs.libero.tasks import INITIAL_STATES, LiberoTask
from muvla.errors import MuvlaError
from muvla.utils.io import disk_errors, write_json

Raw = dict[str, np.ndarray]  # robosuite's observation
RENDERERS = {  # value of MUJOCO_GL → remedy where it fails; EGL uses a GPU's driver, or Mesa's for the CPU
    "egl": "run `sudo bash scripts/install-system-packages.sh`, or install the GPU's driver",
    "osmesa": "install libosmesa6, or unset MUJOCO_GL for EGL, which scripts/install-system-packages.sh installs",
}
PLACEMENTS = 100  # draws per reset; a draw in which objects would touch is repeated


class Simulator:
    """An open task. `start` sets an initial state, `step` executes one of the simulator's actions."""

    def __init__(self, env: Any, states: np.ndarray, render_backend: str):
        self._env, self._states, self.render_backend = env, states, render_backend

    def start(self, number: int) -> None:
        """Set initial state `number`; the number also seeds the generator that places the fixtures."""
        self._env.seed(number)
        # The inner environment's reset: the outer reset retries every error for ever.
        _placed(self._env.env)
        self._env.set_init_state(self._states[number])

    def step(self, action: np.ndarray) -> tuple[Raw, bool]:
        """Action (7,) in robosuite's convention → observation, success."""
        raw, _, success, _ = self._env.step(action)
        return raw, bool(success)

    @property
    def renderer(self) -> str:
        """OpenGL's name of the renderer: a GPU, or Mesa on the CPU."""
        from OpenGL import GL

        self._env.sim._render_context_offscreen.gl_ctx.make_current()
        return GL.glGetString(GL.GL_RENDERER).decode()

    def close(self) -> None:
        self._env.close()


def _placed(env: Any) -> None:
    from robosuite.utils.errors import RandomizationError

    for left in reversed(range(PLACEMENTS)):
        try:
            env.reset()
            return
        except RandomizationError:
            if not left:
                raise


def open_simulator(task: LiberoTask, camera_size: int) -> Simulator:
    """Open a task. Raises MuvlaError where the package, an asset or a renderer is missing."""
    assets, renderer = LIBERO.require(), render_backend()
    package = _configure(assets, renderer)
    try:
        import libero.libero

        # Without this, LIBERO looks in its own folder only, ignores its configuration, and downloads.
        libero.libero._assets_path_cache = str(assets)
        from libero.libero.envs import OffScreenRenderEnv
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        raise _unimportable(error, renderer) from error
    try:
        env = OffScreenRenderEnv(
            bddl_file_name=str(package / "bddl_files" / task.suite / f"{task.file}.bddl"),
            camera_heights=camera_size,
            camera_widths=camera_size,
        )
    except (FileNotFoundError, ValueError) as error:  # MuJoCo raises the latter: "Error opening file '…'"
        if str(assets) not in str(error):
            raise
        raise MuvlaError(
            f"assets of {task.name}", got=str(error), expected=LIBERO.what, remedy=LIBERO.remedy
        ) from error
    except (ImportError, AttributeError, RuntimeError) as error:
        raise _no_renderer(error, renderer) from error
    return Simulator(env, _initial_states(package / "init_files" / task.suite / f"{task.file}.pruned_init"), renderer)


def render_backend() -> str:
    """MuJoCo's renderer: the value of MUJOCO_GL, `egl` by default. Raises MuvlaError for an unknown one."""
    renderer = os.environ.get("MUJOCO_GL", "egl").lower()
    if renderer not in RENDERERS:
        raise MuvlaError(
            "MUJOCO_GL", got=renderer, expected=f"one of {', '.join(RENDERERS)}", remedy="unset MUJOCO_GL to use EGL"
        )
    return renderer


def backends() -> str:
    """Physics, renderer and content of the assets, for provenance. Raises MuvlaError where assets are missing."""
    return f"mujoco_cpu, {render_backend()}, {content(LIBERO)}"


def _configure(assets: Path, renderer: str) -> Path:
    """Write the settings that the packages read when they are imported; returns LIBERO's folder.

    Without a configuration file LIBERO would ask on the terminal, and write a file to the home folder.
    """
    spec = find_spec("libero")
    if spec is None or not spec.submodule_search_locations:
        raise _not_installed("No module named 'libero'")
    package = Path(spec.submodule_search_locations[0]) / "libero"
    paths = {
        "benchmark_root": str(package),
        "bddl_files": str(package / "bddl_files"),
        "init_states": str(package / "init_files"),
        "datasets": str(package.parent / "datasets"),
        "assets": str(assets),
    }
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "muvla" / f"libero-{content_hash(paths)}"  # a second installation has another folder
    if not (folder / "config.yaml").exists():
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.yaml", paths)  # JSON is YAML too
    os.environ |= {"LIBERO_CONFIG_PATH": str(folder), "MUJOCO_GL": renderer}
    # The module of robosuite's settings. A user's settings would change images. Without the module robosuite warns, and
    # its defaults write to a file in /tmp that may belong to another user.
    macros = types.ModuleType("robosuite.macros_private")
    macros.FILE_LOGGING_LEVEL = None
    sys.modules["robosuite.macros_private"] = macros
    return package


def _initial_states(path: Path) -> np.ndarray:
    """Initial states (INITIAL_STATES, n) float64: MuJoCo's time, positions and velocities."""
    import torch
    from numpy._core.multiarray import _reconstruct

    array = [_reconstruct, (_reconstruct, "numpy.core.multiarray._reconstruct")]  # names of NumPy 2 and 1
    with torch.serialization.safe_globals([*array, np.ndarray, np.dtype, type(np.dtype(np.float64))]):
        states = torch.load(path, weights_only=True)
    if len(states) < INITIAL_STATES:
        raise MuvlaError(
            str(path), got=f"{len(states)} initial states", expected=str(INITIAL_STATES), remedy="run `make libero`"
        )
    return states


def _unimportable(error: Exception, renderer: str) -> MuvlaError:
    """The error of an import; robosuite loads OpenGL when it is imported."""
    return _not_installed(str(error)) if isinstance(error, ModuleNotFoundError) else _no_renderer(error, renderer)


def _not_installed(got: str) -> MuvlaError:
    return MuvlaError("simulator", got=got, expected="hf-libero 0.1.4 and robosuite 1.4.0", remedy="run `make libero`")


def _no_renderer(error: Exception, renderer: str) -> MuvlaError:
    return MuvlaError(
        "renderer",
        got=f"{type(error).__name__}: {error}",
        expected=f"OpenGL without a screen ({renderer})",
        remedy=RENDERERS[renderer],
    )
