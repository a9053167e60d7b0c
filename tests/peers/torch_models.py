# SPDX-License-Identifier: Apache-2.0
"""Exports PyTorch models with random weights: torch_models.py FOLDER writes NAME.onnx, what it is asked (NAME.in.npy) and what
PyTorch answers (NAME.out.npy). Runs in Debian's Python, where Debian's PyTorch is."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Last(nn.Module):
    """The last state of a recurrent network."""

    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.LSTM(6, 12, batch_first=True), nn.Linear(12, 2)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


class Texts(nn.Module):
    """Token ids through an embedding and attention."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(50, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, ids):
        x = self.tokens(ids)
        return torch.softmax(self.head((x + self.attention(x, x, x)[0]).mean(1)), -1)


torch.manual_seed(5)
MODELS = {
    "mlp": (nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 1), nn.Sigmoid()),
            torch.randn(7, 8)),
    "conv": (nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                           nn.Linear(8, 4)), torch.randn(3, 3, 17, 19)),
    "lstm": (Last(), torch.randn(4, 9, 6)),
    "texts": (Texts(), torch.randint(0, 50, (5, 11))),
}
folder = Path(sys.argv[1])
for name, (model, x) in MODELS.items():
    model.eval()
    torch.onnx.export(model, x, str(folder / f"{name}.onnx"), input_names=["x"], output_names=["y"], opset_version=16,
                      dynamic_axes={"x": {0: "N"}, "y": {0: "N"}})
    with torch.no_grad():
        np.save(folder / f"{name}.out.npy", model(x).numpy())
    np.save(folder / f"{name}.in.npy", x.numpy())
