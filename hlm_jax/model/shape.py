"""The shape of a model and what follows from it. Imports no JAX."""

import dataclasses
from typing import Any

Params = dict[str, Any]  # nested dicts of arrays, by the names of the model's submodules


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """Shape of a GPT and its rate of dropout.

    Attributes:
      form: "gpt2" or "qwen3" (gpt.py describes both).
      block_size: the most tokens that the model sees at once.
      dropout: rate at the three sites of GPT-2: embeddings, attention weights, residual branches.
      rope_theta: base of the rotary positions; form "qwen3" only.
    """

    form: str
    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    rope_theta: float

    @property
    def head_width(self) -> int:
        return self.n_embd // self.n_head

    @property
    def hidden_width(self) -> int:
        """4 x n_embd, or for SwiGLU 8/3 x n_embd rounded up to a multiple of 64.

        Both give an MLP the same number of weights.
        """
        return 4 * self.n_embd if self.form == "gpt2" else -(-8 * self.n_embd // 3 // 64) * 64

    @property
    def n_parameters(self) -> int:
        """The exact number of parameters; the output shares the token embedding's."""
        d, f = self.n_embd, self.hidden_width
        if self.form == "gpt2":
            qkv, out = 3 * d * d + 3 * d, d * d + d
            up, down = d * f + f, f * d + d
            block, positions, norm = qkv + out + up + down, self.block_size * d, 2 * d
        else:
            block, positions, norm = 4 * d * d + 3 * d * f + 2 * self.head_width, 0, d
        return self.vocab_size * d + positions + self.n_layer * (block + 2 * norm) + norm

    @property
    def flops_per_token(self) -> int:
        """FLOP of training on one token, forward and backward pass, over a full block.

        6 per weight of a matrix (the tied output counts, the embeddings do not), and
        12 x n_layer x n_embd x block_size of attention (Chowdhery et al., arXiv 2204.02311, B).
        """
        d, products = self.n_embd, 2 if self.form == "gpt2" else 3
        weights = self.n_layer * (4 * d * d + products * d * self.hidden_width)
        attention = 12 * self.n_layer * d * self.block_size
        return 6 * (weights + self.vocab_size * d) + attention
