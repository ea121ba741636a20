"""Training data of a cell: tasks, datasets, and the parts of them that the policy sees."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from muvla.config.serialization import ADDED_LATER
from muvla.config.validation import is_whole, require
from muvla.utils.names import require_name


@dataclass(frozen=True)
class TaskConfig:
    """An environment with its settable parts; None leaves the task's default."""

    name: str
    cue: tuple[int, int] | None = None  # cue length in steps, drawn uniformly from [low, high]
    delay: tuple[int, int] | None = None
    palette: tuple[str, ...] | None = None  # colour names
    # The device on which a simulator computes physics. It belongs to the task, because torch draws an episode on this
    # device: the same seed is another episode on a GPU. Rendering follows the hardware; every result records it.
    physics: Literal["cpu", "gpu"] | None = None
    # Steps before the cue in which nothing is shown, so that the cue is not in an episode's first frame.
    blank: tuple[int, int] | None = field(default=None, metadata=ADDED_LATER)
    # A change of appearance alone, as the suite makes it: camera moved, light dimmed, or an object that does nothing.
    shift: Literal["camera", "light", "distractor"] | None = field(default=None, metadata=ADDED_LATER)
    # Largest number of steps of an episode; null leaves the task's limit, which grows with its longest phases.
    step_limit: int | None = field(default=None, metadata=ADDED_LATER)
    objects: int | None = field(default=None, metadata=ADDED_LATER)  # number of objects to choose from
    shown: int | None = field(default=None, metadata=ADDED_LATER)  # number of objects that an episode asks for
    distractors: tuple[int, int] | None = field(default=None, metadata=ADDED_LATER)  # distracting events in the delay
    moves: tuple[int, int] | None = field(default=None, metadata=ADDED_LATER)  # exchanges of objects in the delay
    # The fully observable twin: every frame of the decision shows what must be known. A failure on the twin is no
    # failure of memory.
    observable: Literal[True] | None = field(default=None, metadata=ADDED_LATER)
    # The half of all pairs of a layout and a cue from which episodes come; null is both halves.
    pairs: Literal["train", "held_out"] | None = field(default=None, metadata=ADDED_LATER)

    def __post_init__(self):
        require(
            isinstance(self.name, str) and self.name != "", "task.name", self.name, "a name", "see `muvla ls tasks`"
        )
        for name in ("cue", "delay", "blank", "palette", "distractors", "moves"):
            if isinstance(getattr(self, name), list):  # a task is a key of dictionaries, and a list cannot be
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, least in (("cue", 1), ("delay", 1), ("blank", 0), ("distractors", 0), ("moves", 0)):
            span = getattr(self, name)
            require(
                span is None
                or (
                    (isinstance(span, tuple) and len(span) == 2 and all(map(is_whole, span)))
                    and least <= span[0] <= span[1]
                ),
                f"task.{name}",
                span,
                f"{least} ≤ low ≤ high",
                "give two counts, for instance [1, 3]",
            )
        for name in ("objects", "shown"):
            count = getattr(self, name)
            fits = count is None or (is_whole(count) and count >= 1)
            require(fits, f"task.{name}", count, "≥ 1", "set a positive number")
        require(
            self.palette is None or (isinstance(self.palette, tuple) and all(isinstance(c, str) for c in self.palette)),
            "task.palette",
            self.palette,
            "names of colours",
            "give a list of names, for instance [red, blue, lime]",
        )
        require(
            self.step_limit is None or (is_whole(self.step_limit) and self.step_limit >= 1),
            "task.step_limit",
            self.step_limit,
            "≥ 1",
            "set a positive number",
        )


