"""Task families: what the adapter reads from the simulator's privileged state, and the experts that use it.

| family | no-op phases | target and choice | touched, TCP to centre |
|---|---|---|---|
| Remember* | cue, then an empty table: the delay | number of the object in the suite | 5 cm |
| ShellGame* | cue, the ball without its cups; no delay | 0 left, 1 centre, 2 right cup | 8 cm |
| Intercept*, InterceptGrab*, Rotate*, TakeItBack | none, the whole episode is decision | none | – |
| *-Long of Remember* | cue and delay, but nothing holds the arm | as there | 5 cm |
| SeqOfColors, ChainOfColors | the same | the first of the cubes, by its colour | the suite's own touch, 2 cm |
| BunchOfColors | the same | none: a set has no first one | – |
| ShellGameShuffle* | cue; the delay is the shuffle | the cup by where it stands at last | 8 cm |
| BlinkCountButtonPress | cue, until the red lamp turns green; no delay | none: a number of presses | – |
| TimedTransfer | none: the wait is counted, and acted in | none | – |

In the third row, the scene itself holds what must be remembered: a velocity, an angle, a place. A missing cue or delay
has length 0. Where nothing is chosen, the target is None and the choice stays −1.

The suite defines success, with two oddities. SeqOfColors counts the order although the instruction asks for none.
Remember*-Long counts a touch of the cube that is shown as the cue. There, choice and target say more than success.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from muvla.envs import experts
from muvla.envs.base import NO_CHOICE
from muvla.envs.mikasa.tasks import MikasaTask

LIFTED = 100.0  # metres; the suite lifts hidden objects higher than that
LONGEST = 5  # steps of the longest published cue, and of the longest published delay (μVLA spec 6.1)


class Family:
    """A family without no-op phases and without a choice; the base of the others. Positions: metres, world frame."""

    # `cue` or `delay` → the suite's attribute with the range of lengths.
    settable: ClassVar[dict[str, str]] = {}
    touch: float = 0.0  # metres

    def __init__(self, base: Any, task: MikasaTask):
        self.base, self.task = base, task

    @staticmethod
    def more_steps(lengths: dict[str, tuple[int, int]]) -> int:
        """Steps by which the longest phases exceed the longest published phases."""
        return sum(max(0, longest - LONGEST) for _, longest in lengths.values())

    def set_lengths(self, lengths: dict[str, tuple[int, int]]) -> None:
        """Draw `cue` and `delay` from these ranges, from the next reset on."""
        for name, span in lengths.items():
            setattr(self.base, self.settable[name], list(span))

    def lengths(self) -> tuple[int, int]:
        """Steps of the cue and of the delay."""
        return 0, 0

    def options(self, seed: int) -> dict[str, Any] | None:
        """Options of the simulator's reset besides the seed."""
        return None

    def settle(self, hidden: bool) -> None:
        """Prepare the simulator for the next step; called after every reset and step."""

    def altered(self) -> tuple[str, ...]:
        """Changes of the suite's task in words, for provenance."""
        return ()

    def target(self) -> int | None:
        return None

    def places(self, hidden: bool) -> np.ndarray:
        """Centres (N, 3) of the objects to choose among; of hidden objects, the places where they will appear."""
        return np.zeros((0, 3))

    def touched(self, tcp: np.ndarray) -> int:
        """Number of the nearest object that the tool centre point touches; NO_CHOICE without a touch."""
        distances = np.linalg.norm(self.places(hidden=False) - tcp, axis=1)
        return int(distances.argmin()) if distances.min() <= self.touch else NO_CHOICE

    def instruction(self, info: dict[str, Any]) -> str:
        return self.task.instruction

    def expert(self, proprio: np.ndarray, hidden: bool) -> np.ndarray | None:
        """The expert's action (A,); None for a task without an expert."""
        return None


class Remember(Family):
    settable: ClassVar = {"cue": "CUE_PHASE_STEPS", "delay": "EMPTY_PHASE_STEPS"}
    touch = 0.05  # the suite's GOAL_THRESH

    def lengths(self) -> tuple[int, int]:
        return int(self.base.cue_steps_per_env[0]), int(self.base.empty_steps_per_env[0])

    def target(self) -> int:
        colours = self.task.family == "RememberColor"
        return int((self.base.true_color_indices if colours else self.base.true_shape_indices)[0])

    def places(self, hidden: bool) -> np.ndarray:
        if hidden:
            places = [self.base.initial_poses[i][0] for i in range(self.task.objects)]
        else:
            actors = self.base.cubes if self.task.family == "RememberColor" else self.base.shape_actors
            places = [actors[i].pose.p[0] for i in range(self.task.objects)]
        return np.stack([place.cpu().numpy() for place in places])

    def expert(self, proprio: np.ndarray, hidden: bool) -> np.ndarray:
        return experts.reach(proprio[:3], self.places(hidden)[self.target()])


