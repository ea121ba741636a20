"""The command line `muvla`. Every verb is a module of this package, a few lines over the library.

Bad input is one error line and exit status 2, never a traceback. No module of this package imports torch before a verb
runs, so that `muvla --help` is fast and `muvla doctor` runs where torch is missing.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import muvla
from muvla.cli import (
    assets,
    baselines,
    collect,
    convert,
    data,
    diff,
    doctor,
    evaluate,
    export,
    import_results,
    init,
    inspect,
    intervene,
    ls,
    pool,
    probe,
    replay,
    report,
    serve,
    status,
    sweep,
    train,
    tune,
    verify,
)
from muvla.cli.output import EXIT_BAD_INPUT, EXIT_FAILED_CELLS, EXIT_INTERRUPTED
from muvla.cli.usage import UsageError, Verbs, explain
from muvla.errors import Interrupted, MuvlaError

__all__ = ["EXIT_BAD_INPUT", "EXIT_FAILED_CELLS", "EXIT_INTERRUPTED", "app", "main"]

# The order of the verbs in `muvla --help`.
STUDY_VERBS = (init, sweep, tune, status, verify, report, pool, diff, collect, train, baselines)
VERBS = (
    *STUDY_VERBS,
    evaluate,
    intervene,
    probe,
    replay,
    serve,
    import_results,
    data,
    assets,
    inspect,
    export,
    convert,
    ls,
    doctor,
)


class Muvla(Verbs):
    """All verbs, in the order of VERBS."""

    def list_commands(self, ctx: typer.Context) -> list[str]:
        return [module.__name__.rpartition(".")[2].replace("_", "-") for module in VERBS]


app = typer.Typer(
    cls=Muvla,
    help="Controlled ablations of recurrent memory in vision-language-action policies.",
    epilog="Start with: muvla init my_study, then muvla sweep my_study. Exit status: 0 done, 1 something is missing "
    "or does not hold, 2 bad input, 3 cells failed, 130 stopped.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in VERBS:
    module.add(app)

STOPPED = "stopped; everything written so far is kept, and the same command continues"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"muvla {muvla.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the words after `muvla`; None takes those of this process.

    Returns:
        The exit status.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # a table that grows must grow in a pipe too
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # no banners
    try:
        status = typer.main.get_command(app).main(args=argv, prog_name="muvla", standalone_mode=False)
        if status == EXIT_INTERRUPTED:  # typer turns Ctrl-C into this exit status
            print(STOPPED, file=sys.stderr)
        return status if isinstance(status, int) else 0
    except MuvlaError as error:
        if not error.reported_elsewhere:
            print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except (KeyboardInterrupt, Interrupted, typer.Abort) as stopped:
        if not getattr(stopped, "reported_elsewhere", False):
            print(STOPPED, file=sys.stderr)
        return EXIT_INTERRUPTED
    except UsageError as error:  # an unknown option, a missing argument
        words = sys.argv[1:] if argv is None else argv
        print(f"error: {explain(error, words)}", file=sys.stderr)
        return EXIT_BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
