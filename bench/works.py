# SPDX-License-Identifier: Apache-2.0
"""The works that bench/train times: each as dhow's form of it, and the modes in which PyTorch does the same
(peers/torch_train.py), the fastest of which counts. `bound`: how many times as fast dhow is meant to be."""

ADAM = {"kind": "adam", "rate": 0.001, "decay": 0}
ADAMW = {"kind": "adamw", "rate": 0.0003, "decay": 0.01}
SGD = {"kind": "sgd", "rate": 0.1, "momentum": 0.9, "decay": 0}
TABLE = {"input": "numbers", "task": "binary", "outputs": 1, "optimizer": ADAM}
IMAGES = {"input": "array", "shape": [3, 32, 32], "task": "classes", "outputs": 10, "rows": 128, "optimizer": SGD}
EAGER_NETS = ["eager", "fused", "fused+compile"]
GPT = {"model": {"gpt": {"layers": 6, "width": 384, "heads": 6, "vocabulary": 4096}}, "input": "ids", "shape": [256],
       "task": "language", "outputs": 4096, "rows": 8, "optimizer": ADAMW}


def work(peer, bound, unit, modes, **form):
    return {"peer": peer, "bound": bound, "unit": unit, "modes": modes, "form": form}


def resnet(depth, precision, bound):
    modes = ["fused", "fused+nhwc", "fused+nhwc+compile"]
    if precision == "bf16":
        modes = [f"{m}+bf16" for m in modes[1:]]
    return work(f"resnet{depth}", bound, "images/s", modes, **IMAGES, model={"resnet": {"depth": depth}}, precision=precision)


WORKS = {
    "mlp.b256": work("mlp.b256", 2.6, "samples/s", EAGER_NETS, **TABLE, shape=[40], rows=256, model={"mlp": {"hidden": [256, 128]}},
                     precision="f32"),
    "mlp.b4096": work("mlp.b4096", 2.5, "samples/s", EAGER_NETS, **TABLE, shape=[40], rows=4096,
                      model={"mlp": {"hidden": [256, 128]}}, precision="f32"),
    "small.b32": work("small.b32", 8, "samples/s", EAGER_NETS, **TABLE, shape=[16], rows=32, model={"mlp": {"hidden": [64, 64]}},
                      precision="f32"),
    "resnet20.f32": resnet(20, "f32", 1.4),
    "resnet20.bf16": resnet(20, "bf16", 1.5),
    "resnet8.f32": resnet(8, "f32", 1.4),
    "resnet8.bf16": resnet(8, "bf16", 1.4),
    "gpt.f32": work("gpt", 1.8, "tokens/s", ["fused", "fused+compile"], **GPT, precision="f32"),
    "gpt.bf16": work("gpt", 1.3, "tokens/s", ["fused+bf16", "fused+bf16+compile"], **GPT, precision="bf16"),
    "lstm": work("lstm", 1.5, "samples/s", ["fused", "fused+compile"], input="array", shape=[64, 32], task="regression", outputs=1,
                 rows=128, optimizer=ADAM, model={"lstm": {"width": 128, "layers": 2}}, precision="f32"),
}
