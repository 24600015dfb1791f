"""Many token sequences of many texts, read at once: a tree of keys and values per text.

Hypotheses of one text share almost all of their tokens. A KV cache with one row per text holds the
tokens of all its hypotheses, every token once, and a token attends to the slots of its own
ancestors (as in SpecInfer, Miao et al., arXiv 2305.09781). Nothing is copied when a hypothesis
branches. An LSTM's memory of a hypothesis is two vectors a layer, which every hypothesis keeps.
Axis letters: hlm_jax/model/__init__.py; here B are texts, T new tokens of a text.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hlm_jax.measures.progress import Progress
from hlm_jax.model.gpt import GPT, Block, GPTConfig, KVCache, init_cache
from hlm_jax.model.layers import LayerNorm, RMSNorm, einsum
from hlm_jax.model.mogrifier import Memory, init_memory
from hlm_jax.model.shape import Params

TEXTS = 32  # side by side
WIDTH = 2  # new tokens of one text in one call, where it is alone; of all texts, one each at least
BLOCKS = 3  # of slots in a text's cache, to begin with


@dataclasses.dataclass(eq=False, slots=True)
class Node:
    """A hypothesis: a token sequence, as its last token sees it.

    Attributes:
      ids: int32, the tokens of its window; the last one is the newest.
      slots: int32, where the cache holds them; none of an LSTM's.
      p: float32, probabilities of the next token, one per column of the reader.
      slid: the same sequence in the next window, once a child needed it.
      memory: of an LSTM after its tokens, float32 arrays [D].
    """

    ids: np.ndarray
    slots: np.ndarray
    p: np.ndarray
    slid: "Node | None" = None
    memory: Memory | None = None

    def windows(self) -> list[np.ndarray]:
        """The slots that must stay for children of this node."""
        return [self.slots] if self.slid is None else [self.slots, self.slid.slots]


class _TreeGPT(nn.Module):
    """GPT of model/gpt.py with positions and mask given: the same parameters, the same numbers."""

    cfg: GPTConfig
    dtype: str

    @nn.compact
    def __call__(self, tokens_BT, position_BT, mask_BTS, cache: KVCache, start):
        cfg = self.cfg
        initial = nn.initializers.zeros
        embedding_VD = self.param("token_embedding", initial, (cfg.vocab_size, cfg.n_embd))
        x_BTD = embedding_VD[tokens_BT]
        if cfg.form == "gpt2":
            table = self.param("position_embedding", initial, (cfg.block_size, cfg.n_embd))
            x_BTD += table[position_BT]
        keys, values = [], []
        for i in range(cfg.n_layer):
            block = Block(cfg, self.dtype, "xla", None, name=f"block_{i}")
            kv = cache.keys[i], cache.values[i]
            x_BTD, kv = block(x_BTD, position_BT, mask_BTS, False, kv, start, None)
            keys.append(kv[0])
            values.append(kv[1])
        norm = RMSNorm if cfg.form == "qwen3" else LayerNorm
        x_BTD = norm(self.dtype, name="final_norm")(x_BTD)
        logits_BTV = einsum("BTD,VD->BTV", x_BTD, embedding_VD, self.dtype, jnp.float32)
        return logits_BTV, KVCache(tuple(keys), tuple(values))


class _Program:
    """The compiled functions of one shape."""

    def __init__(self, model: GPT, texts: int, width: int, slots: int):
        self.cfg, self.texts, self.width, self.slots = model.cfg, texts, width, slots
        self._tree = _TreeGPT(model.cfg, model.dtype)
        self._dtype = model.dtype
        self.read = jax.jit(self._read, donate_argnames="cache")
        self.reread = jax.jit(self._reread, donate_argnames="cache")
        self.move = jax.jit(self._move, donate_argnames="cache")

    def empty(self) -> KVCache:
        """A cache whose arrays begin with an axis of texts: [B, H, S, K]."""
        one = init_cache(self.cfg, 1, self.slots, self._dtype)
        return jax.tree.map(lambda x: jnp.zeros((self.texts, *x.shape), x.dtype), one)

    def _one(self, params, cache, tokens_T, position_T, mask_TS, start):
        logits_BTV, cache = self._tree.apply(
            {"params": params}, tokens_T[None], position_T[None], mask_TS[None], cache, start
        )
        return logits_BTV[0], cache

    def _read(self, params, cache, tokens_BT, position_BT, mask_BTS, start_B, columns_C):
        """(probabilities [B, T, C], the cache with these tokens from slot `start` on)."""
        each = jax.vmap(self._one, (None, 0, 0, 0, 0, 0))
        logits_BTV, cache = each(params, cache, tokens_BT, position_BT, mask_BTS, start_B)
        return _probabilities(logits_BTV, columns_C), cache

    def _reread(self, params, cache, text, tokens_T, start):
        """The cache with a sequence in positions 0, 1, … written from slot `start` of a text on."""
        slot_T = jnp.arange(len(tokens_T))
        slot_S = jnp.arange(self.slots)
        mask_TS = (slot_S >= start) & (slot_S[None] <= start + slot_T[:, None])
        one = jax.tree.map(lambda x: x[text], cache)
        _, one = self._one(params, one, tokens_T, slot_T, mask_TS, start)
        return jax.tree.map(lambda x, new: x.at[text].set(new), cache, one)

    def _move(self, cache, source_BS):
        """The cache with slot s of every text taken from slot source[s]."""
        take = jax.vmap(lambda x, source_S: x[:, source_S])
        return jax.tree.map(lambda x: take(x, source_BS), cache)


def _probabilities(logits_BTV, columns_C):
    """Of the tokens of the columns, at least the least normal number: 0 has no logarithm."""
    p_BTC = jax.nn.softmax(logits_BTV, axis=-1)[..., columns_C]
    return jnp.maximum(p_BTC, jnp.finfo(jnp.float32).tiny)


@functools.lru_cache(maxsize=8)
def _program(model: GPT, texts: int, width: int, slots: int) -> _Program:
    return _Program(model, texts, width, slots)


Request = tuple[Node | None, int]  # a hypothesis and the token that continues it


class Reader:
    """Reads tokens of hypotheses of up to `texts` texts with one compiled function.

    A hypothesis is seen through the window that measures/score.py gives its last token: of its own
    tokens, by their number. A window that is full slides by half a block: its later half is read
    again from position 0.

    Args:
      model, params: of the language model.
      columns: the tokens whose probabilities nodes hold.
      texts: how many texts are read side by side.
      width: new tokens of a text in one call.
      slots: of a text's cache to begin with; it grows where hypotheses need more.
      live: the nodes of a text that may still get children.

    Attributes:
      params: may be replaced between calls.
    """

    def __init__(
        self,
        model: GPT,
        params: Params,
        columns: np.ndarray,
        *,
        texts: int,
        width: int,
        slots: int,
        live: Callable[[int], Iterable[Node]],
    ):
        block = model.cfg.block_size
        self._block, self._kept = block, block - max(1, block // 2)
        self._program = _program(model, texts, width, slots)
        self._model, self._live = model, live
        self.params = params
        self._columns = jnp.asarray(columns)
        self._cache = self._program.empty()
        self._used = np.zeros(texts, np.int32)  # slots of every text, from the left
        self.width = width
        self.calls = self.tokens = self.rereads = 0

    def clear(self, text: int) -> None:
        """Forgets all hypotheses of a text."""
        self._used[text] = 0

    def read(self, requests: Sequence[tuple[int, Request]]) -> list[Node]:
        """A node for every request; at most `width` requests of one text.

        Args:
          requests: (text, (parent or None, token)).
        """
        self._make_room(requests)
        parents = [self._window(text, parent) for text, (parent, _) in requests]
        program = self._program
        shape = program.texts, program.width
        tokens_BT, position_BT = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        mask_BTS = np.zeros((*shape, program.slots), bool)
        column = np.zeros(program.texts, np.int32)
        places = []
        for (text, (_, token)), (ids, slots) in zip(requests, parents, strict=True):
            t = int(column[text])
            slot = int(self._used[text]) + t
            column[text] += 1
            tokens_BT[text, t], position_BT[text, t] = token, len(ids)
            mask_BTS[text, t, slots] = mask_BTS[text, t, slot] = True
            places.append((text, t, np.append(ids, token), np.append(slots, slot)))
        p_BTC, self._cache = program.read(
            self.params,
            self._cache,
            tokens_BT,
            position_BT,
            mask_BTS,
            self._used.copy(),
            self._columns,
        )
        self._used += column
        self.calls += 1
        self.tokens += len(requests)
        p_BTC = np.asarray(p_BTC)
        return [Node(ids, slots, p_BTC[text, t]) for text, t, ids, slots in places]

    def _window(self, text: int, parent: Node | None) -> tuple[np.ndarray, np.ndarray]:
        """(ids, slots) of the window in which a child of `parent` is read, without the child."""
        if parent is None:
            return np.zeros(0, np.int32), np.zeros(0, np.int32)
        if len(parent.ids) < self._block:
            return parent.ids, parent.slots
        if parent.slid is None:
            kept, start = self._kept, int(self._used[text])
            ids = parent.ids[len(parent.ids) - kept :]
            if kept:
                self._cache = self._program.reread(self.params, self._cache, text, ids, start)
                self._used[text] += kept
                self.rereads += 1
            slots = np.arange(start, start + kept, dtype=np.int32)
            parent.slid = Node(ids, slots, parent.p)
        return parent.slid.ids, parent.slid.slots

    def _make_room(self, requests: Sequence[tuple[int, Request]]) -> None:
        """Moves the slots that are still needed to the left, where a text has too few left."""
        needed = np.full(len(self._used), self.width)
        for parent, text in {(parent, text) for text, (parent, _) in requests}:
            full = parent is not None and len(parent.ids) == self._block and parent.slid is None
            needed[text] += self._kept if full else 0
        if (self._used + needed <= self._program.slots).all():
            return
        source_BS = np.zeros((len(self._used), self._program.slots), np.int32)
        for text in range(len(self._used)):
            nodes = list(dict.fromkeys(self._live(text))) if self._used[text] else []
            windows = [slots for node in nodes for slots in node.windows()]
            kept = np.unique(np.concatenate(windows)) if windows else np.zeros(0, np.int32)
            source_BS[text, : len(kept)] = kept
            place = np.zeros(self._program.slots, np.int32)
            place[kept] = np.arange(len(kept))
            for node in nodes:
                node.slots = place[node.slots]
                if node.slid is not None:
                    node.slid.slots = place[node.slid.slots]
            self._used[text] = len(kept)
        self._cache = self._program.move(self._cache, source_BS)
        slots = self._program.slots
        while (self._used + needed > slots - slots // 8).any():  # or it would soon be full again
            slots *= 2
        if slots > self._program.slots:
            more = [(0, 0), (0, 0), (0, slots - self._program.slots), (0, 0)]
            self._cache = jax.tree.map(lambda x: jnp.pad(x, more), self._cache)
            self._program = _program(self._model, self._program.texts, self.width, slots)


class MemoryReader:
    """What Reader is, for a Mogrifier LSTM: the same windows, without a cache.

    Args:
      model, params, columns, width: as Reader.
      texts: how many texts are read side by side.
    """

    def __init__(self, model: GPT, params: Params, columns: np.ndarray, *, texts: int, width: int):
        block = model.cfg.block_size
        self._block, self._kept = block, block - max(1, block // 2)
        self._rows, self.width = texts * width, width
        self._empty = jax.tree.map(lambda x: np.asarray(x[0]), init_memory(model.cfg, 1))
        self._read = functools.partial(_read_on, model, jnp.asarray(columns))
        self.params = params

    def clear(self, text: int) -> None:
        """Nothing: hypotheses keep what they remember themselves."""

    def read(self, requests: Sequence[tuple[int, Request]]) -> list[Node]:
        """As Reader.read."""
        parents = [self._window(parent) for _, (parent, _) in requests]
        spare = self._rows - len(requests)
        rows = [memory for _, memory in parents] + [self._empty] * spare
        tokens_R1 = np.array([[token] for _, (_, token) in requests] + [[0]] * spare, np.int32)
        memory_R = jax.tree.map(lambda *x: np.stack(x), *rows)
        p_RC, memory_R = jax.device_get(self._read(self.params, tokens_R1, memory_R))
        found = []
        for row, ((ids, _), (_, (_, token))) in enumerate(zip(parents, requests, strict=True)):
            memory = jax.tree.map(lambda x, row=row: x[row].copy(), memory_R)
            ids, none = np.append(ids, np.int32(token)), np.zeros(0, np.int32)
            found.append(Node(ids, none, p_RC[row].copy(), memory=memory))
        return found

    def _window(self, parent: Node | None) -> tuple[np.ndarray, Memory]:
        """(ids, memory) of the window in which a child of `parent` is read, without the child."""
        if parent is None:
            return np.zeros(0, np.int32), self._empty
        if len(parent.ids) < self._block:
            assert parent.memory is not None
            return parent.ids, parent.memory
        if parent.slid is None:
            ids, memory = parent.ids[len(parent.ids) - self._kept :], self._empty
            if self._kept:
                one = jax.tree.map(lambda x: x[None], memory)
                _, one = jax.device_get(self._read(self.params, ids[None], one))
                memory = jax.tree.map(lambda x: x[0], one)
            parent.slid = Node(ids, np.zeros(0, np.int32), parent.p, memory=memory)
        assert parent.slid.memory is not None
        return parent.slid.ids, parent.slid.memory


@functools.partial(jax.jit, static_argnums=0)
def _read_on(model: GPT, columns_C, params, tokens_RT, memory):
    """(probabilities after the last token of every row, [R, C], the memory after it)."""
    last_R = jnp.full(len(tokens_RT), tokens_RT.shape[1] - 1)
    logits_R1V, memory = model.apply({"params": params}, tokens_RT, cache=memory, last_B=last_R)
    return _probabilities(logits_R1V[:, 0], columns_C), memory


class Search(Protocol):
    """What reads one text by asking for nodes.

    Attributes:
      size, done: of its work in all, and so far.
    """

    size: int
    done: int

    def scan(self) -> Generator[list[Request], list[Node], None]:
        """Yields requests, one at least, and is sent their nodes."""

    def live(self) -> Iterable[Node]:
        """The nodes that may still get children, those of the requests that wait among them."""


def read_all(
    model: GPT,
    params: Params,
    columns: np.ndarray,
    searches: Sequence[Search],
    progress: Progress | None = None,
    update: Callable[[], Params] | None = None,
) -> None:
    """Runs searches side by side until all are done, the largest first.

    Args:
      model, params, columns: as Reader.
      progress: told (work done, all work).
      update: after every call of the model, the parameters to read on with. What was read before
        stays as older ones have read it, until a window slides.
    """
    lanes: list[_Lane | None] = [None] * min(TEXTS, len(searches))
    width = max(1, WIDTH // max(1, len(lanes)))
    common: dict[str, Any] = {"texts": len(lanes), "width": width}
    reader: Reader | MemoryReader
    if model.cfg.form == "mogrifier":
        reader = MemoryReader(model, params, columns, **common)
    else:
        reader = Reader(
            model,
            params,
            columns,
            **common,
            slots=BLOCKS * model.cfg.block_size,
            live=lambda number: lane.live() if (lane := lanes[number]) else (),
        )
    waiting = sorted(searches, key=lambda search: search.size)
    total, told = sum(search.size for search in searches), 0
    while waiting or any(lanes):
        for number, lane in enumerate(lanes):
            if lane is None and waiting:
                reader.clear(number)
                lanes[number] = _Lane(waiting.pop())
        asked = [
            (number, request)
            for number, lane in enumerate(lanes)
            if lane
            for request in lane.requests(width)
        ]
        nodes = collections.defaultdict(list)
        for (number, _), node in zip(asked, reader.read(asked), strict=True):
            nodes[number].append(node)
        lanes = [lane and lane.take(nodes[number]) for number, lane in enumerate(lanes)]
        if update:
            reader.params = update()
        if progress and (done := sum(search.done for search in searches)) > told:
            progress(done, total)
            told = min(done + total // 1000, total - 1)  # the end is told in any case


class _Lane:
    """A search whose requests are answered a few at a time."""

    def __init__(self, search: Search):
        self._search, self._scan = search, search.scan()
        self._asked, self._nodes = next(self._scan), list[Node]()

    def live(self) -> list[Node]:
        return [*self._search.live(), *self._nodes]

    def requests(self, most: int) -> list[Request]:
        """What to read next."""
        return self._asked[len(self._nodes) : len(self._nodes) + most]

    def take(self, nodes: list[Node]) -> "_Lane | None":
        """Receives the nodes of `requests`; None when the search has ended."""
        self._nodes += nodes
        if len(self._nodes) == len(self._asked):
            try:
                self._asked, self._nodes = self._scan.send(self._nodes), []
            except StopIteration:
                return None
        return self
