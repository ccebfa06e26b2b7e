"""EfficientNet-Lite0 without its classifier, as torch modules named as in the published weights.

EfficientNet-B0 without squeeze-and-excitation and with ReLU6 (Tan and Le 2019, arXiv 1905.11946; "lite":
github.com/tensorflow/tpu, models/official/efficientnet/lite). TensorFlow pads unevenly, which is done here by
hand. Checked against the package `efficientnet-lite-pytorch` 0.1.0: equal to the last bit; that package is
1,300 lines for this one network and its larger kin, so it is not needed.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

# blocks, kernel, stride of the first block, expansion, channels in, channels out
GROUPS = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
STEM, HEAD = 32, 1280  # channels
EPSILON = 1e-3  # of batch normalisation, as in TensorFlow


class Network(nn.Module):
    """Images (n, 3, h, w) -> features (n, 1280): the mean over places before the classifier."""

    def __init__(self) -> None:
        """Make the modules; weights come from `load_state_dict`."""
        super().__init__()
        self._conv_stem, self._bn0 = _Convolution(3, STEM, 3, 2), _norm(STEM)
        self._blocks = nn.ModuleList(
            _Block(kernel, 1 if later else stride, expansion, wide if later else narrow, wide)
            for blocks, kernel, stride, expansion, narrow, wide in GROUPS
            for later in range(blocks)
        )
        self._conv_head, self._bn1 = _Convolution(GROUPS[-1][-1], HEAD), _norm(HEAD)

    def forward(self, images: Tensor) -> Tensor:
        """Give the features."""
        x = functional.relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            x = block(x)
        features: Tensor = functional.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))
        return features


class _Block(nn.Module):
    """Widen, look around in each channel, narrow; added to what came in where the shapes are the same."""

    def __init__(self, kernel: int, stride: int, expansion: int, narrow: int, wide: int) -> None:
        super().__init__()
        inner = narrow * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and narrow == wide
        if self.expands:
            self._expand_conv, self._bn0 = _Convolution(narrow, inner), _norm(inner)
        self._depthwise_conv = _Convolution(inner, inner, kernel, stride, groups=inner)
        self._bn1 = _norm(inner)
        self._project_conv, self._bn2 = _Convolution(inner, wide), _norm(wide)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        added: Tensor = x + y if self.adds else y
        return added


class _Convolution(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: an odd rest goes to the lower right."""

    def __init__(self, narrow: int, wide: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(narrow, wide, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        rests = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[:1:-1]]
        edges = [edge for rest in rests for edge in (rest // 2, rest - rest // 2)]
        return super().forward(functional.pad(x, edges) if any(edges) else x)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)


def load(path: str) -> Network:
    """Give the network with the weights of a state dict; KeyError and the like where they are others'."""
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network = Network()
    network.load_state_dict({name: one for name, one in weights.items() if not name.startswith("_fc.")})
    return network.eval()
