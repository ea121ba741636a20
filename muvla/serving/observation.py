"""An observation of a client, held against what the policy needs.

Legend: V cameras, h×w image, Q proprio dim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from muvla.errors import MuvlaError
from muvla.serving.refusal import Refused

LARGEST_SIDE = 4096  # pixels
LONGEST_TEXT = 10_000  # characters


@dataclass(frozen=True)
class Observed:
    """One frame of one session."""

    images: np.ndarray  # (V, h, w, 3) uint8, the robot's cameras in the training's order
    proprio: np.ndarray  # (Q,) float32
    instruction: str

    def equals(self, other: Observed) -> bool:
        """True if both are the same frame."""
        same = self.instruction == other.instruction and np.array_equal(self.images, other.images)
        return same and np.array_equal(self.proprio, other.proprio)


@dataclass(frozen=True)
class Needs:
    """The demands of a policy on an observation.

    Attributes:
        cameras: number V of the robot's cameras.
        proprio: Q.
        reads_proprio: False for a policy without proprioception; clients may then leave the state out.
        side: height and width of the images, where the policy takes one size; None for any.
        names: cameras in the training's order; empty takes the images in the order in which they are sent.
        require_prompt: raises MuvlaError for an instruction that does not fit.
    """

    cameras: int
    proprio: int
    reads_proprio: bool
    side: int | None = None
    names: tuple[str, ...] = ()
    require_prompt: Callable[[str], Any] = lambda _: None

    def check(self, images: Mapping[str, Any], proprio: Any, instruction: Any) -> Observed:
        """Return the observation. Raises Refused, which names the field that is missing or wrong."""
        names = self.names or tuple(images)
        missing = [name for name in names if name not in images]
        if missing or len(names) < self.cameras:
            got = f"the cameras {', '.join(map(str, images))}" if images else "no image"
            named = f": {', '.join(self.names)}" if self.names else ""
            raise _refused("images", got, f"{self.cameras} cameras{named}", "send an image of every camera")
        pictures = [self._image(name, images[name]) for name in names[: self.cameras]]
        if len({picture.shape for picture in pictures}) > 1:
            shapes = ", ".join(str(picture.shape) for picture in pictures)
            raise _refused(
                "images", f"shapes {shapes}", "cameras of one size", "resize the frames before you send them"
            )
        return Observed(np.stack(pictures), self._proprio(proprio), self._instruction(instruction))

    def _image(self, name: str, image: Any) -> np.ndarray:
        field = f"images.{name}"
        whole = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 3
        if not whole or not 1 <= min(image.shape[:2]) <= max(image.shape[:2]) <= LARGEST_SIDE:
            remedy = "send RGB frames as uint8 with the colour last"
            raise _refused(field, _shown(image), f"(h, w, 3) uint8, at most {LARGEST_SIDE} pixels a side", remedy)
        if self.side is not None and image.shape[:2] != (self.side, self.side):
            remedy = "resize the frames: this policy was trained on stored frames of this size"
            raise _refused(field, _shown(image), f"({self.side}, {self.side}, 3) uint8", remedy)
        return image

    def _proprio(self, proprio: Any) -> np.ndarray:
        if proprio is None and not self.reads_proprio:
            return np.zeros(self.proprio, dtype=np.float32)
        remedy = "send the robot's state in the training's order"
        try:
            array = np.asarray(proprio)
            numbers = array.astype(np.float32) if array.dtype.kind in "iuf" else None
        except (ValueError, TypeError, OverflowError):
            numbers = None
        if numbers is None or numbers.shape != (self.proprio,):
            raise _refused("state", _shown(proprio), f"({self.proprio},) numbers", remedy)
        if not np.isfinite(numbers).all():
            raise _refused("state", "NaN or infinity", f"({self.proprio},) finite numbers", remedy)
        return numbers

    def _instruction(self, text: Any) -> str:
        if not isinstance(text, str) or len(text) > LONGEST_TEXT:
            got = f"{len(text)} characters" if isinstance(text, str) else _shown(text)
            raise _refused("instruction", got, f"a text of at most {LONGEST_TEXT} characters", "send the task's text")
        try:
            self.require_prompt(text)
        except MuvlaError as error:
            raise _refused("instruction", error.got, error.expected, "shorten the task's text") from None
        return text


def _shown(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} of {value.dtype}"
    return f"a value of type {type(value).__name__}" if value is not None else None


def _refused(field: str, got: Any, expected: str, remedy: str) -> Refused:
    return Refused(field, got=got, expected=expected, remedy=remedy)
