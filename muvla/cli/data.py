"""`muvla data`: import datasets, look at them, audit their labels, write them in other formats."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from muvla.cli import options as o
from muvla.errors import MuvlaError, unknown_name

IMPORTED = ("rlds", "lerobot", "mikasa", "maniskill", "robomimic", "robomme")
WRITTEN = ("rlds", "lerobot")
# Options of `muvla data import`.
FEATURES, EPISODES = "Features", "Episodes"  # panels
Source = Annotated[
    Path,
    typer.Argument(metavar="PATH", help="A folder, or an HDF5 file. For RLDS the folder of one version (NAME/1.0.0)."),
]
Task = Annotated[str, typer.Option(metavar="NAME", help="Task that the episodes demonstrate; see `muvla ls tasks`.")]
SourceFormat = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help=f"{', '.join(IMPORTED)}.", show_default="detected", **o.choice("--format", IMPORTED)
    ),
]
Schema = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Names of the features in RLDS and LeRobot: mikasa, libero or muvla; robomme-eef for RoboMME's hand.",
        rich_help_panel=FEATURES,
    ),
]
Parts = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FEATURE",
        help="Replaces the schema's; repeatable: the parts are joined in this order.",
        show_default="as in the schema",
        rich_help_panel=FEATURES,
    ),
]
Cameras = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FEATURE",
        help="Replaces the schema's; repeatable. No other camera is needed.",
        show_default="as in the schema",
        rich_help_panel=FEATURES,
    ),
]
Instruction = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="Instruction of all episodes, in place of the files'.",
        show_default="as in the files",
        rich_help_panel=FEATURES,
    ),
]
InstructionFeature = Annotated[
    str | None,
    typer.Option(
        metavar="FEATURE",
        help="Text, column or attribute that holds the instruction.",
        show_default="as in the schema",
        rich_help_panel=FEATURES,
    ),
]
Stated = Annotated[
    list[str] | None,
    typer.Option(
        "--convention",
        metavar="FACT=VALUE",
        help="States how the actions are meant, in place of the files: environment, control_mode, action, frame, "
        "gripper, units or fps; repeatable.",
        rich_help_panel=FEATURES,
    ),
]
Numbers = Annotated[
    str | None,
    typer.Option(
        metavar="LIST", help="Numbers and ranges, such as 0:50,60.", show_default="all", rich_help_panel=EPISODES
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="The first N of the chosen episodes.",
        show_default="all",
        rich_help_panel=EPISODES,
        callback=o.at_least_one("--limit"),
    ),
]
OnlyInstruction = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="Episodes with this instruction; repeatable.", rich_help_panel=EPISODES),
]
SkipUnlabelled = Annotated[
    bool,
    typer.Option(
        "--skip-unlabelled", metavar="", help="Leave out episodes without an instruction.", rich_help_panel=EPISODES
    ),
]
Name = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name of the dataset here.", show_default="the folder's, without its version"),
]
ImageSize = Annotated[
    int | None, typer.Option(metavar="PIXELS", help="Side of stored frames.", show_default="unchanged")
]
Rule = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="Rule that derives executed actions where the data do not state them: motion.",
        **o.choice("--derive", ("motion",)),
    ),
]
CheckedOn = Annotated[
    str | None,
    typer.Option(metavar="DATASET", help="A dataset collected here, on which the rule's accuracy is measured."),
]


def add(app: typer.Typer) -> None:
    group = o.group("Import, show, audit and write datasets.")
    example = "muvla data import bridge/1.0.0 --schema mikasa --task RememberColor5-VLA-v0"
    o.verb(group, o.DATA, example, name="import")(import_demonstrations)
    o.verb(group, o.DATA, "muvla data show RecallPosition3-v0-b992cbaf7543")(show)
    o.verb(group, o.DATA, "muvla data audit RecallPosition3-v0-b992cbaf7543 --chunk 8")(audit)
    o.verb(group, o.DATA, "muvla data write RecallPosition3-v0-b992cbaf7543 exported --format lerobot")(write)
    app.add_typer(group, name="data", rich_help_panel=o.DATA)


def import_demonstrations(
    path: Source,
    task: Task,
    format: SourceFormat = None,
    schema: Schema = None,
    camera: Cameras = None,
    proprio: Parts = None,
    action: Parts = None,
    instruction: Instruction = None,
    instruction_feature: InstructionFeature = None,
    convention: Stated = None,
    episodes: Numbers = None,
    limit: Limit = None,
    only_instruction: OnlyInstruction = None,
    skip_unlabelled: SkipUnlabelled = False,
    name: Name = None,
    image_size: ImageSize = None,
    derive: Rule = None,
    checked_on: CheckedOn = None,
    json: o.Json = False,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Import published demonstrations: RLDS, LeRobot, MIKASA, ManiSkill, LIBERO, robomimic, RoboMME."""
    from muvla.data.derived_phases import measure_accuracy, require_rule
    from muvla.data.importer import import_config, import_dataset
    from muvla.data.readers.formats import choose_schema, open_source
    from muvla.data.readers.selection import select
    from muvla.data.store import EpisodeStore

    require_rule(derive, checked_on)
    stated = _parse_conventions(convention or [])
    source = open_source(path, format)
    features = choose_schema(
        source, schema, camera or (), proprio or (), action or (), instruction_feature, instruction
    )
    features.check(source)
    selection = select(source, features, episodes, limit, only_instruction or (), skip_unlabelled)
    spec = import_config(source, task, name, image_size, len(selection.numbers))
    known_instruction = _instruction_of(task)
    rule = None
    if derive:
        rule = measure_accuracy(EpisodeStore(data / checked_on))
        print(rule.line())
    with _bar(len(selection.numbers)) as (bar, progress):
        store = import_dataset(source, features, spec, data, progress, bar.write, rule, stated, selection)
    _report_import(store, spec, known_instruction, selection)


