"""Token order, segments, RoPE positions."""

import pytest
import torch

from muvla.models.sequence import Layout, Segment


def layout(memory=3, reserve=3, text=6, padded=True):
    return Layout(vision=4, memory=memory, text=text, action=4, reserve=reserve, padded=padded)


def test_the_published_order():
    """Spec 1.1, written out by hand."""
    row = layout(padded=False).segments(torch.tensor([6]))[0].tolist()
    expected = ["BOS", *["VISION"] * 4, "PROPRIO", *["MEMORY"] * 3, *["TEXT"] * 6, *["ACTION"] * 4, "STOP"]
    assert [Segment(s).name for s in row] == expected


def test_padding_stands_left_of_text_per_row():
    rows = layout().segments(torch.tensor([6, 2]))
    assert (rows[0] == Segment.PAD).sum() == 0
    assert rows[1, 9:13].tolist() == [Segment.PAD] * 4
    assert rows[1, 13:15].tolist() == [Segment.TEXT] * 2
    assert rows[:, 15:].eq(rows[0, 15:]).all(), "ACTION and STOP start at the same index in every row"


def test_shift_gives_the_published_plain_positions():
    """Of the unpadded row: 0…S−1, whatever the padding."""
    positions = layout().positions(torch.tensor([6, 2]))
    assert positions[0].tolist() == list(range(20))
    is_token = layout().segments(torch.tensor([6, 2]))[1] != Segment.PAD
    assert positions[1][is_token].tolist() == list(range(16))


@pytest.mark.parametrize("m", [0, 1, 3, 8])
def test_reserved_positions_are_those_of_every_other_m(m):
    """Text and action keep their positions; shifted ones would move by m (the confound)."""
    own = layout(memory=m, reserve=8)
    reference = layout(memory=8, reserve=8)
    lengths = torch.tensor([6])
    assert torch.equal(
        own.positions(lengths)[:, own.text_start :], reference.positions(lengths)[:, reference.text_start :]
    )


def test_the_head_reads_one_to_the_left_of_the_action_slots():
    """Spec 1.6: the last TEXT token and all slots but the last."""
    one = layout()
    index = list(range(one.length))[one.action_read]
    segments = one.segments(torch.tensor([2]))[0]
    assert [Segment(segments[i].item()).name for i in index] == ["TEXT", "ACTION", "ACTION", "ACTION"]
