"""Runs cases of the fuzz test in worker processes, and starts a worker again behind an input that ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from helpers.paths import ROOT


@dataclass
class Report:
    """Counts of a run; `findings` is empty where every promise holds."""

    findings: list[dict] = field(default_factory=list)
    cases: int = 0
    refused: int = 0  # inputs that ended in a MuvlaError
    seconds: float = 0.0  # of the slowest input
    mebibytes: float = 0.0  # that the largest input added

    def add(self, line: dict) -> None:
        if "finding" in line:
            self.findings.append(line)
            return
        self.cases += line["cases"]
        self.refused += line["refused"]
        self.seconds = max(self.seconds, line["seconds"])
        self.mebibytes = max(self.mebibytes, line["mebibytes"])

    def text(self) -> str:
        lines = [f"{self.cases} inputs, {self.refused} refused, {len(self.findings)} findings"]
        lines.append(f"slowest {self.seconds:.1f} s, largest {self.mebibytes:.0f} MiB")
        first: dict[tuple[str, str], dict] = {}
        for finding in self.findings:
            first.setdefault((finding["target"], finding["finding"].partition(" file:")[0]), finding)
        for (target, what), finding in first.items():
            lines.append(f"{target} {finding['number']}: {what}: {finding['error']} ({finding.get('input', '')})")
        return ascii("\n".join(lines)).replace("\\n", "\n")


def run_cases(inputs: Path, place: Path, cases: list[tuple[str, int]], processes: int = 1) -> Report:
    """Run (target's name, number) on the valid `inputs`, in processes that write into `place`."""
    report = Report()
    with ThreadPoolExecutor(processes) as pool:
        for lines in pool.map(lambda i: _run_part(place / f"part-{i}", cases[i::processes], inputs), range(processes)):
            for line in lines:
                report.add(line)
    return report


def _run_part(place: Path, cases: list[tuple[str, int]], inputs: Path) -> list[dict]:
    place.mkdir(parents=True)
    wanted = place / "cases.json"
    wanted.write_text(json.dumps(cases))
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    lines, start = [], 0
    while start < len(cases):
        command = [sys.executable, "-m", "helpers.fuzz_worker", str(inputs), str(place), str(start)]
        ended = subprocess.run(command, capture_output=True, env=environment, check=False)
        lines += [json.loads(line) for line in ended.stdout.splitlines() if line.startswith(b"{")]
        if ended.returncode == 0:
            break
        at = place / f"at-{start}"
        assert at.exists(), ended.stderr.decode(errors="replace")[-3000:]  # the worker did not begin
        index = int(at.read_text())
        target, number = cases[index]
        trace = ended.stderr.decode(errors="replace")[-1500:]
        finding = f"the process ended with status {ended.returncode}"
        lines.append({"finding": finding, "error": trace, "target": target, "number": number})
        lines.append({"cases": index + 1 - start, "refused": 0, "seconds": 0.0, "mebibytes": 0.0})
        start = index + 1
    return lines
