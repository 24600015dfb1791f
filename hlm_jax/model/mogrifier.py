"""The Mogrifier LSTM (Melis et al., arXiv 1909.01792) in pre-norm residual layers.

The paper's input gate is at most one minus the forget gate; here it is exactly that. An LSTM
remembers a text in two vectors for each layer, where a transformer keeps keys and values of every
token. So it errs elsewhere, and the two predict better together (docs/lab/28-fewer-bits.md).
"""

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hlm_jax.model.layers import INIT_STD, Dense, DropoutSeeds, RMSNorm, dropout, einsum
from hlm_jax.model.shape import ROUNDS, GPTConfig

GATES_X, GATES_H = "gates_x", "gates_h"  # the gates' matrices, of the input and of the last output


@flax.struct.dataclass
class Memory:
    """What each layer remembers: its output h and its cell c, [B, D] each."""

    outputs: tuple[jax.Array, ...]
    cells: tuple[jax.Array, ...]


def init_memory(cfg: GPTConfig, batch_size: int) -> Memory:
    """The memory before the first token."""
    shape = batch_size, cfg.n_embd
    # Distinct buffers: donation refuses one buffer given twice.
    return Memory(
        tuple(jnp.zeros(shape) for _ in range(cfg.n_layer)),
        tuple(jnp.zeros(shape) for _ in range(cfg.n_layer)),
    )


class Mogrifier(nn.Module):
    """x [B, T, D] -> [B, T, D], cfg.n_layer layers."""

    cfg: GPTConfig
    dtype: str

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        memory: Memory | None = None,
        last_B: jax.Array | None = None,
        seeds: DropoutSeeds | None = None,
    ) -> tuple[jax.Array, Memory]:
        """(outputs, the memory after token `last_B` of every row, the last one for None)."""
        cfg, batch = self.cfg, x_BTD.shape[0]
        memory = memory or init_memory(cfg, batch)
        outputs, cells = [], []
        for i in range(cfg.n_layer):
            layer = Layer(cfg, self.dtype, name=f"layer_{i}")
            y_BTD, h_BTD, c_BTD = layer(x_BTD, memory.outputs[i], memory.cells[i])
            x_BTD += dropout(y_BTD, cfg.dropout, None if seeds is None else seeds.branches[i][0])
            row = jnp.arange(batch), -1 if last_B is None else last_B
            outputs.append(h_BTD[row])
            cells.append(c_BTD[row])
        return x_BTD, Memory(tuple(outputs), tuple(cells))


class Layer(nn.Module):
    """One residual branch: norm, recurrence, projection."""

    cfg: GPTConfig
    dtype: str

    @nn.compact
    def __call__(self, x_BTD: jax.Array, h_BD: jax.Array, c_BD: jax.Array):
        """(what is added to x, the outputs h, the cells c), [B, T, D] each."""
        width = self.cfg.n_embd
        columns = {f"round_{i}": width for i in range(ROUNDS)} | {GATES_X: 3 * width}
        columns |= {GATES_H: 3 * width}
        weights = {name: Kernel(width, n, name=name)() for name, n in columns.items()}
        # The forget gate begins half open: sigmoid(1) = 0.73.
        bias_G = self.param("bias", lambda _: jnp.repeat(jnp.array([1.0, 0.0, 0.0]), width))
        x_BTD = RMSNorm(self.dtype, name="norm")(x_BTD)
        x_TBD = x_BTD.astype(jnp.float32).swapaxes(0, 1)
        outputs, cells = recurrence(self.dtype, weights, bias_G, x_TBD, h_BD, c_BD)
        h_BTD, c_BTD = outputs.swapaxes(0, 1), cells.swapaxes(0, 1)
        out = Dense(width, use_bias=False, dtype=self.dtype, name="out")
        return out(h_BTD).astype(jnp.float32), h_BTD, c_BTD


class Kernel(nn.Module):
    """A matrix [rows, columns]; its name "kernel" is how Muon knows a hidden matrix."""

    rows: int
    columns: int

    @nn.compact
    def __call__(self) -> jax.Array:
        shape = self.rows, self.columns
        return self.param("kernel", nn.initializers.normal(INIT_STD), shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def recurrence(dtype, weights, bias_G, x_TBD, h_BD, c_BD):
    """The outputs and the cells after every token, [T, B, D] each.

    Its derivative by the weights is written out: a product or a sum over all tokens at once.
    Autodiff would add to every matrix's gradient at every token, and so read and write all of them;
    several devices would add theirs together at every token.

    Args:
      weights: {name: matrix}, of ROUNDS rounds and of the gates.
      bias_G: of the forget gate, the new content and the output gate, G = 3 D.
      h_BD, c_BD: output and cell before the first token.
    """
    zeros = _zeros(weights, x_TBD)
    return _scan(dtype, weights, bias_G, zeros, x_TBD, h_BD, c_BD)[0]


def _forward(dtype, weights, bias_G, *rest):
    scan = functools.partial(_scan, dtype, weights, bias_G)
    found, pull, operands = jax.vjp(scan, _zeros(weights, rest[0]), *rest, has_aux=True)
    return found, (pull, operands)


def _backward(dtype, saved, gradient):
    pull, operands = saved
    products, *others = pull(gradient)
    bias_G = products[GATES_X].sum(axis=(0, 1))
    spec = "TBI,TBO->IO"
    weights = {
        name: einsum(spec, operands[name], products[name], dtype, jnp.float32) for name in operands
    }
    return weights, bias_G, *others


recurrence.defvjp(_forward, _backward)


def _zeros(weights, x_TBD):
    """What is added to every product: its derivative is the product's."""
    return {name: jnp.zeros((*x_TBD.shape[:2], w.shape[1])) for name, w in weights.items()}


def _scan(dtype, weights, bias_G, added, x_TBD, h_BD, c_BD):
    """((outputs, cells), what every matrix was multiplied by at every token, {name: [T, B, D]})."""

    def step(carry, inputs):
        (h_BD, c_BD), (x_BD, added) = carry, inputs
        operands = {}

        def product(name, a_BD):
            operands[name] = a_BD
            made = einsum("BI,IO->BO", a_BD, weights[name], dtype, jnp.float32)
            return made + added[name]

        for i in range(ROUNDS):  # x and h scale one another in turn
            name = f"round_{i}"
            if i % 2:
                h_BD = 2 * jax.nn.sigmoid(product(name, x_BD)) * h_BD
            else:
                x_BD = 2 * jax.nn.sigmoid(product(name, h_BD)) * x_BD
        gates_BG = product(GATES_X, x_BD) + product(GATES_H, h_BD) + bias_G
        forget_BD, new_BD, output_BD = jnp.split(gates_BG, 3, axis=-1)
        forget_BD = jax.nn.sigmoid(forget_BD)
        c_BD = forget_BD * c_BD + (1 - forget_BD) * jnp.tanh(new_BD)
        h_BD = jax.nn.sigmoid(output_BD) * jnp.tanh(c_BD)
        return (h_BD, c_BD), ((h_BD, c_BD), operands)

    return jax.lax.scan(step, (h_BD, c_BD), (x_TBD, added))[1]
