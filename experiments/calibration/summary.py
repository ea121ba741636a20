"""Sentences on the calibration, for RESULTS.md: `python -m experiments.calibration.summary`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from experiments.calibration.measured import RESULTS
from experiments.calibration.splits import NAME as SPLITS
from experiments.calibration.times import TEST

NAME = "simulated.md"


def sentences(folder: Path) -> str:
    """Errors on real training seeds, and the largest error rates and lowest coverage of simulated studies."""
    splits = pd.read_csv(folder / SPLITS, keep_default_na=False, na_values=[""])
    verdicts, references, contrasts, intervals, times = (
        pd.read_csv(folder / f"{name}simulated.csv", keep_default_na=False, na_values=[""])
        for name in ("", "references-", "contrasts-", "intervals-", "times-")
    )
    alike = contrasts[contrasts["difference"] == 0]["significant"].max()
    in_time = times[(times["test"] == TEST) & (times["factor"] == 1)]["significant"].max()
    studies = min(frame["studies"].min() for frame in (verdicts, references, contrasts, intervals, times))
    wide = intervals[intervals["nominal"] == 0.95]
    least = wide.loc[wide["coverage"].idxmin()]
    wrong, against = (frame["wrong_share"].max() for frame in (verdicts, references))
    return (
        f"{_real(splits)} "
        f"In simulated studies ({studies:,} for each line of the files), at most {wrong:.3f} of the verdicts and "
        f"{against:.3f} of the verdicts against a reference are wrong. At most {alike:.3f} of the contrasts and "
        f"{in_time:.3f} of the contrasts in the time to learn find a difference where there is none (nominal 0.05). "
        f"The 95 % intervals cover the truth in {least['coverage']:.3f} or more.\n"
    )


def _real(splits: pd.DataFrame) -> str:
    """Counts over all random groups of real training seeds."""
    is_contrast = splits["statement"] == "contrast"
    texts = [
        f"{int(lines['wrong'].sum()):,} of {int(lines['splits'].sum()):,} {name}"
        for name, lines in (("contrasts", splits[is_contrast]), ("verdicts", splits[~is_contrast]))
    ]
    return (
        f"On random groups of 5 and of 10 real training seeds, {' and '.join(texts)} are wrong. "
        "The groups come from the same 60 trainings, so they depend on each other."
    )


if __name__ == "__main__":
    (RESULTS / NAME).write_text(sentences(RESULTS), encoding="utf-8")