def _parse_conventions(words: list[str]):
    """The conventions that the user states. Raises MuvlaError for an unknown fact, and for a fact that is given
    twice."""
    from muvla.envs.conventions import FACTS, Conventions

    stated: dict[str, str | float] = {}
    for word in words:
        fact, equals, value = word.partition("=")
        if fact not in FACTS:
            raise unknown_name("--convention", fact, FACTS)
        if not equals or fact in stated:
            raise MuvlaError(
                "--convention",
                got=word,
                expected=f"{fact}=VALUE, once",
                remedy=f"write --convention {fact}=VALUE once",
            )
        stated[fact] = _number(value) if fact == "fps" else value
    return Conventions(**stated)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise MuvlaError(
            "--convention", got=f"fps={text}", expected="a number of steps per second", remedy="write fps=20"
        ) from None


def _instruction_of(task: str) -> str | None:
    """The instruction of a task. A dataset of an unknown task can be imported, but no study can use it."""
    from muvla.envs.registry import task_info

    try:
        return task_info(task).instruction
    except MuvlaError as error:
        print(f"no study can use it yet: {error}", file=sys.stderr)
        return None


def _report_import(store, spec, instruction: str | None, selection) -> None:
    from muvla.cli.output import result_line, show_json
    from muvla.data.conventions import require_task_conventions

    result_line(f"{store.path}: {len(store)} episodes, {store.frames} frames, content {store.sha256[:12]}")
    result_line(f"left out: {selection.summary or 'no episode'}")
    if instruction is not None:  # a task that exists
        try:
            require_task_conventions(store)
        except MuvlaError as error:
            print(f"no study can use it yet: {error}", file=sys.stderr)
    if instruction not in (None, *store.instructions):  # a policy is evaluated with a prompt that it has not seen
        print(f"no instruction in these data is the instruction of {spec.task.name}, {instruction!r}", file=sys.stderr)
    size = f", image_size={spec.image_size}" if spec.image_size is not None else ""
    arguments = f"episodes={spec.episodes}{size}, source={spec.source!r}"
    labels = "" if store.knows_executed else ", labels='recorded'"
    config = f"DataConfig(DatasetConfig(TaskConfig({spec.task.name!r}), {arguments}){labels})"
    result_line(f"In a study: {config}")
    facts = {"path": str(store.path), "episodes": len(store), "frames": store.frames, "content": store.sha256}
    facts |= {"left_out": selection.left_out, "conventions": store.conventions.shown}
    show_json({**facts, "config": config})


