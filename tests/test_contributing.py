"""The worked examples do what they say; every probe is told of, under its version."""

import re
from dataclasses import replace

import numpy as np

from helpers.paths import ROOT
from helpers.policies import PLAIN_INTERFACE, tokens_read
from muvla.checkpoints.build import build_policy
from muvla.evaluation.catalog import get_protocol
from muvla.interventions import kinds, parse_intervention

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SHORT = replace(get_protocol("recall-position3-rh@1"), name="short", episodes=3, slots=3)


def example(title):
    """Its first block of Python, and all of its text."""
    (text,) = [part for part in TEXT.split("\n## ") if part.startswith(title)]
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], text


def test_an_intervention_is_a_function_and_a_line(cell_with, monkeypatch):
    code, text = example("Worked example: adding an intervention")
    names = dict(vars(kinds))
    exec(code, names)
    line = eval(re.search(r"`(Kind\(\"negate\".*?\)),`", text)[1], names)
    monkeypatch.setitem(kinds.INTERVENTIONS, line.name, line)
    policy = build_policy(cell_with(), PLAIN_INTERFACE).eval()
    (read, _), (plain, _) = (tokens_read(policy, kind) for kind in (parse_intervention("negate"), None))
    np.testing.assert_array_equal(read[0], -plain[0])
    assert parse_intervention("negate[0:2]@cue_end..").tokens == (0, 2)
