"""The verbs of the command line about datasets: import, show and audit."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def add_data_verbs(verb: Callable[[str, Callable, str], argparse.ArgumentParser]) -> None:
    """`verb` makes the parser of a verb of a name, function and help."""
    importing = verb("import", _import, "published demonstrations (RLDS by TensorFlow Datasets), as a dataset")
    importing.add_argument("directory", type=Path, help="the folder of one version, for instance NAME/1.0.0")
    importing.add_argument("--schema", required=True, help="which feature is what: mikasa, libero")
    importing.add_argument("--task", required=True, help="what they demonstrate, for instance RememberColor5-VLA-v0")
    importing.add_argument("--name", help="of the dataset here (default: the folder's, without its version)")
    importing.add_argument("--image-size", type=int, metavar="PIXELS", help="of stored frames (default: as they are)")

    show = verb("show", _show, "what a dataset holds, and a contact sheet of it")
    show.add_argument("dataset", help="its folder's name under --data")

    auditing = verb("audit", _audit, "what the labels of the no-op phases tell of the decision")
    auditing.add_argument("dataset", help="its folder's name under --data")
    auditing.add_argument("--chunk", type=int, action="append", metavar="H", help="chunk lengths (default: 1)")


def _import(arguments) -> None:
    from tqdm import tqdm

    from muvla.data.importing import import_config, import_dataset
    from muvla.data.readers.rlds import RldsDirectory
    from muvla.data.readers.schema import schema
    from muvla.envs.registry import task_info
    from muvla.errors import MuvlaError

    wanted, directory = schema(arguments.schema), RldsDirectory(arguments.directory)
    spec = import_config(directory, arguments.task, arguments.name, arguments.image_size)
    try:
        instruction = task_info(arguments.task).instruction
    except MuvlaError as error:  # others' tasks can be imported and looked at, but a study must know its task
        instruction = None
        print(f"no study can use it yet: {error}", file=sys.stderr)
    with tqdm(total=len(directory), unit="episode", disable=not sys.stderr.isatty(), dynamic_ncols=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.n = done
            bar.refresh()

        store = import_dataset(directory, wanted, spec, arguments.data, progress, tqdm.write)
    print(f"{store.path}: {len(store)} episodes, {store.frames} frames, content {store.sha256[:12]}")
    if instruction not in (None, *store.instructions):  # a policy is evaluated with a prompt that it has not seen
        print(f"none of its instructions is that of {spec.task.name} here, {instruction!r}", file=sys.stderr)
    size = f", image_size={spec.image_size}" * (spec.image_size is not None)
    told = f"episodes={spec.episodes}{size}, source={spec.source!r}"
    print(f"In a study: DataConfig(DatasetConfig(TaskConfig({spec.task.name!r}), {told}), labels='recorded')")


def _show(arguments) -> None:
    from muvla.data.episodes import EpisodeStore
    from muvla.data.show import contact_sheet, summary

    store = EpisodeStore(arguments.data / arguments.dataset)
    for line in summary(store):
        print(line)
    print(f"pictures: {contact_sheet(store)}")


def _audit(arguments) -> None:
    from muvla.data.audit import audit
    from muvla.data.episodes import EpisodeStore
    from muvla.errors import MuvlaError

    store = EpisodeStore(arguments.data / arguments.dataset)
    for chunk in arguments.chunk or [1]:
        if chunk < 1:
            raise MuvlaError("--chunk", got=chunk, expected="H ≥ 1", remedy="correct it")
        for labels in ("recorded", "executed"):
            for reading in audit(store, labels, chunk):
                print(reading.line())