@dataclass(frozen=True)
class DatasetConfig:
    """Demonstrations: by the scripted expert, or imported.

    Episode i of the expert is reset with seed `seed + i`. Imported demonstrations have a `source` and no seeds.
    """

    task: TaskConfig
    episodes: int = 500
    seed: int = 0
    image_size: int | None = None  # pixels of the stored frames; None keeps the camera's
    source: str | None = field(default=None, metadata=ADDED_LATER)  # name of an import; null collects

    def __post_init__(self):
        require(
            self.source is None or re.fullmatch(r"[\w-][\w.-]*", self.source) is not None,
            "data.dataset.source",
            self.source,
            "letters, digits, _, - and dots: it names a folder",
            "choose another name",
        )
        if self.source is not None:
            require_name(self.source, "data.dataset.source")
        require(
            self.image_size is None or (is_whole(self.image_size) and self.image_size >= 1),
            "data.dataset.image_size",
            self.image_size,
            "≥ 1 or null",
            "set a number of pixels, or null for the camera's",
        )
        require(self.episodes >= 1, "data.dataset.episodes", self.episodes, "≥ 1", "set a positive number")
        require(0 <= self.seed < 2**32, "data.dataset.seed", self.seed, "in [0, 2^32)", "choose another block of seeds")


@dataclass(frozen=True)
class DataConfig:
    """Datasets of a training, and what of them reaches the policy."""

    dataset: DatasetConfig
    # The labels of chunk entries that the simulator never executed (spec 4.4).
    labels: Literal["executed", "recorded", "masked"] = "executed"
    # Chunk entries past the episode's end: weight 0; the last action repeated, as published for μVLA (spec 4.1); or
    # `still`, as published for CogACT and MemoryVLA: no motion, and the gripper as it was last.
    tail: Literal["mask", "repeat", "still"] = "mask"
    # The robot's cameras that the policy sees: the first so many, or a list of their numbers (from 0) or names; null is
    # all of them.
    cameras: int | tuple[int | str, ...] | None = field(default=None, metadata=ADDED_LATER)
    # One more image at every step, the first seen camera's image of the episode's first step: an oracle for what was
    # visible there.
    first_image: bool = field(default=False, metadata=ADDED_LATER)
    # The instruction that reaches the policy: the task's, or the task's and the target's number. The target in words is
    # an upper bound of what a memory of the target can give. The prompts of a study are padded alike
    # (`model.prompt_tokens`).
    instruction: Literal["task", "with_target"] = field(default="task", metadata=ADDED_LATER)
    # Random crops and colours in training, drawn once per episode or, as published, anew for every frame (spec 4.3).
    augmentation: Literal["none", "episode", "frame"] = field(default="none", metadata=ADDED_LATER)
    # Position of the random crop. `free`: top and left are two draws. `diagonal`, as published: left equals top.
    crop: Literal["free", "diagonal"] = field(default="free", metadata=ADDED_LATER)
    # The frames that a slot plays. `episodic`: episodes frame by frame; MemoryVLA (arXiv 2508.19236) calls this order
    # `stream`. `shuffled`: single frames in random order, as memoryless baselines were trained (spec 4.6), with the
    # data, statistics and tail of the other cells. `grouped`: at most `group` random frames of an episode in their
    # order, others at every visit; MemoryVLA calls this order `group`. A memory starts anew with every group.
    order: Literal["episodic", "shuffled", "grouped"] = field(default="episodic", metadata=ADDED_LATER)
    group: int = field(default=16, metadata=ADDED_LATER)
    # The rest of a group whose episode has fewer than `group` frames. `none`: the group is shorter. `repeat`, as
    # published for MemoryVLA: the last frame again. Every group then has `group` ticks, and slots start at a group's
    # first tick, so that a window of `group` ticks is a whole group.
    group_padding: Literal["none", "repeat"] = field(default="none", metadata=ADDED_LATER)
    # Further datasets that are trained together with `dataset`, usually of other tasks: one policy, one scale.
    mixture: tuple[DatasetConfig, ...] = field(default=(), metadata=ADDED_LATER)
    # Datasets of a mixture have equal shares of episodes, so that a dataset of longer episodes gives more frames (as
    # published, spec 4.1), or equal shares of frames (`muvla.data.mixture_sampling`).
    balance: Literal["episode", "frame"] = field(default="episode", metadata=ADDED_LATER)
    # The actions whose quantiles are the scale. `executed`: what the simulator applied. `recorded`, as published: the
    # expert's actions in all frames, never executed ones included (spec 4.2, 4.4).
    statistics: Literal["executed", "recorded"] = field(default="executed", metadata=ADDED_LATER)
    # Demonstrations are played up to the so many-th step of their decision; null plays them whole. The arm's own pose
    # tells a decision from its second step on, so only the first steps train sight and memory. Labels of a chunk still
    # reach past this step, up to the end of the demonstration.
    decision_steps: int | None = field(default=None, metadata=ADDED_LATER)
    # Demonstrations that no training plays. The log holds their error at the first step of the decision. They change no
    # training, so they are no part of the train id.
    held_out: DatasetConfig | None = field(default=None, metadata=ADDED_LATER)

    def __post_init__(self):
        if isinstance(self.cameras, list):
            object.__setattr__(self, "cameras", tuple(self.cameras))
        require(
            self.cameras is None or _is_choice(self.cameras),
            "data.cameras",
            self.cameras,
            "a number of cameras, a list of different camera numbers or names, or null",
            "set null for all cameras, 1 for the first, or for instance [1] for the second",
        )
        require(
            self.decision_steps is None or self.decision_steps >= 1,
            "data.decision_steps",
            self.decision_steps,
            "≥ 1 or null",
            "set a number of steps, or null for whole demonstrations",
        )
        twice = [dataset for dataset in self.datasets if self.datasets.count(dataset) > 1]
        require(
            not twice,
            "data.mixture",
            twice and f"{twice[0].source or twice[0].task.name} twice",
            "every dataset once",
            "remove one of them; data.balance sets the shares",
        )
        collected = [dataset for dataset in self.datasets if dataset.source is None]
        for i, dataset in enumerate(collected):
            for other in collected[:i]:
                _require_apart("data.mixture", dataset, other)
        if self.held_out is not None:
            for dataset in self.datasets:
                _require_unseen(self.held_out, dataset)
        require(
            self.group >= 1, "data.group", self.group, "≥ 1", "set a positive number; published groups have 16 frames"
        )

    @property
    def datasets(self) -> tuple[DatasetConfig, ...]:
        """All datasets that are trained together, in the order in which the store numbers their episodes."""
        return (self.dataset, *self.mixture)

    @property
    def collected(self) -> tuple[DatasetConfig, ...]:
        """All datasets that must exist before the training: those that it plays, and the held-out one."""
        return self.datasets if self.held_out is None else (*self.datasets, self.held_out)


