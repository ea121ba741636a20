"""Sentences on the simulated studies, for RESULTS.md: `python -m experiments.calibration.summary`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from experiments.calibration.contrasts import RESULTS
from experiments.calibration.times import TEST

NAME = "simulated.md"


def sentences(folder: Path) -> str:
    """The largest error rates and the lowest coverage in the committed files of simulated studies."""
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
        f"In simulated studies ({studies:,} for each line of the files), at most {wrong:.3f} of the verdicts and "
        f"{against:.3f} of the verdicts against a reference are wrong. At most {alike:.3f} of the contrasts and "
        f"{in_time:.3f} of the contrasts in the time to learn find a difference where there is none (nominal 0.05). "
        f"The 95 % intervals cover the truth in {least['coverage']:.3f} or more.\n"
    )


if __name__ == "__main__":
    (RESULTS / NAME).write_text(sentences(RESULTS), encoding="utf-8")
