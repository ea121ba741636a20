"""Augmentation: its operations by their definitions, its draws by their keys."""

import colorsys
import dataclasses

import numpy as np
import pytest
import torch

from muvla.config import no_memory
from muvla.data.augmentation import Change, augment, draw_change
from muvla.errors import MuvlaError
from muvla.training.trainer import Trainer

NOTHING = Change(top=0.0, left=0.0, brightness=0.0, contrast=1.0, saturation=1.0, hue=0.0)
ON = {"data.augmentation": "episode", "model.images": "released"}


def pictures(n=2, size=16, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8))


def only(**changes):
    return dataclasses.replace(NOTHING, **changes)


@pytest.mark.parametrize(("top", "left"), [(0.0, 0.0), (1.0, 0.5)])
def test_the_crop_is_a_square_of_nine_tenths_of_the_area(top, left):
    """On a ramp, where a bilinear crop is a ramp again: its first and last values are the square's corners."""
    size = 33
    ramp = torch.arange(size, dtype=torch.uint8) * 7
    for axis, share in ((2, top), (1, left)):
        image = ramp.view([1, 1, size, 1] if axis == 2 else [1, 1, 1, size]).expand(1, 3, size, size)
        out = augment(image, [only(top=top, left=left)])[0, 0].float()
        line = out[:, 0] if axis == 2 else out[0]
        side = np.sqrt(0.9) * (size - 1)
        start = share * (size - 1 - side)
        assert line[0].item() == pytest.approx(7 * start, abs=1) and line[-1].item() == pytest.approx(
            7 * (start + side), abs=1
        )


def test_colours_by_the_standard_librarys_hsv():
    """Pixel by pixel, after the same crop."""
    images = pictures()
    cropped = augment(images, [NOTHING] * 2).float() / 255
    out = augment(images, [only(saturation=0.8, hue=0.05), only(saturation=1.2, hue=-0.05)]).float() / 255
    for i, (factor, shift) in enumerate(((0.8, 0.05), (1.2, -0.05))):
        for y, x in ((0, 0), (3, 7), (15, 15), (8, 2)):
            h, s, v = colorsys.rgb_to_hsv(*cropped[i, :, y, x].tolist())
            expected = colorsys.hsv_to_rgb((h + shift) % 1, min(1.0, s * factor), v)
            assert out[i, :, y, x].tolist() == pytest.approx(expected, abs=2 / 255)


def test_brightness_and_contrast():
    images = pictures(1)
    cropped = augment(images, [NOTHING]).float() / 255
    brighter = augment(images, [only(brightness=0.2)]).float() / 255
    torch.testing.assert_close(brighter, (cropped + 0.2).clamp(0, 1), atol=1.5 / 255, rtol=0)
    flatter = augment(images, [only(contrast=0.8)]).float() / 255
    mean = cropped.mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(flatter, (cropped - mean) * 0.8 + mean, atol=1.5 / 255, rtol=0)


def test_draws_lie_in_the_published_ranges_and_depend_on_their_key_alone():
    draws = [draw_change(0, i) for i in range(300)]
    assert draw_change(0, 7) == draws[7] != draw_change(1, 7)
    for name, low, high in (
        ("top", 0, 1),
        ("left", 0, 1),
        ("brightness", -0.2, 0.2),
        ("contrast", 0.8, 1.2),
        ("saturation", 0.8, 1.2),
        ("hue", -0.05, 0.05),
    ):
        values = [getattr(d, name) for d in draws]
        assert low <= min(values) < low + 0.1 * (high - low) and high - 0.1 * (high - low) < max(values) <= high


def shown(trainer):
    """What the towers see of a window, (W, B, V, 3, s, s)."""
    window = trainer.stream.window(8)
    return trainer.prepare_images(window).unflatten(0, (8, 4)), window


def test_all_cells_of_a_seed_see_the_same_pixels(store, cell_with):
    reference, _ = shown(Trainer(cell_with(ON), store))
    for same in ({"memory.m": 2}, {"truncation": 1}, no_memory(), {"data.labels": "recorded"}):
        assert torch.equal(shown(Trainer(cell_with({**ON, **same}), store))[0], reference)
    assert not torch.equal(shown(Trainer(cell_with({**ON, "seed": 1}), store))[0], reference)
    assert not torch.equal(shown(Trainer(cell_with({"model.images": "released"}), store))[0], reference)


@pytest.mark.parametrize("scope", ["episode", "frame"])
def test_an_episode_is_changed_once_or_frame_by_frame(store, cell_with, scope):
    """A still image stays still under `episode` and moves under `frame`; cameras are changed independently."""
    trainer = Trainer(cell_with({**ON, "data.augmentation": scope}), store)
    window = trainer.stream.window(8)
    still = window.images[:1, :1, :1].expand(8, 4, 2, -1, -1, -1).clone()
    out = trainer.prepare_images(dataclasses.replace(window, images=still)).unflatten(0, (8, 4))
    for slot in range(4):
        for t in range(1, 8):
            continues = window.visit[t, slot] == window.visit[t - 1, slot]
            alike = torch.equal(out[t, slot], out[t - 1, slot])
            assert alike == (continues and scope == "episode"), (slot, t)
    assert not torch.equal(out[0, 0, 0], out[0, 0, 1]), "cameras"


def test_the_first_image_is_changed_with_its_episode(store, cell_with):
    trainer = Trainer(cell_with({**ON, "data.first_image": True}), store)
    out, window = shown(trainer)
    for slot in range(4):
        for t in range(1, 8):
            if window.visit[t, slot] == window.visit[t - 1, slot]:
                assert torch.equal(out[t, slot, -1], out[t - 1, slot, -1])


def test_an_image_that_is_cropped_in_training_is_cropped_in_evaluation(cell_with):
    """Published: at random in training, its centre in evaluation."""
    for images in ("stored", "resized"):
        with pytest.raises(MuvlaError) as info:
            cell_with({"data.augmentation": "frame", "model.images": images})
        assert info.value.field == "model.images"


def test_a_resumed_stream_is_changed_as_before(store, cell_with):
    trainer, twin = Trainer(cell_with(ON), store), Trainer(cell_with(ON), store)
    for _ in range(3):
        trainer.stream.window(8)
    twin.stream.load_state(trainer.stream.state())
    assert torch.equal(shown(trainer)[0], shown(twin)[0])
