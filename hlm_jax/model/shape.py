"""The shape of a model and what follows from it. Imports no JAX."""

import dataclasses
from typing import Any

Params = dict[str, Any]  # nested dicts of arrays, by the names of the model's submodules
ROUNDS = 4  # in which input and output of a Mogrifier LSTM scale one another


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """Shape of a GPT and its rate of dropout.

    Attributes:
      form: "gpt2" or "qwen3" (gpt.py describes both), or "mogrifier" (mogrifier.py).
      block_size: the most tokens that the model sees at once.
      dropout: rate at the three sites of GPT-2: embeddings, attention weights, residual branches.
      rope_theta: base of the rotary positions; form "qwen3" only.
      n_kv_head: heads of keys and values, each of which serves n_head / n_kv_head heads of queries
        (Ainslie et al., arXiv 2305.13245); form "qwen3" only. 0: n_head.
      head_dim: width of a head; form "qwen3" only. 0: n_embd / n_head.
      intermediate_size: width inside an MLP. 0: see `hidden_width`.
    """

    form: str
    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    rope_theta: float
    n_kv_head: int = 0
    head_dim: int = 0
    intermediate_size: int = 0

    @property
    def head_width(self) -> int:
        """Width of a head, K."""
        return self.head_dim or self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        """Heads of keys and of values."""
        return self.n_kv_head or self.n_head

    @property
    def qkv_cuts(self) -> tuple[int, int]:
        """Where keys and where values begin among the columns of queries, keys and values."""
        queries = self.n_head * self.head_width
        return queries, queries + self.kv_heads * self.head_width

    @property
    def qkv_width(self) -> int:
        """Columns of queries, keys and values together."""
        return (self.n_head + 2 * self.kv_heads) * self.head_width

    @property
    def hidden_width(self) -> int:
        """Width inside an MLP: 4 x n_embd, or for SwiGLU 8/3 x n_embd, to a multiple of 64 above.

        Both give an MLP the same number of weights. `intermediate_size` stands above the rule.
        """
        by_rule = 4 * self.n_embd if self.form == "gpt2" else -(-8 * self.n_embd // 3 // 64) * 64
        return self.intermediate_size or by_rule

    @property
    def n_parameters(self) -> int:
        """The exact number of parameters; the output shares the token embedding's."""
        d, f, heads = self.n_embd, self.hidden_width, self.n_head * self.head_width
        if self.form == "mogrifier":
            layer = self._mogrifier_matrices + 4 * d  # three biases and a norm
            return self.vocab_size * d + self.n_layer * layer + d
        matrices = d * self.qkv_width + heads * d
        if self.form == "gpt2":
            biases = self.qkv_width + d + f + d
            block, positions, norm = matrices + 2 * d * f + biases, self.block_size * d, 2 * d
        else:
            block, positions, norm = matrices + 3 * d * f + 2 * self.head_width, 0, d
        return self.vocab_size * d + positions + self.n_layer * (block + 2 * norm) + norm

    @property
    def flops_per_token(self) -> int:
        """FLOP of training on one token, forward and backward pass, over a full block.

        6 per weight of a matrix (the tied output counts, the embeddings do not), and
        12 x n_layer x n_head x K x block_size of attention (Chowdhery et al., arXiv 2204.02311, B).
        """
        d, products = self.n_embd, 2 if self.form == "gpt2" else 3
        if self.form == "mogrifier":
            return 6 * (self.n_layer * self._mogrifier_matrices + self.vocab_size * d)
        heads = self.n_head * self.head_width
        weights = self.n_layer * d * (self.qkv_width + heads + products * self.hidden_width)
        attention = 12 * self.n_layer * heads * self.block_size
        return 6 * (weights + self.vocab_size * d) + attention

    @property
    def _mogrifier_matrices(self) -> int:
        """Weights in the matrices of a layer: of the rounds, the gates and the projection."""
        return (ROUNDS + 6 + 1) * self.n_embd**2
