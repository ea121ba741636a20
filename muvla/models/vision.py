"""Fused vision: DINOv2 with registers and SigLIP side by side, then the projector (μVLA spec 1.2).

Legend: N image sets, V cameras, P patches, F joined width of the towers, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel, SiglipVisionConfig, SiglipVisionModel

from muvla.config.model import SizeConfig, TowerConfig
from muvla.errors import MuvlaError
from muvla.models.constants import DEFAULT, Channels, Constants
from muvla.models.film import Film, FilmLayer, dino_block, modulate, siglip_block

DINO_REGISTERS = 4


def _tower_kwargs(tower: TowerConfig, size: SizeConfig) -> dict:
    return {
        "hidden_size": tower.width,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "image_size": size.image_size,
        "patch_size": size.patch,
        "layer_norm_eps": 1e-6,
        # The published weights were trained with exact GELU, not with SigLIP's default, the tanh approximation.
        "hidden_act": "gelu",
    }


def _normalisation(mean: Channels, std: Channels) -> tuple[Tensor, Tensor]:
    """Returns (3, 1, 1) scale and shift: normalisation is scale·byte + shift, one pass over the pixels per tower."""
    centre, spread = (torch.tensor(values)[:, None, None] for values in (mean, std))
    return 1 / (255 * spread), -centre / spread


class FusedVision(nn.Module):
    """Maps (N, V, 3, h, w) uint8 images to (N, V·P, D) VISION tokens."""

    def __init__(self, size: SizeConfig, constants: Constants = DEFAULT, fixed_class_position: bool = False):
        """Builds both towers and the projector.

        Args:
            size: sizes of the towers.
            constants: normalisation of the pixels.
            fixed_class_position: the position of DINOv2's class token gets no gradient, as published.
        """
        super().__init__()
        self.size, self.fixed_class_position = size, fixed_class_position
        dino = Dinov2WithRegistersConfig(
            **_tower_kwargs(size.dino, size),
            mlp_ratio=size.dino.mlp // size.dino.width,
            num_register_tokens=DINO_REGISTERS,
        )
        siglip = SiglipVisionConfig(**_tower_kwargs(size.siglip, size), intermediate_size=size.siglip.mlp)
        siglip.vision_use_head = False  # nothing reads the pooling head
        self.dino = Dinov2WithRegistersModel(dino)
        self.siglip = SiglipVisionModel(siglip)
        fused = size.dino.width + size.siglip.width
        self.projector = nn.Sequential(
            nn.Linear(fused, 4 * fused),
            nn.GELU(),
            nn.Linear(4 * fused, size.width),
            nn.GELU(),
            nn.Linear(size.width, size.width),
        )
        for tower, mean, std in (
            ("dino", constants.dino_mean, constants.dino_std),
            ("siglip", constants.siglip_mean, constants.siglip_std),
        ):
            scale, shift = _normalisation(mean, std)
            self.register_buffer(f"{tower}_scale", scale, persistent=False)
            self.register_buffer(f"{tower}_shift", shift, persistent=False)
        self._freeze_unread()

    def _freeze_unread(self) -> None:
        """Freezes the last block and the closing norm: published checkpoints hold them, but features come from before
        them."""
        for unused in (
            self.dino.encoder.layer[-1],
            self.dino.layernorm,
            self.siglip.encoder.layers[-1],
            self.siglip.post_layernorm,
        ):
            unused.requires_grad_(False)
        self.dino.embeddings.mask_token.requires_grad_(False)

    def freeze_towers(self) -> None:
        for tower in (self.dino, self.siglip):
            tower.requires_grad_(False)

    def forward(self, images: Tensor, film: Film | None = None, language: Tensor | None = None) -> Tensor:
        """Computes the VISION tokens. With `film`, language (N, D) modulates the blocks; all cameras of a frame share
        it."""
        return self.project(self.features(images, film, language))

    def features(self, images: Tensor, film: Film | None = None, language: Tensor | None = None) -> Tensor:
        """Returns (N, V, P, F): the features of both towers, joined along the width."""
        n, cameras, _, height, width = images.shape
        if images.dtype != torch.uint8 or (height, width) != (self.size.image_size,) * 2:
            raise MuvlaError(
                "images",
                got=f"{images.dtype} of {height}×{width}",
                expected=f"uint8 of {self.size.image_size}×{self.size.image_size}",
                remedy="set model.size.image_size to the stored size, or collect with this image size",
            )
        bytes_ = images.flatten(0, 1).to(self.dino_scale.dtype)
        dino_pixels = torch.addcmul(self.dino_shift, bytes_, self.dino_scale)
        siglip_pixels = torch.addcmul(self.siglip_shift, bytes_, self.siglip_scale)
        if film is None:
            dino, siglip = self._dino_features(dino_pixels), self._siglip_features(siglip_pixels)
        else:
            language = language.repeat_interleave(cameras, dim=0)
            dino = self._dino_features(dino_pixels, film.dino, language)
            siglip = self._siglip_features(siglip_pixels, film.siglip, language)
        return torch.cat([dino, siglip], dim=-1).unflatten(0, (n, cameras))

    def project(self, features: Tensor) -> Tensor:
        """Projects (N, V, P, F) features to (N, V·P, D) tokens."""
        return self.projector(features.flatten(0, 1)).reshape(len(features), -1, self.size.width)

    def _dino_features(
        self, pixels: Tensor, film: Sequence[FilmLayer] | None = None, language: Tensor | None = None
    ) -> Tensor:
        hidden = self.dino.embeddings(pixels)
        if self.fixed_class_position:  # the same value, and exactly no gradient to the position
            position = self.dino.embeddings.position_embeddings[:, :1]
            first = hidden[:, :1] + (position.detach() - position)
            hidden = torch.cat([first, hidden[:, 1:]], dim=1)
        for i, block in enumerate(self.dino.encoder.layer[:-1]):
            if film is None:
                hidden = _first(block(hidden))
            else:
                hidden = modulate(dino_block, block, film[i], hidden, language)
        return hidden[:, 1 + DINO_REGISTERS :]

    def _siglip_features(
        self, pixels: Tensor, film: Sequence[FilmLayer] | None = None, language: Tensor | None = None
    ) -> Tensor:
        hidden = self.siglip.embeddings(pixels)
        for i, block in enumerate(self.siglip.encoder.layers[:-1]):
            if film is None:
                hidden = _first(block(hidden, None))
            else:
                hidden = modulate(siglip_block, block, film[i], hidden, language)
        return hidden


def _first(output: Tensor | tuple) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
