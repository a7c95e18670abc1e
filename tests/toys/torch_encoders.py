"""The published encoders in PyTorch, written from their papers with the names of their checkpoints, and random weights.

Needs torch, except for `random_state`.
"""

import zlib

import numpy as np

# kernel, expanded, out, squeeze-and-excite, hard swish, stride (Howard et al. 2019, table 1)
MOBILENET = [
    (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2), (5, 120, 40, 1, 0, 1),
    (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1),
    (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1), (5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1),
    (5, 960, 160, 1, 1, 1),
]  # fmt: skip


def random_state(shapes):
    """Weights for tensor names and shapes that keep the signal's size; a name's are the same in every network."""
    state = {}
    for name, shape in shapes.items():
        random = np.random.RandomState(zlib.crc32(name.encode()))  # its stream never changes
        if name.endswith("num_batches_tracked"):
            state[name] = np.array(7)
            continue
        if len(shape) > 1:
            value = random.normal(size=shape) * np.sqrt((1 + ("final" not in name)) / np.prod(shape[1:]))
        elif name.endswith(("running_var", "weight")):
            value = random.uniform(0.5, 1.0, shape)
        else:
            value = (0.01 if "final" in name else 0.1) * random.normal(size=shape)
        state[name] = value.astype(np.float32)
    return state


def random_image(size=64):
    return np.random.RandomState(0).uniform(size=(1, size, size, 3)).astype(np.float32)


def run(network, state, image):
    """The network's answer to images [B, H, W, 3], with every tensor of the state in its place."""
    import torch

    network.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()}, strict=True)
    with torch.no_grad():
        return network.eval()(torch.as_tensor(image).permute(0, 3, 1, 2)).numpy()


def encoder(name, sizes):
    """Backbone, mean over the picture, heads: `backbone.*`, `final_layers.*`."""
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = mobilenet() if name == "mobilenet_v3_large" else resnet(name)
            channels = 960 if name == "mobilenet_v3_large" else 2048 if name == "resnet50" else 512
            self.final_layers = nn.ModuleList([nn.Conv2d(channels, size, 1) for size in (*sizes, 3, 27, 2, 1)])

        def forward(self, x):
            import torch

            x = self.backbone(x).mean((2, 3), keepdim=True)
            return torch.cat([layer(x) for layer in self.final_layers], dim=1).flatten(1)

    return Encoder()


def resnet(name, classes=0):
    """torchvision's layout (He et al. 2016, stride in the 3x3 convolution); the classifier is not used."""
    from torch import nn

    def conv(inputs, outputs, kernel, stride=1):
        return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)

    expansion = 4 if name == "resnet50" else 1

    class Block(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            plan = [(inputs, width, 3, stride), (width, width, 3, 1)]
            if expansion == 4:
                plan = [(inputs, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]
            self.count = len(plan)
            for index, (a, b, kernel, step) in enumerate(plan, start=1):
                setattr(self, f"conv{index}", conv(a, b, kernel, step))
                setattr(self, f"bn{index}", nn.BatchNorm2d(b))
            out = plan[-1][1]
            self.downsample = None
            if stride != 1 or inputs != out:
                self.downsample = nn.Sequential(conv(inputs, out, 1, stride), nn.BatchNorm2d(out))

        def forward(self, x):
            y = x
            for index in range(1, self.count + 1):
                y = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(y))
                y = y.relu() if index < self.count else y
            return ((x if self.downsample is None else self.downsample(x)) + y).relu()

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1, self.pool = conv(3, 64, 7, 2), nn.BatchNorm2d(64), nn.MaxPool2d(3, 2, 1)
            inputs = 64
            for stage, count in enumerate((3, 4, 6, 3) if expansion == 4 else (2, 2, 2, 2)):
                width, blocks = 64 * 2**stage, []
                for index in range(count):
                    blocks.append(Block(inputs, width, 2 if stage and not index else 1))
                    inputs = width * expansion
                setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            if classes:
                self.fc = nn.Linear(inputs, classes)

        def forward(self, x):
            x = self.pool(self.bn1(self.conv1(x)).relu())
            return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    return ResNet()


def mobilenet():
    """MobileNetV3-Large with squeeze-and-excite before the activation, without the classifier."""
    from torch import nn

    class HardSigmoid(nn.Module):
        def forward(self, x):
            return nn.functional.relu6(x + 3) / 6

    class HardSwish(nn.Module):
        def forward(self, x):
            return x * nn.functional.relu6(x + 3) / 6

    class SqueezeExcite(nn.Module):
        def __init__(self, channels):
            super().__init__()
            inner = max(8, int(channels / 4 + 4) // 8 * 8)
            inner += 8 if inner < 0.9 * (channels / 4) else 0
            self.fc = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels), HardSigmoid())

        def forward(self, x):
            return x * self.fc(x.mean((2, 3)))[..., None, None]

    class Block(nn.Module):
        def __init__(self, inputs, kernel, expanded, out, squeeze, swish, stride):
            super().__init__()
            activation = HardSwish if swish else nn.ReLU
            layers = []
            if inputs != expanded:
                layers += [nn.Conv2d(inputs, expanded, 1, bias=False), nn.BatchNorm2d(expanded), activation()]
            layers += [
                nn.Conv2d(expanded, expanded, kernel, stride, kernel // 2, groups=expanded, bias=False),
                nn.BatchNorm2d(expanded),
                SqueezeExcite(expanded) if squeeze else nn.Identity(),
                activation(),
                nn.Conv2d(expanded, out, 1, bias=False),
                nn.BatchNorm2d(out),
            ]
            self.conv, self.identity = nn.Sequential(*layers), stride == 1 and inputs == out

        def forward(self, x):
            return x + self.conv(x) if self.identity else self.conv(x)

    class MobileNet(nn.Module):
        def __init__(self):
            super().__init__()
            stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), HardSwish())
            inputs = [16, *(out for _, _, out, *_ in MOBILENET)]
            self.features = nn.Sequential(stem, *(Block(a, *row) for a, row in zip(inputs, MOBILENET, strict=False)))
            self.conv = nn.Sequential(nn.Conv2d(160, 960, 1, bias=False), nn.BatchNorm2d(960), HardSwish())

        def forward(self, x):
            return self.conv(self.features(x))

    return MobileNet()
