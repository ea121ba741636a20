"""Arguments and options that several verbs share, and the decorator that registers a verb."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from muvla.cli.output import output_mode
from muvla.cli.usage import Verb, Verbs
from muvla.errors import MuvlaError, unknown_name

STUDY, POLICY, DATA, CHECKPOINTS, SYSTEM = "Study", "Policy", "Data", "Checkpoints", "System"  # help panels of verbs
COMPUTING, RELEASE, TRAINING, OUTPUT, FOLDERS = "Computing", "Released checkpoints", "Training", "Output", "Folders"
SERVER = "Policy servers"


def choice(option: str, names: Sequence[str]) -> dict[str, Callable]:
    """Callback and completion of an option whose value is one of `names`."""

    def check(value: Any) -> Any:
        for name in value if isinstance(value, list | tuple) else [value]:
            if name is not None and name not in names:
                raise unknown_name(option, name, names)
        return value

    return {"callback": check, "autocompletion": lambda incomplete: [n for n in names if n.startswith(incomplete)]}


def at_least_one(option: str) -> Callable:
    """Callback of an option that counts something."""

    def check(value: int | None) -> int | None:
        if value is not None and value < 1:
            raise MuvlaError(option, got=value, expected="at least 1", remedy="give a positive number, or leave it out")
        return value

    return check


def named_folder(option: str) -> Callable:
    """Callback of an option that names a folder, whose name goes into files of text."""

    def check(value: Path) -> Path:
        name = os.fsencode(value.absolute())
        try:
            name.decode()
        except UnicodeDecodeError:
            raise MuvlaError(
                option,
                got=f"the folder {name!r}",
                expected="a path whose names are UTF-8",
                remedy="rename the folder, or choose another",
            ) from None
        return value

    return check


def _complete_study(incomplete: str) -> list[str]:
    from muvla.cli.studies import study_names

    return [name for name in study_names() if name.startswith(incomplete)]


def _complete_run(incomplete: str) -> list[str]:
    names = (path.parent.name for path in Path("runs").glob("*/run.json"))
    return sorted(name for name in names if name.startswith(incomplete))  # a name may hold characters of a pattern


def _complete_protocol(incomplete: str) -> list[str]:
    from muvla.evaluation.catalog import declared_protocols, declared_sets

    return [name for name in (*declared_protocols(), *declared_sets()) if name.startswith(incomplete)]


# --- arguments --------------------------------------------------------------------------------------------------------

StudyName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="Name of a folder in experiments/, or a study's folder or file.",
        autocompletion=_complete_study,
    ),
]
StudyNames = Annotated[
    list[str],
    typer.Argument(
        metavar="STUDY...",
        help="Names of folders in experiments/, or studies' folders or files.",
        autocompletion=_complete_study,
    ),
]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="STUDY/VARIANT/SEED, a train id or its beginning, a released checkpoint (its folder or "
        "owner/name@revision of the Hugging Face hub), or for some verbs the address of a policy server.",
        autocompletion=_complete_run,
    ),
]
DatasetName = Annotated[str, typer.Argument(metavar="DATASET", help="Name of the dataset's folder in --data.")]

# --- a study ----------------------------------------------------------------------------------------------------------

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the base, for all variants; repeatable."),
]
Seeds = Annotated[str | None, typer.Option(metavar="LIST", help="Training seeds, such as 0,1.", show_default="all")]
Variants = Annotated[
    list[str] | None, typer.Option("--variant", metavar="NAME", help="A variant; repeatable.", show_default="all")
]

# --- a policy ---------------------------------------------------------------------------------------------------------

PRECISIONS = ("float32", "bfloat16", "nf4")
Statistics = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Dataset of the release whose statistics scale the actions.",
        show_default="the only one",
        rich_help_panel=RELEASE,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Architecture, if config.json does not state it: tiny, small or openvla-7b.",
        show_default="as in config.json",
        rich_help_panel=RELEASE,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"Number format of the weights: {', '.join(PRECISIONS)}.",
        rich_help_panel=RELEASE,
        **choice("--precision", PRECISIONS),
    ),
]
WithoutMemory = Annotated[
    bool,
    typer.Option("--without-memory", metavar="", help="Load a μVLA release as OpenVLA-OFT.", rich_help_panel=RELEASE),
]
ServerName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name of a policy server that says nothing of itself.", rich_help_panel=SERVER),
]
AccessKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY", envvar="MUVLA_ACCESS_KEY", help="Access key of a policy server.", rich_help_panel=SERVER
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        metavar="S", help="Seconds that a policy server may take to answer.", min=0.01, rich_help_panel=SERVER
    ),
]
ServerCameras = Annotated[
    list[str] | None,
    typer.Option(
        "--camera",
        metavar="NAME",
        help="Camera names that a policy server expects; repeatable.",
        show_default="image, wrist_image",
        rich_help_panel=SERVER,
    ),
]
Protocols = Annotated[
    list[str],
    typer.Option(
        "--protocol",
        metavar="NAME",
        help="A protocol such as recall-position3-rh@1, or a set such as mikasa5-rh@1; repeatable.",
        autocompletion=_complete_protocol,
    ),
]
Protocol = Annotated[
    str,
    typer.Option(
        "--protocol",
        metavar="NAME",
        help="A protocol such as recall-position3-rh@1.",
        autocompletion=_complete_protocol,
    ),
]
RetryErrors = Annotated[
    bool, typer.Option("--retry-errors", metavar="", help="Run episodes again whose last attempt ended in an error.")
]

# --- computing --------------------------------------------------------------------------------------------------------

Device = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="auto, cpu or cuda; auto takes a GPU if there is one.", rich_help_panel=COMPUTING
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        metavar="N", help="CPU threads per process.", rich_help_panel=COMPUTING, callback=at_least_one("--threads")
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        metavar="",
        help="Compile the step with torch.compile: slower start, results differ by rounding.",
        rich_help_panel=COMPUTING,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Environments side by side, at most the protocol's slots.",
        show_default="all slots; one per core for simulators",
        rich_help_panel=COMPUTING,
        callback=at_least_one("--workers"),
    ),
]

# --- training ---------------------------------------------------------------------------------------------------------

GradientCheckpointing = Annotated[
    bool,
    typer.Option(
        "--gradient-checkpointing",
        metavar="",
        help="Recompute activations in the backward pass: less memory, more time, the same numbers.",
        rich_help_panel=TRAINING,
    ),
]
OnePass = Annotated[
    bool,
    typer.Option(
        "--one-pass",
        metavar="",
        help="One pass of the language model per window, for memories that need no pass per tick; other rounding.",
        rich_help_panel=TRAINING,
    ),
]
CacheVision = Annotated[
    bool,
    typer.Option(
        "--cache-vision",
        metavar="",
        help="Store the features of frozen vision towers on disk, once per image.",
        rich_help_panel=TRAINING,
    ),
]
NoDiagnostics = Annotated[
    bool,
    typer.Option(
        "--no-diagnostics",
        metavar="",
        help="Leave losses by phase, gradient reach and write ratios out of the training log.",
        rich_help_panel=TRAINING,
    ),
]
KeepCheckpoints = Annotated[
    int, typer.Option(metavar="N", help="Checkpoints to keep of each cell, the newest first.", rich_help_panel=TRAINING)
]

# --- output and folders -----------------------------------------------------------------------------------------------

Json = Annotated[
    bool,
    typer.Option(
        "--json", metavar="", help="Print one JSON object on stdout; progress goes to stderr.", rich_help_panel=OUTPUT
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", metavar="", help="Print results and errors alone.", rich_help_panel=OUTPUT)
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", metavar="", help="Also print paths, device and code version.", rich_help_panel=OUTPUT
    ),
]
Runs = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER", help="Folder of all runs.", rich_help_panel=FOLDERS, callback=named_folder("--runs")
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER", help="Folder of all datasets.", rich_help_panel=FOLDERS, callback=named_folder("--data")
    ),
]
RUNS, DATA_FOLDER = Path("runs"), Path("data")


# --- registration -----------------------------------------------------------------------------------------------------


def group(help: str) -> typer.Typer:
    """A verb that has verbs."""
    return typer.Typer(cls=Verbs, help=help, no_args_is_help=True)


def verb(app: typer.Typer, panel: str, example: str, name: str | None = None) -> Callable[[Callable], Callable]:
    """Register a function as a verb.

    The function's docstring is the help. Every verb gets `--quiet` and `--verbose`. A parameter `json` decides how
    results are printed.

    Args:
        app: the group of verbs.
        panel: heading under which `muvla --help` lists the verb.
        example: a command line that works; the help ends with it.
        name: name of the verb, if the function has another name.
    """

    def register(function: Callable) -> Callable:
        signature = inspect.signature(function, eval_str=True)

        @functools.wraps(function)
        def run(*, quiet: bool, verbose: bool, **arguments: Any) -> Any:
            with output_mode(arguments.get("json", False), quiet, verbose):
                return function(**arguments)

        common = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
            for option, annotation in (("quiet", Quiet), ("verbose", Verbose))
        ]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()]
        run.__signature__ = signature.replace(parameters=[*parameters, *common])
        run.__annotations__ = {p.name: p.annotation for p in run.__signature__.parameters.values()}
        del run.__wrapped__
        app.command(name or function.__name__, cls=Verb, rich_help_panel=panel, epilog=f"Example: {example}")(run)
        return function

    return register
