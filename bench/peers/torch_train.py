# SPDX-License-Identifier: Apache-2.0
"""PyTorch training the works of bench/train: torch_train.py WORK MODE. Prints one line of JSON once the first step is made, and one
for each line of stdin, which says how many seconds a round lasts: samples, seconds, CPU seconds, peak memory. MODE is words joined
by '+': `fused` (the optimiser as one kernel), `compile` (torch.compile), `nhwc` (channels last), `bf16` (autocast)."""

import json
import os
import resource
import sys
import time

START = time.perf_counter()
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
WORK, MODE = sys.argv[1], set(sys.argv[2].split("+"))
SHAPE = torch.channels_last if "nhwc" in MODE else torch.contiguous_format
torch.set_num_threads(THREADS)
torch.manual_seed(1)


class Mlp(nn.Module):
    def __init__(self, *widths):
        super().__init__()
        layers = []
        for a, b in zip(widths, widths[1:]):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x, y):
        return F.binary_cross_entropy_with_logits(self.layers(x), y)


def conv(a, b, window, stride=1):
    return nn.Sequential(nn.Conv2d(a, b, window, stride, window // 2, bias=False), nn.BatchNorm2d(b))


class Residual(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.first, self.second = conv(a, b, 3, stride), conv(b, b, 3)
        self.beside = nn.Identity() if a == b else conv(a, b, 1, stride)

    def forward(self, x):
        return F.relu(self.second(F.relu(self.first(x))) + self.beside(x))


class ResNet(nn.Module):
    """He et al. 2016, section 4.2, with 1×1 convolutions where the width changes: 6 × blocks + 2 layers."""

    def __init__(self, blocks):
        super().__init__()
        layers, width = [conv(3, 16, 3), nn.ReLU()], 16
        for wide in (16, 32, 64):
            for _ in range(blocks):
                layers.append(Residual(width, wide, 1 if width == wide else 2))
                width = wide
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(64, 10)

    def forward(self, x, y):
        return F.cross_entropy(self.head(self.layers(x).mean((2, 3))).float(), y)


LAYERS, WIDTH, HEADS, STEPS, WORDS = 6, 384, 6, 256, 4096


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        rows, steps, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(rows, steps, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(rows, steps, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    """As GPT-2: norms before, learned places, the words' table is also the last layer."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(STEPS, WIDTH)
        self.blocks, self.norm = nn.ModuleList(Block() for _ in range(LAYERS)), nn.LayerNorm(WIDTH)

    def forward(self, x, y):
        h = self.words(x) + self.places.weight
        for block in self.blocks:
            h = block(h)
        return F.cross_entropy(F.linear(self.norm(h), self.words.weight).view(-1, WORDS).float(), y.view(-1))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.head = nn.LSTM(32, 128, num_layers=2, batch_first=True), nn.Linear(128, 1)

    def forward(self, x, y):
        return F.mse_loss(self.head(self.layers(x)[0][:, -1]), y)


def images(rows):
    return torch.randn(rows, 3, 32, 32).contiguous(memory_format=SHAPE), torch.randint(0, 10, (rows,))


def words(rows):
    return torch.randint(0, WORDS, (rows, STEPS)), torch.randint(0, WORDS, (rows, STEPS))


def table(width):
    return lambda rows: (torch.randn(rows, width), (torch.rand(rows, 1) > 0.5).float())


def adam(weights):
    return torch.optim.Adam(weights, lr=1e-3, fused="fused" in MODE)


def adamw(weights):
    return torch.optim.AdamW(weights, lr=3e-4, fused="fused" in MODE)


def sgd(weights):
    return torch.optim.SGD(weights, lr=0.1, momentum=0.9, fused="fused" in MODE)


# model, data, optimiser, rows of a batch, samples of a row
WORKS = {
    "mlp.b256": (lambda: Mlp(40, 256, 128, 1), table(40), adam, 256, 1),
    "mlp.b4096": (lambda: Mlp(40, 256, 128, 1), table(40), adam, 4096, 1),
    "small.b32": (lambda: Mlp(16, 64, 64, 1), table(16), adam, 32, 1),
    "resnet20": (lambda: ResNet(3), images, sgd, 128, 1),
    "resnet8": (lambda: ResNet(1), images, sgd, 128, 1),
    "gpt": (Gpt, words, adamw, 8, STEPS),
    "lstm": (Lstm, lambda rows: (torch.randn(rows, 64, 32), torch.randn(rows, 1)), adam, 128, 1),
}
make, data, optimiser, rows, per_row = WORKS[WORK]
model = make().to(memory_format=SHAPE)
x, y = data(rows)
optim = optimiser(model.parameters())
loss_of = torch.compile(model) if "compile" in MODE else model


def step():
    optim.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in MODE):
        loss = loss_of(x, y)
    loss.backward()
    optim.step()
    return loss


def say(**what):
    print(json.dumps({**what, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


step().item()
say(first=time.perf_counter() - START, version=torch.__version__)
for _ in range(3):
    step()
for line in sys.stdin:
    steps, cpu, began = 0, time.process_time(), time.perf_counter()
    while (seconds := time.perf_counter() - began) < float(line):
        step()
        steps += 1
    say(samples=steps * rows * per_row, seconds=seconds, cpu=time.process_time() - cpu)
