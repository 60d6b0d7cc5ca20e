"""3x3 convs on the small maps at the end of a ResNet, made faster to train in bf16 on a CPU."""

import torch
from torch import nn
from torch.nn import functional

# Of the output and of the input, up to and from which the product is faster: benchmarks/README.md.
LARGEST_SIDE, FEWEST_CHANNELS = 6, 128


class SmallMapConv(nn.Conv2d):
    """A 3x3 conv, padded by one, that computes small maps as one matrix product (im2col); it shares the weight of a plain one.

    On such maps the conv of a CPU with AMX takes up to four times as long, most of it for the gradient of the weight.
    """

    @classmethod
    def replace(cls, conv: nn.Conv2d) -> "SmallMapConv":
        # No random numbers are drawn for weights that are replaced at once.
        new = nn.utils.skip_init(
            cls, conv.in_channels, conv.out_channels, kernel_size=3, stride=conv.stride, padding=1, bias=False
        )
        new.weight = conv.weight
        return new

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        step = self.stride[0]
        height, width = (-(-side // step) for side in maps.shape[2:])
        if max(height, width) > LARGEST_SIDE:
            return super().forward(maps)
        padded = functional.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        shifts = [
            padded[:, y : y + step * height - step + 1 : step, x : x + step * width - step + 1 : step]
            for y in range(3)
            for x in range(3)
        ]
        columns = torch.cat(shifts, dim=3).flatten(0, 2)
        product = functional.linear(columns, self.weight.permute(0, 2, 3, 1).flatten(1))
        return product.view(len(maps), height, width, self.out_channels).permute(0, 3, 1, 2)


def replace_small_map_convs(model: nn.Module) -> None:
    """Put a SmallMapConv in the place of each conv that it can stand for, in place; names and weights stay."""
    for module in list(model.modules()):
        for name, conv in list(module.named_children()):
            if type(conv) is nn.Conv2d and _is_plain(conv) and conv.in_channels >= FEWEST_CHANNELS:
                setattr(module, name, SmallMapConv.replace(conv))


def _is_plain(conv: nn.Conv2d) -> bool:
    shape = (conv.kernel_size, conv.padding, conv.dilation, conv.groups, conv.bias)
    return shape == ((3, 3), (1, 1), (1, 1), 1, None) and conv.stride[0] == conv.stride[1]
