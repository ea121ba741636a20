"""The command line. Every verb is a few lines over the library; bad input is one error line and exit status 2."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from muvla.cli.assets import add_asset_verbs
from muvla.cli.baselines import add_baseline_verb
from muvla.cli.data import add_data_verbs
from muvla.cli.probe import add_probe_verbs

EXIT_BAD_INPUT, EXIT_FAILED_CELLS, EXIT_INTERRUPTED = 2, 3, 130


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # a table that grows must grow in a pipe too
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # no banners
    from muvla.errors import Interrupted, MuvlaError  # nothing heavier: the doctor must run where torch is missing

    try:
        return arguments.verb(arguments) or 0
    except MuvlaError as error:
        if not error.reported_elsewhere:
            print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except (KeyboardInterrupt, Interrupted) as stopped:
        if not getattr(stopped, "already_printed", False):
            print("stopped; what is written is kept, and the same command continues", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="muvla", description="Controlled ablations of recurrent memory in VLA policies."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: Callable, help: str, among=verbs) -> argparse.ArgumentParser:
        sub = among.add_parser(name, help=help, description=help)
        sub.set_defaults(verb=run)
        sub.add_argument("--runs", type=Path, default=Path("runs"), help="run folders (default: runs)")
        sub.add_argument("--data", type=Path, default=Path("data"), help="datasets (default: data)")
        return sub

    def computing(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--device", default="auto", help="auto, cpu or cuda")
        sub.add_argument("--threads", type=int, default=1, help="CPU threads per process (default: 1)")
        sub.add_argument(
            "--compile", action="store_true", help="torch.compile of the step: a slow start, other rounding"
        )

    def evaluating(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--workers",
            type=int,
            help="environments side by side, at most the protocol's slots (default: all; of simulators, one per core)",
        )

    def training(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--gradient-checkpointing", action="store_true", help="the same numbers for less memory and more time"
        )
        sub.add_argument(
            "--cache-vision", action="store_true", help="store what frozen towers make of every image; takes disk"
        )
        sub.add_argument(
            "--no-diagnostics", action="store_true", help="the log without losses by phase, credit and write ratios"
        )
        sub.add_argument(
            "--keep-checkpoints", type=int, default=1, metavar="N", help="keep the newest N of a cell (default: 1)"
        )

    def of_study(sub: argparse.ArgumentParser, several: bool = False) -> None:
        sub.add_argument(
            "study", type=Path, nargs="+" if several else None, help="a study file, or a folder with study.py"
        )
        sub.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE", help="change the base, all variants alike"
        )
        sub.add_argument("--seeds", help="only these training seeds, for instance 0,1")
        sub.add_argument("--variant", action="append", help="only this variant; may be given several times")

    doctor = verb("doctor", _doctor, "check what is installed and what is missing, with the remedy")
    doctor.add_argument("--sim", action="store_true", help="the simulator counts as needed")

    collect = verb("collect", _collect, "demonstrations by the scripted expert")
    of_study(collect)
    collect.add_argument("--jobs", type=int, help="simulator processes (default: one per core)")

    about = "datasets: import others', show, audit the labels, write for others"
    data = verbs.add_parser("data", help=about, description=about)
    add_data_verbs(partial(verb, among=data.add_subparsers(required=True, metavar="VERB")))
    add_asset_verbs(verb)

    train = verb("train", _train, "train one cell of a study")
    of_study(train)
    computing(train)
    training(train)
    train.add_argument(
        "--shard", action="store_true", help="under torchrun: a policy that does not fit on one GPU, in parts on all"
    )

    released = "a released checkpoint: its folder, or owner/name[@revision] of the Hugging Face hub"

    def of_policy(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("run", help=f"train id, or the beginning of it; or {released}")
        sub.add_argument("--statistics", metavar="KEY", help="of a release: the dataset whose scale its actions have")
        sub.add_argument("--size", help="of a release: its anatomy, where its config.json does not tell")
        sub.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "nf4"), help="of a release")
        sub.add_argument("--without-memory", action="store_true", help="of a μVLA release: as OpenVLA-OFT")

    evaluate = verb("evaluate", _evaluate, "evaluate a trained cell or a released checkpoint")
    of_policy(evaluate)
    evaluate.add_argument(
        "--protocol", action="append", required=True, help="recall-position3-rh@1, or a set: mikasa5-rh@1"
    )
    computing(evaluate)
    evaluating(evaluate)

    intervene = verb("intervene", _evaluate, "the same under interventions on the memory")
    of_policy(intervene)
    intervene.add_argument("kind", nargs="+", help="as zero, noise_unit@cue_end.., transplant: docs/interventions.md")
    intervene.add_argument("--protocol", action="append", required=True)
    computing(intervene)
    evaluating(intervene)

    for sub in (evaluate, intervene):
        sub.add_argument("--retry-errors", action="store_true", help="run episodes that ended in an error again")

    add_probe_verbs(verb, of_policy, computing, _prepare, _stop_on_signal)

    watch = verb("watch", _watch, "a video of a recorded episode, run again and held against its row")
    of_policy(watch)
    watch.add_argument("--protocol", required=True, help="for instance recall-position3-rh@1")
    watch.add_argument("--episode", type=int, required=True, metavar="N", help="which of the protocol's, from 0")
    watch.add_argument("--intervention", default="none", metavar="KIND", help="that it was recorded under")
    watch.add_argument("--out", type=Path, metavar="FILE", help="default: in the run's folder, videos/")
    computing(watch)

    inspect = verb("inspect", _inspect, "what a checkpoint holds, and what of it would not load")
    inspect.add_argument("checkpoint", help=f"a run folder; or {released}")
    inspect.add_argument("--size", help="its anatomy, where its config.json does not tell: tiny, small, openvla-7b")

    export = verb("export", _export, "a trained cell as a released directory, for others' code")
    export.add_argument("run", help="train id, or the beginning of it")
    export.add_argument("directory", type=Path, help="a new folder")
    export.add_argument("--statistics", metavar="KEY", required=True, help="the name its statistics get there")

    sweep = verb("sweep", _sweep, "run every cell of a study: train, evaluate, intervene")
    of_study(sweep)
    computing(sweep)
    evaluating(sweep)
    training(sweep)
    sweep.add_argument("--plan", action="store_true", help="print the plan and the train ids, run nothing")
    sweep.add_argument(
        "--between", nargs=2, metavar="VARIANT", help="print what two variants differ in, and what they share"
    )
    sweep.add_argument("--processes", type=int, help="cells at once (default: one per core)")
    sweep.add_argument("--time-limit", type=float, metavar="MINUTES", help="stop cleanly after this long")
    sweep.add_argument("--retry-failed", action="store_true", help="run marked cells and episodes with errors again")
    sweep.add_argument("--no-tracking", action="store_true", help="no MLflow")

    add_baseline_verb(verb, evaluating, _stop_on_signal)

    report = verb("report", _report, "tables, figures and a results block from the episode rows")
    of_study(report, several=True)
    report.add_argument("--out", type=Path, help="folder (default: RUNS/report/STUDY)")
    report.add_argument("--results", type=Path, help="also write the block between this file's generated markers")
    report.add_argument("--rows", action="store_true", help="also write every episode row")
    report.add_argument(
        "--mix-provenance", action="store_true", help="allow rows of different code versions, devices or simulators"
    )
    return parser


def _study(arguments):
    return _narrowed(arguments, arguments.study)


def _narrowed(arguments, path: Path):
    """The study of a file with --set, --seeds and --variant applied."""
    from muvla.config.serialization import parse_assignments
    from sweeps.loader import load_study
    from sweeps.sweep import parse_seeds

    study = load_study(path).with_base(parse_assignments(arguments.set))
    study.check()
    return study.narrowed(parse_seeds(arguments.seeds), tuple(arguments.variant) if arguments.variant else None)


def _ledger(arguments):
    from sweeps.ledger import Ledger

    return Ledger(arguments.runs, arguments.data)


def _prepare(arguments, one_process: bool = True) -> str:
    import torch

    from muvla.errors import MuvlaError
    from muvla.models.compilation import require_compiler
    from muvla.training.distributed.torchrun import is_launched
    from muvla.utils.devices import choose_device

    if one_process and is_launched():
        raise MuvlaError("torchrun", got="another verb", expected="train", remedy="start this one without torchrun")
    for name in ("threads", "workers"):
        value = getattr(arguments, name, None)
        if value is not None and value < 1:
            raise MuvlaError(f"--{name}", got=value, expected="at least 1", remedy="correct it")
    torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    if arguments.compile:
        require_compiler(device)
    return device


def _training_options(arguments):
    from muvla.training.options import TrainingOptions

    return TrainingOptions(
        checkpoint_gradients=arguments.gradient_checkpointing,
        compiled=arguments.compile,
        cached_vision=arguments.cache_vision,
        diagnostics=not arguments.no_diagnostics,
        keep=arguments.keep_checkpoints,
    )


def _doctor(arguments) -> int:
    from muvla.cli.doctor import diagnose

    return diagnose(simulator_needed=arguments.sim, say=print)


def _collect(arguments) -> None:
    from tqdm import tqdm

    from muvla.errors import MuvlaError

    if arguments.jobs is not None and arguments.jobs < 1:
        raise MuvlaError("--jobs", got=arguments.jobs, expected="at least 1", remedy="correct it")
    study, ledger = _study(arguments), _ledger(arguments)
    with tqdm(unit="episode", disable=not sys.stderr.isatty(), dynamic_ncols=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()
            if bar.disable and done % max(1, total // 10) == 0:
                print(f"{done}/{total} episodes")

        stores = ledger.stores(study, progress, arguments.jobs)
    for path, store in {part.path: part for s in stores.values() for part in s.parts}.items():
        size = f"{len(store)} episodes, {store.frames} frames"
        print(f"{path}: {size}, {store.attempts} attempts, content {store.sha256[:12]}")


def _train(arguments) -> None:
    from muvla.errors import MuvlaError
    from muvla.training.distributed.torchrun import join_ranks
    from sweeps.train import train_study

    if arguments.shard and arguments.compile:
        raise MuvlaError("--shard", got="with --compile", expected="one of them", remedy="leave one out")
    with join_ranks(arguments.shard) as ranks:
        device, options = _prepare(arguments, one_process=False), _training_options(arguments)
        study, ledger = _study(arguments), _ledger(arguments)
        stop = _stop_on_signal(silent=ranks.size > 1)  # torchrun stops the others of a rank that died
        train_study(study, ledger, device, options, ranks, stop)


def _evaluate(arguments) -> None:
    from muvla.cli.commands import run_conditions

    run_conditions(arguments, getattr(arguments, "kind", ["none"]), _prepare(arguments), _stop_on_signal)


def _watch(arguments) -> None:
    from muvla.cli.commands import watch

    watch(arguments, _prepare(arguments))


def _inspect(arguments) -> None:
    from muvla.cli.commands import inspect_checkpoint

    inspect_checkpoint(arguments.checkpoint, arguments.size)


def _export(arguments) -> None:
    from muvla.cli.commands import export_run

    export_run(arguments.runs, arguments.data, arguments.run, arguments.directory, arguments.statistics)


def _sweep(arguments) -> int:
    from sweeps.sweep import SweepOptions, default_processes, run_study

    if arguments.between:
        return _between(arguments)
    device, study = _prepare(arguments), _study(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is handled like Ctrl-C
    options = SweepOptions(
        processes=default_processes(device) if arguments.processes is None else arguments.processes,
        device=device,
        threads=arguments.threads,
        time_limit=None if arguments.time_limit is None else 60 * arguments.time_limit,
        track=not arguments.no_tracking,
        retry_failed=arguments.retry_failed,
        plan_only=arguments.plan,
        training=_training_options(arguments),
        workers=arguments.workers,
    )
    started = time.monotonic()
    result = run_study(study, _ledger(arguments), options)
    if arguments.plan:
        return 0
    print(f"\n{time.monotonic() - started:.0f} s.")
    if result.not_run:
        why = "The time limit was reached; not" if arguments.time_limit else "Not"
        print(f"{why} finished: {'; '.join(e.item.label for e in result.not_run)}.")
        print("The same command continues where this one stopped.")
    stopped = result.not_run and arguments.time_limit is None
    return EXIT_FAILED_CELLS if result.failed or stopped else 0


def _between(arguments) -> None:
    from sweeps.difference import difference_text

    study, ledger = _study(arguments), _ledger(arguments)
    stores = ledger.opened(study) if ledger.has_data(study) else None
    print(difference_text(study, stores, tuple(arguments.between)))


def _report(arguments) -> None:
    from analysis.report.report import Report, write_report
    from sweeps.difference import difference_lines
    from sweeps.plan import coverage_lines

    cells, coverage, differences, baselines = [], [], [], {}
    studies = [_narrowed(arguments, path) for path in arguments.study]
    for study in studies:
        ledger = _ledger(arguments)
        stores = ledger.opened(study)
        entries = ledger.entries(study, stores)
        cells += [entry.records() for entry in entries]
        baselines |= ledger.baselines(study)
        coverage += [line for line in coverage_lines(entries, stores) if line not in coverage]
        differences += [line for line in difference_lines(study) if line not in differences]
    first, files = studies[0], " ".join(map(str, arguments.study))
    narrowing = [f"--set {one}" for one in arguments.set]
    narrowing += [f"--seeds {arguments.seeds}"] * bool(arguments.seeds) + [
        f'--variant "{a}"' for a in arguments.variant or []
    ]
    told = "".join(f" {one}" for one in narrowing)
    sweeps = [f"muvla sweep {path}{told}" for path in arguments.study]
    written = f" --out {arguments.out}" * bool(arguments.out) + f" --results {arguments.results}" * bool(
        arguments.results
    )
    written += " --rows" * arguments.rows + " --mix-provenance" * arguments.mix_provenance
    report = Report(
        name=first.name,
        title=first.title,
        command=" && ".join([*sweeps, f"muvla report {files}{told}{written}"]),
        notes=first.notes,
        coverage=tuple(coverage),
        differences=tuple(differences),
        mix_provenance=arguments.mix_provenance,
        with_rows=arguments.rows,
        baselines=baselines,
        predictions=tuple(dict.fromkeys(one for study in studies for one in study.predictions)),
    )
    write_report(cells, arguments.out or arguments.runs / "report" / first.name, report, arguments.results)


def _stop_on_signal(silent: bool = False) -> Callable[[], bool]:
    """The first Ctrl-C or SIGTERM asks for a clean stop, the second one interrupts at once."""
    asked: list[bool] = []

    def ask(number, frame) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        if not silent:
            print("\nstopping at the next update or episode (again to stop at once)", file=sys.stderr)

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    return lambda: bool(asked)


if __name__ == "__main__":
    sys.exit(main())
