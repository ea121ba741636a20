"""Checks of a study's imported datasets, which are known once they are opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from muvla.data.conventions import require_task_conventions
from muvla.data.store import EpisodeStore, open_store
from muvla.envs.registry import task_info
from muvla.errors import MuvlaError
from sweeps.study import Study


def require_imports(study: Study, root: Path) -> None:
    """Raises MuvlaError for an import that does not exist, whose conventions of actions are not its task's, or that
    lacks what the labels of a variant need.

    Args:
        study: the study.
        root: folder of all datasets.
    """
    data = [(item.variant, item.cell.data) for item in study.of_one_seed]
    imports = {(v, d.labels, spec) for v, d in data for spec in d.collected if spec.source is not None}
    for variant, labels, spec in sorted(imports, key=str):
        store = open_store(root, spec)
        require_task_conventions(store)
        if labels != "recorded":
            store.require_executed(f"variant {variant!r}, data.labels {labels}")


def require_same_frames(study: Study, stores: Mapping[str, EpisodeStore]) -> None:
    """Raises MuvlaError if imported frames do not have the protocols' size.

    `Study.check` checks collected frames by their configuration.
    """
    first = {id(store): (variant, store) for variant, store in reversed(stores.items())}
    for variant, part in ((variant, part) for variant, store in first.values() for part in store.parts):
        shape = part["images"].shape[2:4]
        for protocol in study.every_protocol:
            camera = protocol.image_size or task_info(protocol.task.name).camera
            if part.spec.source is not None and shape != (camera, camera):
                raise MuvlaError(
                    f"study {study.name}, variant {variant!r}: data.dataset",
                    got=f"imported frames of {shape[0]}×{shape[1]}",
                    expected=f"{camera}×{camera}, the size of protocol {protocol.id}",
                    remedy="import the frames at that size (--image-size), or choose another protocol",
                )
