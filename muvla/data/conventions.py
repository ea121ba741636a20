"""Conventions of a dataset's actions: gathered at the import, and held against the task's before a training."""

from __future__ import annotations

from muvla.data.readers.schema import Schema
from muvla.data.readers.source import Source, read_note
from muvla.data.store import EpisodeStore
from muvla.envs.conventions import NOTHING_STATED, Conventions
from muvla.envs.registry import task_info
from muvla.errors import MuvlaError

OPPOSITE = {"positive_opens": "positive_closes", "positive_closes": "positive_opens"}


def get_conventions(source: Source, schema: Schema, stated: Conventions = NOTHING_STATED) -> Conventions:
    """Returns the conventions of the imported actions.

    The user's statement comes first, then the note of an export, then the files, then the schema.

    Args:
        source: the opened files.
        schema: the features to read; it may turn the gripper.
        stated: the user's statement.
    """
    files = source.conventions
    if schema.turn_gripper and files.gripper is not None:
        files = files.replaced_by(Conventions(gripper=OPPOSITE[files.gripper]))
    result = schema.conventions.replaced_by(files)
    if (note := read_note(source.path)) is not None:
        result = result.replaced_by(note.conventions)
    return result.replaced_by(stated)


def require_task_conventions(store: EpisodeStore) -> None:
    """Raises MuvlaError if a dataset states other actions than the environment of its task takes."""
    for part in store.parts:
        task = part.spec.task.name
        for name, (got, expected) in part.conventions.disagreements(task_info(task).conventions).items():
            raise MuvlaError(
                f"{part.name}: {name}",
                got=got,
                expected=f"{expected}, as {task} takes its actions",
                remedy=_remedy(part, name, expected),
            )


def _remedy(store: EpisodeStore, name: str, expected: object) -> str:
    if store.spec.source is None:
        return "collect the dataset again with `muvla collect`"
    ways = {
        "environment": "import the dataset with the --task that it shows",
        "control_mode": f"record the actions as {expected}, for ManiSkill with `python -m "
        f"mani_skill.trajectory.replay_trajectory --traj-path FILE.h5 --obs-mode rgb --save-traj -c {expected}`",
    }
    way = ways.get(name, f"convert the actions to {name} {expected} before the import")
    return f"{way}; if the files state a wrong {name}, repeat the import with --convention {name}={expected}"
