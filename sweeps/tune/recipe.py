"""The chosen recipes as a study file that a person reads: the tuned study is the base study with these recipes."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from muvla.errors import MuvlaError, unknown_name
from muvla.utils.io import write_atomically
from sweeps.study import Study
from sweeps.tune.space import Recipe
from sweeps.tune.trials import RULE, TrialRow

STUDY_FILE = "study.py"
TEMPLATE = '''"""{title}

Written by

    {command}

{rule}
"""

from pathlib import Path

from sweeps.loader import load_study
from sweeps.tune.recipe import with_recipes

# The value of every tuned field, and after # the trial with its mean success over training seeds {seeds}.
RECIPES = {{
{recipes}}}

base = load_study(Path(__file__).parent / {base}){changes}
study = with_recipes(base, "{name}", RECIPES)
'''


def with_recipes(study: Study, name: str, recipes: Mapping[str, Recipe]) -> Study:
    """The study whose variants have recipes of their own.

    The tuned fields become factors, because variants may now differ in them. Predictions were written for the base's
    recipe, and are left out.

    Args:
        study: the base study.
        name: name of the tuned study.
        recipes: variant → dotted field → value; variants without a recipe are left out.
    """
    for variant in recipes:
        if variant not in study.variants:
            raise unknown_name("RECIPES", variant, study.variants)
    if not recipes:
        raise MuvlaError(
            "RECIPES", got="no recipe", expected="at least one variant with a recipe", remedy="run `muvla tune` again"
        )
    kept = study.narrowed(variants=tuple(recipes))
    fields = dict.fromkeys(field for recipe in recipes.values() for field in recipe)
    return replace(
        kept,
        name=name,
        title=f"{study.title.rstrip()} Each variant has its tuned recipe.",
        variants={variant: {**changes, **recipes[variant]} for variant, changes in kept.variants.items()},
        factors=tuple(dict.fromkeys((*study.factors, *fields))),
        predictions=(),
    )


def write_recipes(
    file: Path,
    study_file: Path,
    study: Study,
    chosen: Mapping[str, TrialRow],
    command: str,
    changes: Mapping[str, Any],
    seeds: Sequence[int],
) -> None:
    """Write the tuned study.

    Args:
        file: the file to write.
        study_file: file or folder of the base study.
        study: the base study.
        chosen: variant → its chosen trial.
        command: the command line that wrote the file.
        changes: fields of the base that `--set` changed.
        seeds: training seeds of the tuning.
    """
    lines = [
        f"    {_literal(variant)}: {_literal(row.recipe)},  # trial {row.number}: {row.mean:.3f}\n"
        for variant, row in chosen.items()
    ]
    base = study_file if study_file.is_file() else study_file / "study.py"
    text = TEMPLATE.format(
        title=f"{study.name} with the recipe that a tuning chose for each variant.",
        command=" \\\\\n        ".join(_wrapped(command)),  # a backslash at the end of a line, in a docstring
        rule="\n".join(_wrapped(RULE)),
        seeds=", ".join(map(str, seeds)),
        recipes="".join(lines),
        base=_literal(os.path.relpath(base.resolve(), file.parent.resolve())),
        changes=f".with_base({_literal(dict(changes))})" if changes else "",
        name=f"{study.name}_tuned",
    )
    write_atomically(file, text.encode())


def _literal(value: Any) -> str:
    """A value as the formatter of the project writes it, with double quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)
