"""The same networks in JAX: one jitted, donated step with optax, in the shortest loop there is. Imports jax, optax.

Shuffled rows are taken from the data within the step, the fastest of the ways tried.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.peers.clock import Clock
from benchmarks.peers.networks import BETAS, EPS, LR, WEIGHT_DECAY, Network

# `apply(params, buffers, inputs, key) -> (logits, buffers)`
Apply = Callable[[Any, Any, jax.Array, jax.Array], tuple[jax.Array, Any]]
Model = tuple[Any, Any, Apply]  # parameters, buffers, apply

_GENERATOR = np.random.default_rng(0)


def _weights(*shape: int, scale: float | None = None) -> jax.Array:
    fan_in = int(np.prod(shape[:-1]))
    return jnp.asarray(_GENERATOR.standard_normal(shape, dtype=np.float32) * (scale or fan_in**-0.5))


def _dense(inputs: int, outputs: int) -> dict[str, jax.Array]:
    return {"w": _weights(inputs, outputs), "b": jnp.zeros(outputs)}


def _linear(p: Any, x: jax.Array) -> jax.Array:
    return x @ p["w"] + p["b"]


def perceptron(*widths: int) -> Model:
    params = [_dense(a, b) for a, b in pairwise(widths)]

    def apply(params: Any, buffers: Any, x: jax.Array, _key: jax.Array) -> tuple[jax.Array, Any]:
        for layer in params[:-1]:
            x = jax.nn.relu(_linear(layer, x))
        return _linear(params[-1], x), buffers

    return params, (), apply


def digits_cnn(channels: int = 32, dropout: float = 0.2) -> Model:
    """`functrain.models.DigitsCNN`, in the layout that XLA likes best on a CPU (channels last)."""
    sizes = [(1, channels), (channels, channels), (channels, 2 * channels), (2 * channels, 2 * channels)]
    params = {
        "stages": [{"w": _weights(3, 3, a, b), "scale": jnp.ones(b), "bias": jnp.zeros(b)} for a, b in sizes],
        "head": _dense(2 * channels * 16, 10),
    }
    buffers = [{"mean": jnp.zeros(b), "var": jnp.ones(b)} for _, b in sizes]

    def stage(p: Any, old: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        x = jax.lax.conv_general_dilated(x, p["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        count = x.size // x.shape[-1]
        new = {
            "mean": 0.9 * old["mean"] + 0.1 * mean,
            "var": 0.9 * old["var"] + 0.1 * var * count / (count - 1),
        }
        x = (x - mean) * jax.lax.rsqrt(var + 1e-5) * p["scale"] + p["bias"]
        return jax.nn.relu(x), jax.lax.stop_gradient(new)

    def apply(params: Any, buffers: Any, x: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        x, changed = x.transpose(0, 2, 3, 1), []
        for number, (p, old) in enumerate(zip(params["stages"], buffers)):
            x, new = stage(p, old, x)
            changed.append(new)
            if number == 1:
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = x.reshape(len(x), -1)
        x = jnp.where(jax.random.bernoulli(key, 1 - dropout, x.shape), x / (1 - dropout), 0)
        return _linear(params["head"], x), changed

    return params, buffers, apply


def gpt(layers: int, width: int, heads: int, tokens: int, vocabulary: int, dtype: Any = jnp.float32) -> Model:
    """`benchmarks.gpt.GPT`, computing in `dtype`."""
    residual = 0.02 / (2 * layers) ** 0.5

    def dense(inputs: int, outputs: int, scale: float = 0.02) -> dict[str, jax.Array]:
        return {"w": _weights(inputs, outputs, scale=scale), "b": jnp.zeros(outputs)}

    def norm() -> dict[str, jax.Array]:
        return {"scale": jnp.ones(width), "bias": jnp.zeros(width)}

    params = {
        "tokens": _weights(vocabulary, width, scale=0.02),
        "positions": _weights(tokens, width, scale=0.02),
        "blocks": [
            {
                "norm1": norm(),
                "qkv": dense(width, 3 * width),
                "out": dense(width, width, residual),
                "norm2": norm(),
                "up": dense(width, 4 * width),
                "down": dense(4 * width, width, residual),
            }
            for _ in range(layers)
        ],
        "norm": norm(),
    }

    def normalised(p: Any, x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        mean, var = wide.mean(-1, keepdims=True), wide.var(-1, keepdims=True)
        return ((wide - mean) * jax.lax.rsqrt(var + 1e-5) * p["scale"] + p["bias"]).astype(dtype)

    def linear(p: Any, x: jax.Array) -> jax.Array:
        return x @ p["w"].astype(dtype) + p["b"].astype(dtype)

    def attended(p: Any, x: jax.Array) -> jax.Array:
        q, k, v = (part.reshape(*x.shape[:2], heads, -1) for part in jnp.split(linear(p["qkv"], x), 3, axis=-1))
        out = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        return linear(p["out"], out.reshape(x.shape))

    def apply(params: Any, buffers: Any, text: jax.Array, _key: jax.Array) -> tuple[jax.Array, Any]:
        x = (params["tokens"][text] + params["positions"][: text.shape[1]]).astype(dtype)
        for p in params["blocks"]:
            x = x + attended(p, normalised(p["norm1"], x))
            x = x + linear(p["down"], jax.nn.gelu(linear(p["up"], normalised(p["norm2"], x))))
        return normalised(params["norm"], x) @ params["tokens"].T.astype(dtype), buffers

    return params, (), apply


MODELS: dict[str, Callable[[], Model]] = {
    "tiny": lambda: perceptron(64, 64, 64, 10),
    "digits": digits_cnn,
    "transformer": lambda: gpt(4, 192, 6, 128, 256),
    "wide": lambda: perceptron(*[2048] * 9),
}


def mean_loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), targets).mean()


def make_step(apply: Apply, lr: float = LR) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
    """AdamW, and a step `(carry, data, rows) -> (carry, loss)` whose carry is donated."""
    optimizer = optax.adamw(lr, *BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)

    def step(carry: Any, data: Any, rows: jax.Array) -> tuple[Any, jax.Array]:
        params, buffers, opt_state, key = carry
        key, use = jax.random.split(key)
        inputs, targets = (array[rows] for array in data)

        def loss_of(params: Any) -> tuple[jax.Array, Any]:
            logits, new = apply(params, buffers, inputs, use)
            return mean_loss(logits, targets), new

        (loss, buffers), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), buffers, opt_state, key), loss

    return optimizer, jax.jit(step, donate_argnums=0)


def loop(name: str, network: Network, clock: Clock, rounds: int) -> None:
    params, buffers, apply = MODELS[name]()
    optimizer, step = make_step(apply)
    carry = (params, buffers, optimizer.init(params), jax.random.key(0))
    data = tuple(map(jnp.asarray, network.arrays()))
    order = np.random.default_rng(0)
    for _ in range(rounds):
        clock.begin()
        loss = None
        for rows in order.permutation(network.batch * network.steps).reshape(-1, network.batch):
            carry, loss = step(carry, data, rows)
        jax.block_until_ready((carry, loss))
        clock.end()