@contextlib.contextmanager
def _bar(total: int) -> Iterator[tuple]:
    """A progress bar of episodes, and the function that moves it."""
    from tqdm import tqdm

    with tqdm(total=total, unit="episode", disable=not sys.stderr.isatty(), dynamic_ncols=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.n = done
            bar.refresh()

        yield bar, progress


def _store(data: Path, name: str):
    """The dataset of a name. Raises MuvlaError, with the nearest names, if there is none."""
    from muvla.data.store import EpisodeStore, is_sealed

    if not is_sealed(data / name):
        names = [path.name for path in data.glob("*") if is_sealed(path)]
        if names:
            raise unknown_name("DATASET", name, names, f"muvla ls datasets --data {data}")
        raise MuvlaError(
            "DATASET",
            got=name,
            expected=f"a dataset under {data}, which has none",
            remedy="run `muvla collect STUDY` or `muvla data import`",
        )
    return EpisodeStore(data / name)


def show(dataset: o.DatasetName, json: o.Json = False, data: o.Data = o.DATA_FOLDER) -> None:
    """Show the content of a dataset, and draw a contact sheet."""
    from muvla.cli.output import show as show_result
    from muvla.data.contact_sheet import summarize, write_contact_sheet

    store = _store(data, dataset)
    lines, picture = list(summarize(store)), write_contact_sheet(store)
    facts = {
        "name": dataset,
        "path": str(store.path),
        "task": store.spec.task.name,
        "episodes": len(store),
        "frames": store.frames,
        "content": store.sha256,
        "instructions": list(store.instructions),
        "knows_executed": store.knows_executed,
        "conventions": store.conventions.shown,
        "contact_sheet": str(picture),
        "summary": lines,
    }
    show_result(facts, "\n".join([*lines, f"pictures: {picture}"]))


def audit(
    dataset: o.DatasetName,
    chunk: Annotated[
        list[int] | None, typer.Option(metavar="H", help="Chunk length; repeatable.", show_default="1")
    ] = None,
    json: o.Json = False,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Measure what labels, frames and the arm's own past reveal of the decision.

    Labels of no-op phases that reveal it would teach a policy the answer before it must remember it. Frames of the
    delay that reveal it make a memory unnecessary. An arm whose past tells its next action needs no sight for it.
    """
    from dataclasses import asdict

    from muvla.cli.output import result_line, show_json
    from muvla.data.copycat_audit import audit_copycat, summarize_copycat
    from muvla.data.label_audit import audit as audit_labels
    from muvla.data.label_audit import why_no_targets
    from muvla.data.observation_audit import audit_observations

    store, audits = _store(data, dataset), []
    for length in chunk or [1]:
        if length < 1:
            raise MuvlaError("--chunk", got=length, expected="at least 1", remedy="give a positive number")
    if reason := why_no_targets(store):
        result_line(f"labels: not applicable: {reason}")
    for length in [] if reason else chunk or [1]:
        for labels in ("recorded", "executed"):
            for item in audit_labels(store, labels, length):
                result_line(item.line())
                audits.append(asdict(item))
    observations, copycat = audit_observations(store), audit_copycat(store)
    for result in (*observations, *copycat):
        result_line(result.line())
    result_line(summarize_copycat(copycat))
    facts = {"dataset": dataset, "audits": audits, "not_applicable": reason}
    show_json(facts | {"observations": [asdict(r) for r in observations], "copycat": [asdict(r) for r in copycat]})


def write(
    dataset: o.DatasetName,
    directory: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    format: Annotated[
        str, typer.Option(metavar="NAME", help="rlds, or lerobot (LeRobotDataset v3).", **o.choice("--format", WRITTEN))
    ],
    json: o.Json = False,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Write a dataset as RLDS or LeRobotDataset v3."""
    from muvla.cli.output import show as show_result
    from muvla.data.writers import frame_rate, import_options, write_dataset

    store = _store(data, dataset)
    with _bar(len(store)) as (_, progress):
        folder = write_dataset(store, directory, format, progress)
    if format == "lerobot" and store.conventions.fps is None:
        print(f"the dataset states no frame rate: the files say {frame_rate(store)} frames per second", file=sys.stderr)
    options = import_options(store, format)
    command = f"muvla data import {folder} {options} --task {store.spec.task.name} --name NAME"
    show_result(
        {"path": str(folder), "episodes": len(store), "frames": store.frames, "import": command},
        f"{folder}: {len(store)} episodes, {store.frames} frames\nTo import it again: {command}",
    )
