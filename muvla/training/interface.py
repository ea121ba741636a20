"""The inputs and outputs that a policy needs for a dataset: cameras, proprio, actions and prompt length."""

from __future__ import annotations

from muvla.config import Cell
from muvla.data.cameras import get_camera_numbers
from muvla.data.store import EpisodeStore
from muvla.envs.target_words import add_target
from muvla.errors import MuvlaError
from muvla.models.policy import Interface
from muvla.models.prompts import Prompts


def get_interface(store: EpisodeStore, prompts: Prompts, cell: Cell) -> Interface:
    """Reads the interface off the dataset.

    Raises:
        MuvlaError: `data.cameras` does not choose a part of the robot's cameras; or the longest prompt of the data
            exceeds `model.prompt_tokens`; or the instruction shall name targets that the data do not record.
    """
    data, cameras = cell.data, get_camera_numbers(store, cell.data)
    with_target = data.instruction == "with_target"
    texts = {add_target(line) for line in store.index} if with_target else store.instructions
    longest = {len(prompts.encode(text)) for text in texts}
    declared = cell.model.prompt_tokens
    if declared is not None and declared < max(longest):
        raise MuvlaError(
            "model.prompt_tokens",
            got=declared,
            expected=f"at least {max(longest)} tokens, the data's longest prompt",
            remedy="raise model.prompt_tokens, or set it to null",
        )
    return Interface(
        cameras=len(cameras) + data.first_image,
        first_image=data.first_image,
        robot_cameras=store["images"].shape[1] if data.cameras else None,
        camera_numbers=cameras if isinstance(data.cameras, tuple) else None,
        proprio_dim=store["proprio"].shape[1],
        action_dim=store["recorded_action"].shape[1],
        text=declared or max(longest),
        text_padded=declared is not None or len(longest) > 1,
        target_in_text=with_target,
    )
