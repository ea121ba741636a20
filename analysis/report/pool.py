"""The report over several tasks: contrasts with the unit task × training seed, aggregates and a performance profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from analysis.contrasts import CONTRAST_TITLES
from analysis.figures.base import Subject
from analysis.figures.style import assign_colours
from analysis.pooled import Tasks, aggregate_frame, learned_table, pooled_frame, pooled_text, tasks_of
from analysis.report.checks import mixed
from analysis.report.folder import ReportFolder
from analysis.report.markers import write_between_markers
from analysis.report.report import require_alike
from analysis.tables import to_markdown
from sweeps.study_results import StudyResults
from sweeps.union import union_differences

NAME = "pooled.md"
WORDS = (
    "A difference is the mean over tasks of the difference of means over training seeds. Its 95 % interval adds the "
    "variances of all groups of seeds (Welch and Satterthwaite). p is that of the permutation test that regroups the "
    "seeds within every task, after Holm's correction for all planned contrasts. P(better) is the probability that a "
    "seed of the variant beats a seed of the reference on the same task."
)
LEARNED = (
    "A training seed has learned a task if it is above chance and the lower 95 % limit of its success exceeds the best "
    "success without memory. Bold: more than half of the seeds."
)


def write_pooled(
    read: Sequence[StudyResults],
    folder: Path,
    name: str,
    command: str,
    results: Path | None = None,
    mix_provenance: bool = False,
    say: Callable[[str], None] = print,
) -> Tasks:
    """Writes tasks.csv, pooled.csv, aggregates.csv, pooled.md and the figure of the profile.

    Args:
        read: the studies, one task each, with one list of variants.
        folder: folder of the files.
        name: name of the comparison, the title and the marker in `results`.
        command: the command that the report states.
        results: also write the tables between the generated markers of this file.
        mix_provenance: accept cells of different code versions, devices or simulators; the report states them.
        say: prints a text for the terminal.

    Raises:
        MuvlaError: the studies do not fit each other, or differ in a part of provenance that must be alike.
    """
    tasks, mixes = tasks_of(read), mixed([cell for each in read for cell in each.records])
    if not mix_provenance:
        require_alike(mixes)
    colours = assign_colours(tasks.variants)
    target = ReportFolder(folder, name, colours, say)
    text = _tables(tasks)
    pictures: list[str] = []
    if len(tasks.rates):
        target.write_csv("tasks.csv", tasks.rates)
        target.write_csv("pooled.csv", pooled_frame(tasks))
        target.write_csv("aggregates.csv", aggregate_frame(tasks))
        lines = tasks.rates.assign(score=tasks.rates[f"{tasks.metric}_rate"], metric=tasks.metric)
        pictures = target.pictures("tasks", Subject(lines, colours=colours))
    studied = [each.study for each in read]
    between = [f"- {text}" for text in (*union_differences(studied), *(f"mixed: {text}" for text in mixes))]
    shared = ["Between the tasks, beside the declared factors:", "", *between, ""] if between else []
    studies = ", ".join(f"`{each.study.name}`" for each in read)
    body = [
        f"# {name}: {len(read)} tasks",
        "",
        f"Studies: {studies}.",
        "",
        f"    {command}",
        "",
        text,
        *pictures,
        "",
        *shared,
    ]
    target.write(NAME, "\n".join(body).rstrip() + "\n")
    if results is not None:
        write_between_markers(results, name, f"## {name}: variants over {len(read)} tasks\n\n{text}")
    say(text)
    return tasks


def _tables(tasks: Tasks) -> str:
    contrasts, aggregates = pooled_frame(tasks), aggregate_frame(tasks)
    if not len(aggregates):
        return "No cell of these studies has a complete plain run yet.\n"
    title = CONTRAST_TITLES[tasks.metric]
    blocks = [f"Contrasts in {title} over tasks. {WORDS}", "", to_markdown(_contrast_table(contrasts, title)), ""]
    blocks = blocks if len(contrasts) else ["No contrast has two training seeds of both variants yet.", ""]
    numbers = pd.DataFrame(
        {
            "variant": aggregates["variant"],
            "tasks": aggregates["tasks"],
            "task × seed": aggregates["n"],
            f"mean {title}": aggregates["mean"].map("{:.2f}".format),
            "interquartile mean": aggregates["iqm"].map("{:.2f}".format),
        }
    )
    return "\n".join([*blocks, to_markdown(numbers), "", LEARNED, "", to_markdown(learned_table(tasks)), ""])


def _contrast_table(frame: pd.DataFrame, title: str) -> pd.DataFrame:
    if not len(frame):
        return frame
    return pd.DataFrame(
        {
            "variant": frame["variant"],
            "reference": frame["reference"],
            "tasks": frame["tasks"],
            "task × seed": [f"{line.n} v {line.reference_n}" for line in frame.itertuples()],
            title: [pooled_text(line) for _, line in frame.iterrows()],
            "P(better)": frame["improvement"].map("{:.2f}".format),
        }
    )
