"""The network of `demo-parts`: a small one-scale detector whose output has the layout of FastestDet.

One output, [1, 5 + C, H / 8, W / 8]: channel 0 says whether a cell is next to the centre of a defect (0 to 1),
channels 1 to 4 are the box (tanh of x and y is the centre's offset from the cell's corner, in cells; sigmoid of w and h
is the size as a fraction of the picture), the others are the classes (they add up to 1).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

LABELS: Final = ("scratch", "dent", "missing_hole")
STRIDE: Final = 8


def _step(channels_in: int, channels_out: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


class PartsNet(nn.Module):
    """Three halvings, then residual steps that see ever wider: a missing hole is only missing beside the others.

    Args:
        width: channels after the first halving; four times that after the third.
        dilations: of the residual steps.
    """

    def __init__(self, width: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        deep = 4 * width
        self.stem = nn.Sequential(_step(3, width, 2), _step(width, 2 * width, 2), _step(2 * width, deep, 2))
        self.body = nn.ModuleList(_step(deep, deep, dilation=dilation) for dilation in dilations)
        self.head = nn.Conv2d(deep, 5 + len(LABELS), 1)
        nn.init.constant_(self.head.bias[:1], -4.0)  # few cells hold a defect

    def raw(self, pictures: Tensor) -> Tensor:
        """Return the head before its activations, which is what the losses want."""
        values: Tensor = self.stem(pictures)
        for step in self.body:
            values = values + step(values)
        result: Tensor = self.head(values)
        return result

    def forward(self, pictures: Tensor) -> Tensor:
        """Args: pictures (1, 3, H, W), BGR, 0 to 1."""
        raw = self.raw(pictures)
        return torch.cat([raw[:, :1].sigmoid(), raw[:, 1:5], raw[:, 5:].softmax(dim=1)], dim=1)