def _is_choice(cameras: int | tuple[int | str, ...]) -> bool:
    if isinstance(cameras, int):
        return cameras >= 1
    valid = all(camera != "" if isinstance(camera, str) else camera >= 0 for camera in cameras)
    return bool(cameras) and valid and len(set(cameras)) == len(cameras)


def _require_unseen(held_out: DatasetConfig, dataset: DatasetConfig) -> None:
    """Held-out demonstrations must share no episode with the training's."""
    if held_out.source is None and dataset.source is None:
        _require_apart("data.held_out", held_out, dataset)
    require(
        held_out.source is None or held_out.source != dataset.source,
        "data.held_out",
        held_out.source,
        "other demonstrations than those of the training",
        "import the held-out episodes under another name, for instance with --episodes",
    )


def _require_apart(where: str, dataset: DatasetConfig, other: DatasetConfig) -> None:
    """Two datasets of one task and image size must share no episode."""
    alike = (dataset.task, dataset.image_size) == (other.task, other.image_size)
    first = max(dataset.seed, other.seed)
    require(
        not alike or first >= min(dataset.seed + dataset.episodes, other.seed + other.episodes),
        where,
        f"{dataset.task.name} from seed {other.seed} and from seed {dataset.seed}, "
        f"{other.episodes} and {dataset.episodes} episodes",
        "no episode twice",
        "set a seed past the other dataset's last seed",
    )