class ShellGame(Family):
    settable: ClassVar = {"cue": "CUE_PHASE_STEPS"}
    touch = 0.08  # the suite's: GOAL_THRESH of ShellGameTouch, "reached" in ShellGamePush

    def lengths(self) -> tuple[int, int]:
        return int(self.base.cue_steps_per_env[0]), 0

    def target(self) -> int:
        return int(self.base.cup_with_ball_number[0])

    def places(self, hidden: bool) -> np.ndarray:
        mugs = (self.base.mug_left, self.base.mug_center, self.base.mug_right)
        places = np.stack([mug.pose.p[0].cpu().numpy() for mug in mugs])
        places[places[:, 2] > LIFTED, 2] -= self.base.HEIGHT_OFFSET
        return places


class ShellGameTouch(ShellGame):
    def settle(self, hidden: bool) -> None:
        """Make lifted cups weightless, on CPU physics.

        On the published GPU physics the cups never leave the table: the suite's lift changes the images alone. On CPU
        physics the lift moves the cups. They would fall during the whole cue, come back under the table with up to
        2.5 m/s, and be thrown further than this task allows. Weightless cups come back to their places at rest, as on a
        GPU.
        """
        if not self.altered():
            return
        from sapien.physx import PhysxRigidDynamicComponent

        for mug in (self.base.mug_left, self.base.mug_center, self.base.mug_right):
            for entity in mug._objs:
                entity.find_component_by_type(PhysxRigidDynamicComponent).disable_gravity = hidden

    def altered(self) -> tuple[str, ...]:
        return ("lifted cups are weightless",) if self.base.backend.sim_backend == "physx_cpu" else ()

    def expert(self, proprio: np.ndarray, hidden: bool) -> np.ndarray:
        return experts.reach(proprio[:3], self.places(hidden)[self.target()], experts.ABOVE_CUP)


class ShellGamePush(ShellGame):
    def expert(self, proprio: np.ndarray, hidden: bool) -> np.ndarray:
        goal = self.base.goal_site.pose.p[0].cpu().numpy()
        return experts.push(proprio[:3], self.places(hidden)[self.target()], goal)


class ShellGameShuffle(ShellGame):
    """The suite sets every cup's pose after every step, so no cup falls. Cups are numbered by their final places."""

    settable: ClassVar = {}

    def lengths(self) -> tuple[int, int]:
        return int(self.base.cue_steps_per_env[0]), int(self.base.empty_steps_per_env[0])

    def target(self) -> int:
        return int(self.base.oracle_info[0])

    def places(self, hidden: bool) -> np.ndarray:
        return self.base.slot_positions[0].cpu().numpy()


class Shown(Family):
    """The suite draws the lengths of the cue and of the delay, if there is a delay."""

    def lengths(self) -> tuple[int, int]:
        return int(self.base.cue_steps_per_env[0]), int(self.base.empty_steps_per_env[0])


class Sequence(Shown):
    """The choice is the first cube that the suite counts as touched: from 2 cm above, with the robot at rest."""

    def target(self) -> int:
        return int(self.base.true_color_indices[0, 0])

    def places(self, hidden: bool) -> np.ndarray:
        return np.stack([self.base.cubes[i].pose.p[0].cpu().numpy() for i in range(self.task.objects)])

    def touched(self, tcp: np.ndarray) -> int:
        return int(self.base.touched_cubes_idx[0, 0])


class Intercept(Family):
    def expert(self, proprio: np.ndarray, hidden: bool) -> np.ndarray:
        ball, goal = self.base.ball, self.base.goal_region
        of = [x[0].cpu().numpy() for x in (ball.pose.p, ball.linear_velocity, goal.pose.p)]
        return experts.intercept(proprio, *of)


class TakeItBack(Family):
    def expert(self, proprio: np.ndarray, hidden: bool) -> np.ndarray:
        base = self.base
        place = base.initial_region if bool(base.goal_reached_status[0]) else base.goal_region
        cube, to = (x.pose.p[0].cpu().numpy() for x in (base.cube, place))
        return experts.carry(proprio, cube, to)


class Rotate(Family):
    def instruction(self, info: dict[str, Any]) -> str:
        """The suite's sentence with the angle that the episode drew."""
        return str(info["language_instruction"][0])


FAMILIES: dict[str, type[Family]] = {
    "RememberColor": Remember,
    "RememberShape": Remember,
    "RememberShapeAndColor": Remember,
    "ShellGameTouch": ShellGameTouch,
    "ShellGamePush": ShellGamePush,
    "ShellGamePick": ShellGame,
    "Intercept": Intercept,
    "InterceptGrab": Family,
    "RotateLenient": Rotate,
    "RotateStrict": Rotate,
    "TakeItBack": TakeItBack,
    "BunchOfColors": Shown,
    "SeqOfColors": Sequence,
    "ChainOfColors": Sequence,
    "ShellGameShuffleTouch": ShellGameShuffle,
    "ShellGameShuffleColorLampTouch": ShellGameShuffle,
    "BlinkCountButtonPress": Shown,
    "TimedTransfer": Family,
}
