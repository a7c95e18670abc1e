"""dlib's network in plain numpy (float64) from the layers of its file, and ArcFace's in PyTorch."""

import numpy as np


def correlate(x, kernel, bias, stride, pad):
    """x [C, H, W], kernel [O, C, k, k] -> [O, h, w]: every window times the kernel, zeros around x."""
    size = kernel.shape[-1]
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("chwij,ocij->ohw", windows, kernel, optimize=True) + bias[:, None, None]


def pooled(x, size, stride, reduce):
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    return reduce(windows, axis=(-2, -1))


def sum_of_both(x, y):
    total = np.zeros(np.maximum(x.shape, y.shape))
    for one in (x, y):
        total[tuple(slice(0, n) for n in one.shape)] += one
    return total


def dlib_features(layers, image):
    """Layer after layer as the file lists them. image [150, 150, 3] in [0, 1] -> 128 numbers."""
    x = ((255 * image.astype(np.float64) - layers[0].parameters) / 256).transpose(2, 0, 1)
    relus, skip = 0, None
    for kind, parameters, settings in layers[1:]:
        values = parameters.astype(np.float64)
        if kind == "con_4":
            outputs, size, _, stride, _, pad, _ = settings
            x = correlate(x, values[:-outputs].reshape(outputs, -1, size, size), values[-outputs:], stride, pad)
        elif kind == "affine_":
            gain, offset = values.reshape(2, -1, 1, 1)
            x = gain * x + offset
        elif kind == "relu_":
            x, relus = np.maximum(x, 0), relus + 1
        elif kind == "max_pool_2":
            x = pooled(x, 3, 2, np.max)
        elif kind == "avg_pool_2" and settings[0] == 2:
            skip = pooled(skip, 2, 2, np.mean)
        elif kind == "avg_pool_2":
            x = x.mean((1, 2))
        elif kind == "add_prev_":
            x = sum_of_both(x, skip)
        elif kind == "fc_2":
            x = x @ values.reshape(settings[1], settings[0])
        # A block begins behind the stem's pooling and behind every second ReLU, the one that ends the block before.
        if kind == "max_pool_2" or (kind == "relu_" and relus > 1 and relus % 2 == 1):
            skip = x
    return x


def torch_iresnet(torch, blocks, width, features):
    """The network of ArcFace's authors, from its description: names and order of modules are the checkpoints'."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.bn1 = nn.BatchNorm2d(inputs)
            self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.prelu = nn.PReLU(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
            self.bn3 = nn.BatchNorm2d(outputs)
            self.downsample = None
            if stride == 2:
                shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x)))))
            return self.bn3(y) + (x if self.downsample is None else self.downsample(x))

    def stage(index, count):
        inputs, outputs = width * 2 ** max(index - 1, 0), width * 2**index
        return nn.Sequential(*(Block(outputs if k else inputs, outputs, 1 if k else 2) for k in range(count)))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.prelu = nn.PReLU(width)
            for index, count in enumerate(blocks):
                setattr(self, f"layer{index + 1}", stage(index, count))
            self.bn2 = nn.BatchNorm2d(8 * width)
            self.fc = nn.Linear(8 * width * 49, features)
            self.features = nn.BatchNorm1d(features)

        def forward(self, x):
            x = self.prelu(self.bn1(self.conv1(x)))
            x = self.bn2(self.layer4(self.layer3(self.layer2(self.layer1(x)))))
            return self.features(self.fc(x.flatten(1)))

    return Network().eval()
