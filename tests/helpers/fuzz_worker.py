"""A process that feeds mutated inputs to the parsers, and writes a line for each finding.

`python -m helpers.fuzz_worker INPUTS ROOT FROM` reads the valid inputs, and runs the cases of `ROOT/cases.json`. The
file `ROOT/at-FROM` names the case that runs, so that a process that dies or hangs names its input.
"""

from __future__ import annotations

import faulthandler
import json
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from random import Random

from helpers.fuzz_targets import TARGETS, FileTarget, TextTarget
from helpers.mutations import mutate_file
from muvla.errors import MuvlaError

SEED = 20_260_801
SECONDS = 10  # of the processor, for one input
BYTES = 2**30  # that one input may add to the process
HANGS = 60  # seconds after which the process ends itself


def limit_memory() -> None:
    """Let the process grow by BYTES of virtual memory, beyond which every allocation fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + BYTES + 2**28  # a quarter more: threads and maps of files
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Case:
    """The input `number` of a target. The same seed gives the same input."""

    def __init__(self, target: FileTarget | TextTarget, number: int, inputs: Path):
        self.target, self.number, self.inputs = target, number, inputs
        self.rng = Random(f"{SEED} {target.name} {number}")
        self.refused, self.seconds, self.grown = False, 0.0, 0

    def run(self) -> dict | None:
        """The finding: an exception that is no MuvlaError, an error without a place, or a limit; None without one."""
        started, before, shown = time.process_time(), peak(), ""
        finding = None
        try:
            if isinstance(self.target, TextTarget):
                data = self.target.make(self.rng)
                shown = ascii(data)[:200]
                self.target.read(data)
            else:
                shown = self._read_files()
        except MuvlaError as error:
            self.refused = True
            finding = self._unplaced(error)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            frames = traceback.extract_tb(error.__traceback__)
            ours = [
                f for f in frames if "/muvla/" in f.filename or "/sweeps/" in f.filename or "/analysis/" in f.filename
            ]
            place = ours[-1] if ours else frames[-1]
            what = f"{type(error).__name__} at {'/'.join(Path(place.filename).parts[-3:])}:{place.lineno} {place.name}"
            finding = {"finding": what, "error": str(error)[:200]}
        self.seconds, self.grown = time.process_time() - started, peak() - before
        if self.seconds > SECONDS:
            finding = {"finding": "slow", "error": f"{self.seconds:.1f} s"}
        if self.grown > BYTES:
            finding = {"finding": "large", "error": f"{self.grown / 2**20:.0f} MiB"}
        if finding is not None:
            finding |= {"target": self.target.name, "number": self.number, "input": shown}
        return finding

    def _read_files(self) -> str:
        """Mutate one file, read the folder, and restore the file. Returns what was mutated."""
        folder = self.inputs / self.target.folder
        files = sorted(file for file in folder.glob(self.target.files) if file.is_file())
        file = self.rng.choice(files)
        content = file.read_bytes()
        mutated = mutate_file(self.rng, file, content)
        file.write_bytes(mutated)
        try:
            self.target.read(folder)
        finally:
            file.write_bytes(content)
        return file.name

    def _unplaced(self, error: MuvlaError) -> dict | None:
        """The finding of an error that names no file, field or option."""
        field = error.field
        if not isinstance(field, str) or not field.strip() or len(str(error)) > 20_000:
            return {"finding": "an error without a field", "error": str(error)[:200]}
        if isinstance(self.target, FileTarget) and str(self.inputs) not in str(error) and not field.startswith("--"):
            return {"finding": f"an error that names no file: {field[:60]}", "error": str(error)[:200]}
        return None


def main(inputs: Path, root: Path, start: int) -> None:
    """Run the cases of `root/cases.json` from `start` on."""
    warnings.simplefilter("ignore")
    by_name = {target.name: target for target in TARGETS}
    cases = json.loads((root / "cases.json").read_text())
    faulthandler.enable()
    total = {"cases": 0, "refused": 0, "seconds": 0.0, "mebibytes": 0.0}
    with tempfile.TemporaryDirectory(dir=root) as place:
        copy = Path(place) / "inputs"
        shutil.copytree(inputs, copy)
        for target in TARGETS:  # the valid inputs are valid, and load every library before memory is limited
            if isinstance(target, FileTarget):
                target.read(copy / target.folder)
        limit_memory()
        for index, (name, number) in enumerate(cases[start:], start=start):
            (root / f"at-{start}").write_text(str(index))
            faulthandler.dump_traceback_later(HANGS, exit=True)
            case = Case(by_name[name], number, copy)
            finding = case.run()
            faulthandler.cancel_dump_traceback_later()
            if finding is not None:
                print(json.dumps(finding), flush=True)
            total["cases"] += 1
            total["refused"] += case.refused
            total["seconds"] = max(total["seconds"], case.seconds)
            total["mebibytes"] = max(total["mebibytes"], case.grown / 2**20)
    print(json.dumps(total))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
