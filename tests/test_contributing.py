"""The worked example of an intervention does what its page says."""

import re

import numpy as np
import pytest

from helpers.packages import write_package
from helpers.paths import ROOT
from helpers.policies import PLAIN_INTERFACE, tokens_read
from muvla.checkpoints.build import build_policy
from muvla.errors import MuvlaError
from muvla.interventions import parse_intervention


def test_an_intervention_is_a_file_and_an_entry_point(cell_with, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "extending" / "intervention.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    name, place = re.search(r'entry-points."muvla.interventions"\]\n(\w+) = "(.+?)"', text).groups()
    points = {"muvla.interventions": {name: place}}
    monkeypatch.syspath_prepend(
        write_package(tmp_path, "negate-memory", {f"{place.partition(':')[0]}.py": code}, points)
    )
    policy = build_policy(cell_with(), PLAIN_INTERFACE).eval()
    (read, _), (plain, _) = (tokens_read(policy, each) for each in (parse_intervention(name), None))
    np.testing.assert_array_equal(read[0], -plain[0])
    assert parse_intervention("negate[0:2]@cue_end..").tokens == (0, 2)
    with pytest.raises(MuvlaError) as info:
        parse_intervention("negat")
    assert info.value.field == "intervention" and "negate" in info.value.expected
