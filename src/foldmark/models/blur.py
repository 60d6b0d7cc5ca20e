"""Anti-aliasing for ResNets: blur before every subsampling (Zhang 2019, Making Convolutional Networks Shift-Invariant
Again). A blur has no weights, so a plain ResNet's weights load into a blurred one."""

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torchvision.models import ResNet

# The places where torchvision's ResNets subsample after their first conv.
STAGES = {"all": ("maxpool", "layer2", "layer3", "layer4"), "early": ("maxpool", "layer2"), "late": ("layer3", "layer4")}


class BlurPool(nn.Module):
    """Blur each channel with a binomial filter of `taps` x `taps` and keep every second pixel."""

    kernel: torch.Tensor

    def __init__(self, taps: int) -> None:
        super().__init__()
        row = torch.tensor([math.comb(taps - 1, k) for k in range(taps)], dtype=torch.float32)
        self.register_buffer("kernel", torch.outer(row, row) / row.sum() ** 2, persistent=False)
        self.padding = [(taps - 1) // 2, taps // 2] * 2

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        channels = maps.shape[1]
        # Repeat the edge values: zeros would darken the rim.
        padded = functional.pad(maps, self.padding, mode="replicate")
        return functional.conv2d(padded, self.kernel.expand(channels, 1, -1, -1), stride=2, groups=channels)


class BlurredConv(nn.Conv2d):
    """A square conv that sees its input blurred and halved; its weights have the names of the plain conv's."""

    def __init__(self, conv: nn.Conv2d, taps: int) -> None:
        side, padding = conv.kernel_size[0], conv.padding[0]
        super().__init__(conv.in_channels, conv.out_channels, side, padding=int(padding), bias=conv.bias is not None)
        self.load_state_dict(conv.state_dict())
        self.blur = BlurPool(taps)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return super().forward(self.blur(maps))


def anti_alias(net: "ResNet", where: str, taps: int) -> "ResNet":
    """Put a blur before the subsampling of these stages of torchvision's ResNet, in place.

    The strided max-pool becomes a dense one and a blur; a strided block computes its strided conv densely and blurs before
    the next one, and blurs its shortcut before the 1x1 conv. The first conv keeps its stride: computed densely, it would take
    four times as many operations.
    """
    for stage in STAGES[where]:
        if stage == "maxpool":
            net.maxpool = nn.Sequential(nn.MaxPool2d(kernel_size=3, stride=1, padding=1), BlurPool(taps))
            continue
        block = getattr(net, stage)[0]
        # A bottleneck subsamples in the second of its three convs, a basic block in the first of two.
        strided, following = ("conv2", "conv3") if hasattr(block, "conv3") else ("conv1", "conv2")
        getattr(block, strided).stride = (1, 1)
        setattr(block, following, BlurredConv(getattr(block, following), taps))
        block.downsample[0] = BlurredConv(block.downsample[0], taps)
    return net
