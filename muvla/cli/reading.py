"""Read the results of studies, from the runs folder or from their committed rows, and name the options that say so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.study import Study
    from sweeps.study_results import StudyResults


def read_runs(studies: list[Study], runs: Path, data: Path) -> list[StudyResults]:
    """The results of the studies in the runs folder."""
    from muvla.cli.studies import open_ledger
    from sweeps.study_results import read_results

    ledger = open_ledger(runs, data)
    return [read_results(study, ledger) for study in studies]


def committed_folder(name: str) -> Path:
    from muvla.cli.studies import find_study
    from sweeps.committed import results_folder

    return results_folder(find_study(name))


def read_committed(names: list[str], studies: list[Study]) -> list[StudyResults]:
    """The committed results of the studies; a file that several studies share is read once."""
    from sweeps.committed import committed_results
    from sweeps.rows_format import NAME
    from sweeps.rows_reader import read_rows_file

    files = [committed_folder(name) / NAME for name in names]
    contents = {file: read_rows_file(file) for file in dict.fromkeys(files)}
    return [committed_results(study, contents[file]) for study, file in zip(studies, files, strict=True)]


def option_words(options: dict[str, object]) -> list[str]:
    """The options that were given, as words of a command line."""
    words: list[str] = []
    for option, value in options.items():
        if value is True:
            words.append(option)
        elif value:
            for item in value if isinstance(value, list) else [value]:
                words += [option, str(item)]
    return words
