"""What goes into a released policy and what comes out of it: images, proprio, actions."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import released
from muvla.data.normalization import Statistics
from muvla.errors import MuvlaError
from muvla.models.preprocessing import central_crop, lanczos, prepare

SIZE = 224


def frame(size, seed=0):
    """Blocks of colour with noise: edges ring, noise aliases."""
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((size // 8, size // 8, 1)))
    return np.clip(blocks + rng.normal(0, 20, blocks.shape), 0, 255).astype(np.uint8)


def lanczos_by_definition(line, size):
    """One line of pixels, output pixel by output pixel: the kernel over the pixels it covers, divided by its sum."""
    scale = len(line) / size
    width = max(scale, 1.0)
    out = []
    for i in range(size):
        centre, total, weight = (i + 0.5) * scale, 0.0, 0.0
        for j, value in enumerate(line):
            x = (j + 0.5 - centre) / width
            if abs(x) >= 3:
                continue
            k = 1.0 if x == 0 else 3 * math.sin(math.pi * x) * math.sin(math.pi * x / 3) / (math.pi * x) ** 2
            total, weight = total + k * value, weight + k
        out.append(total / weight)
    return np.array(out)


@pytest.mark.parametrize("size", [128, 256, 224])
def test_lanczos_is_its_definition(size):
    line = frame(size)[size // 2, :, 0].astype(float)
    ours = lanczos(size, SIZE).numpy() @ line
    np.testing.assert_allclose(ours, lanczos_by_definition(line, SIZE), atol=1e-2)


@pytest.mark.parametrize("size", [128, 256])
def test_lanczos_is_pillows_up_to_its_rounding(size):
    """Pillow computes the same kernel in fixed point, and rounds and clips to bytes between rows and columns: compared
    where nothing overshoots."""
    image = frame(size) // 2 + 64
    ours = lanczos(size, SIZE) @ torch.from_numpy(image).float().movedim(-1, 0) @ lanczos(size, SIZE).T
    theirs = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.LANCZOS)).astype(float)
    difference = np.abs(ours.round().clamp(0, 255).movedim(0, -1).numpy() - theirs)
    assert difference.max() <= 1


def test_the_crop_is_bilinear_between_its_corners():
    """0.9 of the area is √0.9 of the side; corner pixels of the result lie on the corners of that square."""
    ramp = torch.arange(SIZE, dtype=torch.float32)
    places = central_crop(SIZE) @ ramp
    first = (1 - math.sqrt(0.9)) / 2 * (SIZE - 1)
    assert places[0].item() == pytest.approx(first, abs=1e-3)
    assert places[-1].item() == pytest.approx(SIZE - 1 - first, abs=1e-3)
    steps = places.diff()
    assert torch.allclose(steps, torch.full_like(steps, math.sqrt(0.9)), atol=1e-3)


def test_the_pipeline_keeps_an_even_image_and_every_leading_dimension():
    even = torch.full((2, 2, 3, 128, 128), 137, dtype=torch.uint8)
    out = prepare(even, SIZE, "released")
    assert out.shape == (2, 2, 3, SIZE, SIZE) and out.dtype == torch.uint8 and (out == 137).all()
    images = torch.from_numpy(np.stack([frame(128, seed) for seed in (0, 1)])).movedim(-1, 1)
    assert torch.equal(prepare(images, SIZE, "released")[1], prepare(images[1:], SIZE, "released")[0])
    assert not torch.equal(prepare(images, SIZE, "resized"), prepare(images, SIZE, "released"))
    assert prepare(images, SIZE, "stored") is images
    with pytest.raises(MuvlaError) as info:
        prepare(even.float(), SIZE, "released")
    assert info.value.field == "images"


def test_actions_and_proprio_follow_the_released_bounds():
    """spec 4.2: 2·(x − q01)/(q99 − q01 + 1e-8) − 1, clipped; and back. A dimension outside the mask passes through, as
    LIBERO's gripper does."""
    q01, q99 = np.array([-0.5, 0.0, 0.0]), np.array([0.25, 2.0, 1.0])
    bounds = {
        "action": {"q01": q01.tolist(), "q99": q99.tolist(), "mask": [True, True, False]},
        "proprio": {"q01": [0.0, 3.0], "q99": [1.0, 3.0]},
    }
    statistics = Statistics.from_release(bounds)
    action = np.array([[-0.4, 1.7, 1.0], [9.0, -9.0, 0.0]])
    expected = np.clip(2 * (action - q01) / (q99 - q01 + 1e-8) - 1, -1, 1)
    expected[:, 2] = action[:, 2]
    np.testing.assert_allclose(statistics.normalise_action(action), expected, atol=1e-6)
    back = 0.5 * (expected + 1) * (q99 - q01 + 1e-8) + q01
    back[:, 2] = expected[:, 2]
    np.testing.assert_allclose(statistics.unnormalise_action(expected), back, atol=1e-6)
    for last, scaled in ((3.0, -1.0), (3.1, 1.0), (2.9, -1.0)):  # a dimension in which nothing varied
        expected = [[-0.5, scaled]]
        np.testing.assert_allclose(statistics.normalise_proprio(np.array([[0.25, last]])), expected, atol=1e-6)


def test_without_a_mask_every_dimension_is_normalised():
    bounds = {"action": released.bounds(7), "proprio": released.bounds(7)}
    assert Statistics.from_release(bounds).action_mask == (True,) * 7
    other = {"action": released.bounds(7) | {"q99": [0.5] * 7}, "proprio": released.bounds(7)}
    assert Statistics.from_release(bounds).data != Statistics.from_release(other).data


def test_bounds_without_quantiles_are_refused():
    with pytest.raises(MuvlaError) as info:
        Statistics.from_release({"action": {"mean": [0.0]}, "proprio": released.bounds(7)})
    assert info.value.field == "statistics: action.q01"
