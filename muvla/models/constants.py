"""Numbers of the computation that no weight holds and that a released directory may store beside its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

Channels = tuple[float, float, float]
TEXTBOOK_MEAN, TEXTBOOK_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


@dataclass(frozen=True)
class Constants:
    """Pixel normalisation of both towers, and numbers of the language model.

    A released directory states them in `preprocessor_config.json` and in `text_config`. Defaults are the values of a
    directory that states nothing, and of every policy that is built here.
    """

    dino_mean: Channels = TEXTBOOK_MEAN  # of pixels in [0, 1]
    dino_std: Channels = TEXTBOOK_STD
    siglip_mean: Channels = (0.5, 0.5, 0.5)
    siglip_std: Channels = (0.5, 0.5, 0.5)
    norm_eps: float = 1e-6  # of the language model's norms
    rope_theta: float = 10_000.0  # base of the rotary positions

    def differing(self) -> dict[str, Any]:
        """Returns the constants that are not the defaults, as plain data."""
        default = asdict(Constants())
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value != default[name]
        }


DEFAULT = Constants()
