"""Compression of vision patches to the perceptual tokens of a bank: fewer channels, as many tokens.

Both squeeze-and-excitation bottlenecks of the published code, with their 1×1 convolutions as linear layers. Every
camera is compressed for itself, and the tokens of the first camera come first.

Legend: B slots, V cameras, P patches, F channels of a patch, d channels of a token.
"""

from __future__ import annotations

from torch import Tensor, nn

SQUEEZE = 16  # the excitation's bottleneck has a sixteenth of the channels


class Excitation(nn.Module):
    """A gate in (0, 1) for each channel, from the camera's mean over patches; (B, V, P, c) → (B, V, 1, c)."""

    def __init__(self, channels: int):
        super().__init__()
        squeezed = max(1, channels // SQUEEZE)
        self.squeeze, self.excite = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)

    def forward(self, z: Tensor) -> Tensor:
        return self.excite(self.squeeze(z.mean(dim=2, keepdim=True)).relu()).sigmoid()


class Compressor(nn.Module):
    """MemoryVLA's order: reduce to 2·d channels, gate these, then reduce to d.

        z = ReLU(W_r x)        p = W_e (z ⊙ s(z))

    Args:
        channels: F.
        width: d.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.reduce = nn.Linear(channels, 2 * width, bias=False)
        self.excitation = Excitation(2 * width)
        self.expand = nn.Linear(2 * width, width, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, V, P, F) → (B, V·P, d)."""
        z = self.reduce(patches).relu()
        return self.expand(z * self.excitation(z)).flatten(1, 2)


class GateFirstCompressor(nn.Module):
    """Dexbotic's order: gate all F channels, then reduce to F/2 and to d.

    Args:
        channels: F.
        width: d.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.excitation = Excitation(channels)
        self.reduce, self.expand = nn.Linear(channels, channels // 2), nn.Linear(channels // 2, width)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, V, P, F) → (B, V·P, d)."""
        return self.expand(self.reduce(patches * self.excitation(patches)).relu()).flatten(1, 2)


def compressor_flops(compressor: Compressor | GateFirstCompressor, patches: int, cameras: int) -> int:
    """Floating-point operations per slot for `patches` patches of all `cameras` cameras together."""
    excitation = compressor.excitation
    once = excitation.squeeze.weight.numel() + excitation.excite.weight.numel()
    return 2 * (patches * (compressor.reduce.weight.numel() + compressor.expand.weight.numel()) + cameras * once)
