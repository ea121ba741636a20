"""Reading ahead: the same training bit for bit, a cursor of what was consumed, errors as themselves, no thread left."""

import contextlib
import dataclasses
import threading

import numpy as np
import pytest
import torch

from muvla.checkpoints import native as ckpt
from muvla.config.serialization import replace
from muvla.data.prefetch import Prefetcher, pin
from muvla.data.stream import SlotStream
from muvla.errors import MuvlaError
from muvla.training.resume import make_checkpoint
from muvla.training.run import train_to_the_end
from muvla.training.trainer import Trainer


def same(one, two) -> bool:
    """Two windows, field by field."""
    pairs = [(getattr(one, f.name), getattr(two, f.name)) for f in dataclasses.fields(one)]
    return all((a is None and b is None) or np.array_equal(a, b) for a, b in pairs)


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("windows")]


@pytest.fixture
def made_in(monkeypatch) -> list[str]:
    """The names of the threads that made windows, in order."""
    made, original = [], SlotStream.window

    def window(self, ticks):
        made.append(threading.current_thread().name)
        return original(self, ticks)

    monkeypatch.setattr(SlotStream, "window", window)
    return made


@pytest.mark.parametrize("order", ["episodic", "grouped"])
def test_the_same_windows_and_the_cursor_of_the_consumed_ones(store, base, made_in, order):
    cell = replace(base, {"data.order": order, "data.group": 4})
    plain, stream = Trainer(cell, store).stream, Trainer(cell, store).stream
    with Prefetcher(stream) as ahead:
        for i in range(6):
            assert same(ahead.window(8, last=i == 5), plain.window(8))
            assert stream.state() == plain.state(), "not of what lies prepared"
    assert made_in.count("windows_0") == 5, "all but the first, and none behind the last"


def test_a_moved_stream_gets_the_window_of_where_it_stands(store, base):
    """A leak test that peeks and rewinds, another number of ticks, a resume."""
    plain, stream = Trainer(base, store).stream, Trainer(base, store).stream
    with Prefetcher(stream) as ahead:
        start = stream.state()
        first = ahead.window(8)
        before = stream.state()
        stream.window(1)
        stream.load_state(before)
        assert same(first, plain.window(8)) and same(ahead.window(8), plain.window(8))
        assert same(ahead.window(4), plain.window(4))
        stream.load_state(start)
        assert same(ahead.window(8), first)


def test_a_stopped_training_continues_bit_for_bit(store, cell_with, tmp_path, made_in):
    """Stopped with a window lying prepared; against steps that read nothing ahead."""
    cell = cell_with({"budget.updates": 6, "truncation": 4})
    asked = iter([False, True])
    train_to_the_end(Trainer(cell, store), tmp_path, should_stop=lambda: next(asked))
    assert ckpt.load(ckpt.latest(tmp_path / "checkpoints")).cursor["ticks"] == 16
    assert "windows_0" in made_in
    end = ckpt.load(train_to_the_end(Trainer(cell, store), tmp_path))
    alone = Trainer(cell, store)
    for _ in range(6):
        alone.step()
    assert end.cursor == make_checkpoint(alone).cursor
    for name, value in alone.policy.named_parameters():
        assert torch.equal(end.tensors["model"][name], value), name
    assert not reader_threads()


@pytest.mark.parametrize(
    "error",
    [MuvlaError("images", got="cut", expected="whole", remedy="none"), OSError("disk gone"), KeyboardInterrupt()],
    ids=["MuvlaError", "OSError", "KeyboardInterrupt"],
)
def test_an_error_of_the_thread_is_raised_as_itself(store, cell_with, tmp_path, monkeypatch, error):
    original, made = SlotStream._images, []

    def images(self, *args):
        made.append(threading.current_thread().name)
        if len(made) == 4:
            raise error
        return original(self, *args)

    monkeypatch.setattr(SlotStream, "_images", images)
    trainer = Trainer(cell_with({"budget.updates": 6}), store)
    with pytest.raises(type(error)) as raised:
        train_to_the_end(trainer, tmp_path)
    assert raised.value is error and made[3] == "windows_0"
    assert trainer.update == 2, "the leak test's window, two that were trained on, and the one that fails"
    assert not reader_threads()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_thread_ends_when_training_fails(store, base, tmp_path, error):
    def progress(_):
        raise error

    with pytest.raises(error):
        train_to_the_end(Trainer(replace(base, {"budget.updates": 1}), store), tmp_path, progress)
    trainer, steps = Trainer(base, store), []
    original = trainer.step
    trainer.step = lambda diagnosis: (original(diagnosis), steps.append(reader_threads()), progress(None))
    with pytest.raises(error):
        train_to_the_end(trainer, tmp_path / "another")
    assert len(steps[0]) == 1 and not reader_threads()


@pytest.mark.gpu
def test_pinned_windows_hold_the_same(store, base):
    window = Trainer(base, store).stream.window(8)
    assert same(pin(window), window) and pin(window).images.is_pinned()
    losses = {}
    for ahead in (False, True):
        trainer = Trainer(base, store, device="cuda")
        with trainer.prefetcher if ahead else contextlib.nullcontext():
            losses[ahead] = [trainer.step() for _ in range(4)]
    assert losses[False] == losses[True]
