# SPDX-License-Identifier: Apache-2.0
"""A GPT in JAX, from the same weights on the same windows of a text as ours: jax_gpt.py WORK PLACES, both JSON (what bench/engine was
given, and its line of where each parameter lies). With "windows", an .npy of ids, all of these are the batch of each step. Prints the loss of
each step."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

work, places = json.loads(sys.argv[1]), json.loads(sys.argv[2])
gpt, rows, length = work["model"]["gpt"], work["rows"], work["shape"][0]
block = np.fromfile(work["weights"], np.float32)
weights = {name: jnp.asarray(block[at:at + int(np.prod(shape))].reshape(shape)) for name, (at, *shape) in places.items()}
MASK = (1 << 64) - 1


def splitmix(state):
    """Steele et al. 2014: as src/base has it; the state and a number."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return state, z ^ (z >> 31)


def norm(w, name, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred ** 2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.scale"] + w[f"{name}.bias"]


def dense(w, name, x):
    return x @ w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(w, name, x):
    heads = gpt["heads"]
    q, k, v = jnp.moveaxis(dense(w, f"{name}.qkv", x).reshape(*x.shape[:2], 3, heads, -1), (2, 3), (0, 2))
    score = jnp.einsum("bhqd,bhkd->bhqk", q, k) / np.sqrt(q.shape[-1])
    score = jnp.where(np.tril(np.ones((length, length), bool)), score, -jnp.inf)
    seen = jnp.einsum("bhqk,bhkd->bqhd", jax.nn.softmax(score), v)
    return dense(w, f"{name}.out", seen.reshape(x.shape))


def loss(w, x, y):
    h = w["tokens.weight"][x] + w["places.weight"]
    for i in range(1, gpt["layers"] + 1):
        h = h + attention(w, f"block{i}", norm(w, f"block{i}.norm1", h))
        inside = jax.nn.gelu(dense(w, f"block{i}.up", norm(w, f"block{i}.norm2", h)), approximate=False)
        h = h + dense(w, f"block{i}.down", inside)
    logits = norm(w, "norm", h) @ w["tokens.weight"].T
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], -1).mean()


@jax.jit
def adamw(w, m, v, n, x, y):
    o = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, **work["optimizer"]}
    value, g = jax.value_and_grad(loss)(w, x, y)
    m = jax.tree.map(lambda m, g: o["beta1"] * m + (1 - o["beta1"]) * g, m, g)
    v = jax.tree.map(lambda v, g: o["beta2"] * v + (1 - o["beta2"]) * g * g, v, g)
    def step(w, m, v):
        decay = o["decay"] if w.ndim >= 2 else 0
        return w - o["rate"] * (m / (1 - o["beta1"] ** n) / (jnp.sqrt(v / (1 - o["beta2"] ** n)) + o["epsilon"]) + decay * w)
    return jax.tree.map(step, w, m, v), m, v, value


def batches():
    if "windows" in work:
        while True:
            yield np.load(work["windows"])
    text, state = np.fromfile(work["text"], np.uint8), 1
    ids = np.searchsorted(np.unique(text), text).astype(np.int32)
    while True:
        starts = []
        for _ in range(rows):
            state, number = splitmix(state)
            starts.append(number % (len(ids) - length - 1))
        yield np.stack([ids[s:s + length + 1] for s in starts])


m = v = jax.tree.map(jnp.zeros_like, weights)
for n, windows in zip(range(1, work["steps"] + 1), batches()):
    weights, m, v, value = adamw(weights, m, v, float(n), windows[:, :-1], windows[:, 1:])
    print(f"{float(value):.7g}", flush=True)
