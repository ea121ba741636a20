"""The verbs of the command line about datasets: data import, show, audit and write."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

OF_DATASET = "its folder's name under --data"


def add_data_verbs(verb: Callable[[str, Callable, str], argparse.ArgumentParser]) -> None:
    """`verb` makes the parser of a verb of a name, function and help."""
    importing = verb("import", _import, "published demonstrations, as a dataset: RLDS, LeRobot v3, MIKASA, ManiSkill")
    importing.add_argument("path", type=Path, help="a folder, of RLDS that of one version (NAME/1.0.0), or an .h5 file")
    importing.add_argument("--format", choices=("rlds", "lerobot", "mikasa", "maniskill"), help="default: as it looks")
    importing.add_argument("--schema", help="which feature is what, of RLDS and LeRobot: mikasa, libero, muvla")
    importing.add_argument(
        "--camera", action="append", metavar="FEATURE", help="in place of the schema's; several times"
    )
    importing.add_argument("--proprio", metavar="FEATURE", help="in place of the schema's")
    importing.add_argument("--action", metavar="FEATURE", help="in place of the schema's")
    importing.add_argument("--instruction", metavar="TEXT", help="of ManiSkill's files, which have none")
    importing.add_argument("--task", required=True, help="what they demonstrate, for instance RememberColor5-VLA-v0")
    importing.add_argument("--name", help="of the dataset here (default: the folder's, without its version)")
    importing.add_argument("--image-size", type=int, metavar="PIXELS", help="of stored frames (default: as they are)")
    importing.add_argument("--derive", choices=("motion",), help="a rule for what was executed, where they do not tell")
    importing.add_argument("--checked-on", metavar="DATASET", help="collected here, to measure the rule's accuracy on")

    show = verb("show", _show, "what a dataset holds, and a contact sheet of it")
    show.add_argument("dataset", help=OF_DATASET)

    auditing = verb("audit", _audit, "what the labels of the no-op phases tell of the decision")
    auditing.add_argument("dataset", help=OF_DATASET)
    auditing.add_argument("--chunk", type=int, action="append", metavar="H", help="chunk lengths (default: 1)")

    writing = verb("write", _write, "a dataset in a format of others")
    writing.add_argument("dataset", help=OF_DATASET)
    writing.add_argument("directory", type=Path, help="a new folder")
    writing.add_argument("--format", required=True, choices=("rlds", "lerobot"), help="RLDS, or LeRobotDataset v3")


def _import(arguments) -> None:
    from muvla.data.derived_phases import measure_accuracy, require_rule
    from muvla.data.importer import import_config, import_dataset
    from muvla.data.readers.formats import choose_schema, open_source
    from muvla.data.store import EpisodeStore
    from muvla.envs.registry import task_info
    from muvla.errors import MuvlaError

    require_rule(arguments.derive, arguments.checked_on)
    source = open_source(arguments.path, arguments.format, arguments.instruction)
    wanted = choose_schema(source, arguments.schema, arguments.camera, arguments.proprio, arguments.action)
    spec = import_config(source, arguments.task, arguments.name, arguments.image_size)
    try:
        instruction = task_info(arguments.task).instruction
    except MuvlaError as error:  # others' tasks can be imported and looked at, but a study must know its task
        instruction = None
        print(f"no study can use it yet: {error}", file=sys.stderr)
    rule = None
    if arguments.derive:
        rule = measure_accuracy(EpisodeStore(arguments.data / arguments.checked_on))
        print(rule.line())
    with _bar(len(source)) as (bar, progress):
        store = import_dataset(source, wanted, spec, arguments.data, progress, bar.write, rule)
    print(f"{store.path}: {len(store)} episodes, {store.frames} frames, content {store.sha256[:12]}")
    if instruction not in (None, *store.instructions):  # a policy is evaluated with a prompt that it has not seen
        print(f"none of its instructions is that of {spec.task.name} here, {instruction!r}", file=sys.stderr)
    size = f", image_size={spec.image_size}" * (spec.image_size is not None)
    told = f"episodes={spec.episodes}{size}, source={spec.source!r}"
    labels = "" if store.knows_executed else ", labels='recorded'"
    print(f"In a study: DataConfig(DatasetConfig(TaskConfig({spec.task.name!r}), {told}){labels})")


def _bar(total: int):
    """A progress bar of episodes, and the function that moves it."""
    from contextlib import contextmanager

    from tqdm import tqdm

    @contextmanager
    def opened():
        with tqdm(total=total, unit="episode", disable=not sys.stderr.isatty(), dynamic_ncols=True) as bar:

            def progress(done: int, total: int) -> None:
                bar.n = done
                bar.refresh()

            yield bar, progress

    return opened()


def _show(arguments) -> None:
    from muvla.data.contact_sheet import summarize, write_contact_sheet
    from muvla.data.store import EpisodeStore

    store = EpisodeStore(arguments.data / arguments.dataset)
    for line in summarize(store):
        print(line)
    print(f"pictures: {write_contact_sheet(store)}")


def _audit(arguments) -> None:
    from muvla.data.label_audit import audit
    from muvla.data.store import EpisodeStore
    from muvla.errors import MuvlaError

    store = EpisodeStore(arguments.data / arguments.dataset)
    for chunk in arguments.chunk or [1]:
        if chunk < 1:
            raise MuvlaError("--chunk", got=chunk, expected="H ≥ 1", remedy="correct it")
        for labels in ("recorded", "executed"):
            for reading in audit(store, labels, chunk):
                print(reading.line())


def _write(arguments) -> None:
    from muvla.data.store import EpisodeStore
    from muvla.data.writers import import_options, write_dataset

    store = EpisodeStore(arguments.data / arguments.dataset)
    with _bar(len(store)) as (_, progress):
        folder = write_dataset(store, arguments.directory, arguments.format, progress)
    print(f"{folder}: {len(store)} episodes, {store.frames} frames")
    options = import_options(store, arguments.format)
    print(f"Back again: muvla data import {folder} {options} --task {store.spec.task.name} --name NAME")
