"""What a cell is trained on: tasks, datasets, and what of them reaches the policy; a part of `muvla.config`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from muvla.config.serialization import ADDED_LATER
from muvla.config.validation import require as _require


@dataclass(frozen=True)
class TaskConfig:
    """An environment with its settable parts; None leaves the task's own default."""

    name: str
    cue: tuple[int, int] | None = None  # cue length in steps, drawn uniformly from [low, high]
    delay: tuple[int, int] | None = None
    palette: tuple[str, ...] | None = None  # colour names
    # Where a simulator computes physics. Part of the task, because torch draws an episode on that device: the same seed
    # is another episode on a GPU. Rendering follows the hardware and is recorded beside every result.
    physics: Literal["cpu", "gpu"] | None = None
    # Steps before the cue in which nothing is shown: then the cue is no longer in an episode's first frame.
    blank: tuple[int, int] | None = field(default=None, metadata=ADDED_LATER)
    # A change of looks alone, as its suite makes it: the camera moved, the light dimmed, an object that nothing does.
    shift: Literal["camera", "light", "distractor"] | None = field(default=None, metadata=ADDED_LATER)
    # Most steps of an episode; null leaves the task's own, which grows with its longest phases.
    step_limit: int | None = field(default=None, metadata=ADDED_LATER)

    def __post_init__(self):
        for name, least in (("cue", 1), ("delay", 1), ("blank", 0)):
            span = getattr(self, name)
            _require(
                span is None or least <= span[0] <= span[1],
                f"task.{name}",
                span,
                f"{least} ≤ low ≤ high",
                "give two step counts, for instance [1, 3]",
            )
        _require(self.step_limit is None or self.step_limit >= 1, "task.step_limit", self.step_limit, "≥ 1", "raise it")


@dataclass(frozen=True)
class DatasetConfig:
    """Demonstrations by the scripted expert: episode i is reset with seed `seed + i`. Or, with a source, imported ones,
    which have no seeds."""

    task: TaskConfig
    episodes: int = 500
    seed: int = 0
    image_size: int | None = None  # pixels the frames are stored at; None keeps the camera's own
    source: str | None = field(default=None, metadata=ADDED_LATER)  # the name of an import; null collects

    def __post_init__(self):
        _require(
            self.source is None or re.fullmatch(r"[\w-][\w.-]*", self.source) is not None,
            "data.dataset.source",
            self.source,
            "letters, digits, _, - and dots: it names a folder",
            "choose another name",
        )
        _require(self.episodes >= 1, "data.dataset.episodes", self.episodes, "≥ 1", "set a positive number")
        _require(
            0 <= self.seed < 2**32, "data.dataset.seed", self.seed, "in [0, 2^32)", "choose another block of seeds"
        )


@dataclass(frozen=True)
class DataConfig:
    dataset: DatasetConfig
    # What supervises chunk entries that the simulator never executed (spec 4.4).
    labels: Literal["executed", "recorded", "masked"] = "executed"
    # Chunk entries past the episode's end: weight 0, or the last action repeated as published (spec 4.1).
    tail: Literal["mask", "repeat"] = "mask"
    # The first so many of the robot's cameras; null is all of them.
    cameras: int | None = field(default=None, metadata=ADDED_LATER)
    # One image more at every step, the first camera's of the episode's first: an oracle for what was visible then.
    first_image: bool = field(default=False, metadata=ADDED_LATER)
    # Random crops and colours in training, drawn once per episode or, as published, anew for every frame (spec 4.3).
    augmentation: Literal["none", "episode", "frame"] = field(default="none", metadata=ADDED_LATER)
    # What a slot plays: episodes frame by frame; single frames in random order, as memoryless baselines were trained
    # (spec 4.6), but with the data, statistics and tail of the other cells; or at most `group` random frames of an
    # episode in their order, others at every visit (as MemoryVLA, arXiv 2508.19236, which fills a shorter episode up
    # with its last frame; here it is played whole).
    order: Literal["episodic", "shuffled", "grouped"] = field(default="episodic", metadata=ADDED_LATER)
    group: int = field(default=16, metadata=ADDED_LATER)
    # Further datasets that are trained together with `dataset`, other tasks as a rule: one policy, one scale.
    mixture: tuple[DatasetConfig, ...] = field(default=(), metadata=ADDED_LATER)
    # What the datasets of a mixture have equal shares of: episodes, so that one of longer episodes gives more frames
    # (as published, spec 4.1), or frames (`muvla.data.mixture_sampling`).
    balance: Literal["episode", "frame"] = field(default="episode", metadata=ADDED_LATER)
    # The actions whose quantiles are the scale: those that the simulator applied, or, as published, the expert's in all
    # frames, never executed ones included (spec 4.2, 4.4).
    statistics: Literal["executed", "recorded"] = field(default="executed", metadata=ADDED_LATER)

    def __post_init__(self):
        _require(self.cameras is None or self.cameras >= 1, "data.cameras", self.cameras, "≥ 1 or null", "correct it")
        twice = [one for one in self.datasets if self.datasets.count(one) > 1]
        _require(
            not twice,
            "data.mixture",
            twice and f"{twice[0].source or twice[0].task.name} twice",
            "every dataset once",
            "remove one; equal shares are what data.balance is for",
        )
        collected = [one for one in self.datasets if one.source is None]
        for i, one in enumerate(collected):
            for other in collected[:i]:
                alike = (one.task, one.image_size) == (other.task, other.image_size)
                _require(
                    not alike or max(one.seed, other.seed) >= min(one.seed + one.episodes, other.seed + other.episodes),
                    "data.mixture",
                    f"{one.task.name} from seed {other.seed} and from seed {one.seed}, "
                    f"{other.episodes} and {one.episodes} episodes",
                    "no episode twice",
                    "set a seed past the other's last one",
                )
        _require(self.group >= 1, "data.group", self.group, "≥ 1", "the published groups have 16 frames")

    @property
    def datasets(self) -> tuple[DatasetConfig, ...]:
        """All that are trained together, in the order in which the store numbers their episodes."""
        return (self.dataset, *self.mixture)
