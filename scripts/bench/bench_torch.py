"""The PyTorch peer of the bench: the same model, optimizer and dtype, written for speed.

Run by bench.py, not by hand, with a Python that has torch and transformers and needs no JAX. Reads
one JSON request a line on standard input and answers one JSON line each. Every request names the
kind of device.
"""

import functools
import json
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from bench_device import normalised, processor

from hlm_jax.model.names import published_weights
from hlm_jax.model.shape import GPTConfig

sys.stdout, replies = sys.stderr, sys.stdout  # libraries may print; the pipe carries answers only

# TensorFloat-32 rounds float32 factors to 10 bits. JAX's side has it off as well.
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False


class NoSuchDevice(Exception):
    """This PyTorch has no device of the kind that JAX computes on."""


def device_of(kind):
    """torch's name of the kind of device that JAX computes on; never another kind instead.

    Raises:
      NoSuchDevice: there is none.
    """
    if kind == "cpu":
        return "cpu"
    if kind == "gpu" and torch.cuda.is_available():
        return "cuda"
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    raise NoSuchDevice(f"PyTorch {torch.__version__} ({built}) finds no {kind} in {sys.executable}")


def describe(kind):
    """The device, as bench_jax.py names its own."""
    cuda = device_of(kind) == "cuda"
    return {
        "kind": kind,
        "device": normalised(torch.cuda.get_device_name(0)) if cuda else processor(),
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "torch": torch.__version__,
    }


class Norm(torch.nn.Module):
    def __init__(self, width, qwen3):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(width))
        self.bias = None if qwen3 else torch.nn.Parameter(torch.zeros(width))

    def forward(self, x):
        shape = (x.shape[-1],)
        if self.bias is None:
            return F.rms_norm(x.float(), shape, self.scale, 1e-6)
        return F.layer_norm(x.float(), shape, self.scale, self.bias, 1e-5)


class Block(torch.nn.Module):
    def __init__(self, m):
        super().__init__()
        self.m, d = m, m["n_embd"]
        qwen3 = m["form"] == "qwen3"
        linear = functools.partial(torch.nn.Linear, bias=not qwen3)
        self.attention_norm, self.mlp_norm = Norm(d, qwen3), Norm(d, qwen3)
        self.qkv, self.out = linear(d, 3 * d), linear(d, d)
        self.up, self.down = linear(d, m["hidden"]), linear(m["hidden"], d)
        self.gate = linear(d, m["hidden"]) if qwen3 else None
        self.q_norm, self.k_norm = (
            (Norm(d // m["n_head"], True) for _ in range(2)) if qwen3 else (None, None)
        )

    def forward(self, x, rope, cache=None, at=0):
        m, (b, t, d) = self.m, x.shape
        q, k, v = (
            self.qkv(self.attention_norm(x)).view(b, t, 3, m["n_head"], -1).permute(2, 0, 3, 1, 4)
        )
        if rope is not None:
            q, k = (
                rotate(self.q_norm(q), rope).to(v.dtype),
                rotate(self.k_norm(k), rope).to(v.dtype),
            )
        if cache is not None:
            cache[0][:, :, at : at + t], cache[1][:, :, at : at + t] = k, v
            k, v = cache[0][:, :, : at + t], cache[1][:, :, : at + t]
        rate = m["dropout"] if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=t > 1)
        x = x + F.dropout(self.out(y.transpose(1, 2).reshape(b, t, d)), rate, self.training)
        h = self.mlp_norm(x)
        h = (
            self.up(h) * F.silu(self.gate(h))
            if self.gate is not None
            else F.gelu(self.up(h), approximate="tanh")
        )
        return x + F.dropout(self.down(h), rate, self.training)


def rotate(x, rope):
    cos, sin = rope
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class GPT(torch.nn.Module):
    def __init__(self, m):
        super().__init__()
        self.m, d = m, m["n_embd"]
        self.token_embedding = torch.nn.Embedding(m["vocab_size"], d)
        self.position_embedding = (
            torch.nn.Embedding(m["block_size"], d) if m["form"] == "gpt2" else None
        )
        self.blocks = torch.nn.ModuleList(Block(m) for _ in range(m["n_layer"]))
        self.final_norm = Norm(d, m["form"] == "qwen3")
        if m["form"] == "qwen3":
            half = d // m["n_head"] // 2
            angle = torch.arange(m["block_size"])[:, None] * m["rope_theta"] ** (
                -torch.arange(half) / half
            )
            self.register_buffer("cos", angle.cos())
            self.register_buffer("sin", angle.sin())

    def forward(self, ids, cache=None, at=0):
        t = ids.shape[1]
        x, rope = self.token_embedding(ids), None
        if self.position_embedding is not None:
            x = x + self.position_embedding.weight[at : at + t]
        else:
            rope = self.cos[at : at + t], self.sin[at : at + t]
        x = F.dropout(x, self.m["dropout"], self.training)
        for i, block in enumerate(self.blocks):
            x = block(x, rope, None if cache is None else cache[i], at)
        return F.linear(self.final_norm(x), self.token_embedding.weight)

    def load(self, weights):
        """Takes hlm_jax's parameters from an .npz of paths; kernels are transposed."""
        state = {}
        for path, value in weights.items():
            name = path.replace("/", ".").replace("block_", "blocks.")
            name = name.replace(".attention.", ".").replace(".mlp.", ".")
            if name.endswith("embedding"):
                name += ".weight"
            if name.endswith("kernel"):
                name, value = name[: -len("kernel")] + "weight", value.T
            state[name] = torch.tensor(np.ascontiguousarray(value))
        missing, unexpected = self.load_state_dict(state, strict=False)
        assert not unexpected, unexpected
        assert set(missing) <= {"cos", "sin"}, missing


def orthogonalise(grad, quintics, dtype, eps):
    """The iteration of torch.optim.Muon, with coefficients of its own in every step.

    torch's has one triple for all steps, and bfloat16 only: a CPU without such products emulates
    them.
    """
    x = grad.T if grad.size(0) > grad.size(1) else grad
    x = x.to(dtype)
    x = x / x.norm().clamp(min=eps)
    for a, b, c in quintics:
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if grad.size(0) > grad.size(1) else x


class Training:
    """One training step in a given variant."""

    def __init__(self, r, variant):
        self.device = device_of(r["kind"])
        self.dtype = getattr(torch, r["dtype"])
        self.model = GPT(r["model"]).to(self.device)
        self.model.load(dict(np.load(r["weights"])))
        self.forward = torch.compile(self.model) if variant == "compiled" else self.model
        o = r["optim"]
        fused = {"fused": True}
        named = list(self.model.named_parameters())
        hidden = [p for name, p in named if p.ndim == 2 and "embedding" not in name]
        embeddings = [p for name, p in named if p.ndim == 2 and "embedding" in name]
        gains = {"params": [p for _, p in named if p.ndim != 2], "weight_decay": 0.0}  # and biases
        decay, muon_rate = o["weight_decay"], o["muon_learning_rate"]
        adam = {"lr": o["learning_rate"], "betas": (o["b1"], o["b2"]), "eps": o["eps"]} | fused
        if o["name"] == "muon":
            muon_dtype = torch.float32 if self.dtype == torch.float32 else torch.bfloat16
            torch.optim._muon._zeropower_via_newtonschulz = lambda grad, _, steps, eps: (
                orthogonalise(grad, r["quintics"], muon_dtype, eps)
            )
            self.optimizers = [
                torch.optim.Muon(
                    hidden,
                    lr=muon_rate,
                    momentum=0.95,
                    nesterov=True,
                    weight_decay=decay,
                ),
                torch.optim.AdamW([{"params": embeddings, "weight_decay": decay}, gains], **adam),
            ]
        else:
            self.optimizers = [
                torch.optim.AdamW(
                    [{"params": hidden + embeddings, "weight_decay": decay}, gains], **adam
                )
            ]
        self.clip = o["grad_clip_norm"]
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.dtype == torch.float16)
        batch = torch.tensor(np.load(r["batch"]), dtype=torch.long, device=self.device)
        self.inputs, self.targets = batch[:, :-1].contiguous(), batch[:, 1:].contiguous()

    def loss(self, forward):
        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            logits = forward(self.inputs)
        return F.cross_entropy(logits.float().view(-1, logits.shape[-1]), self.targets.view(-1))

    def step(self):
        loss = self.loss(self.forward)
        self.scaler.scale(loss).backward()
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        return loss.detach()

    def first_loss(self):
        self.model.eval()
        with torch.no_grad():
            value = float(self.loss(self.model))
        self.model.train()
        return value

    def time(self, n):
        began = time.perf_counter()
        for _ in range(n):
            loss = self.step()
        loss.item()
        return time.perf_counter() - began


def nested(weights):
    """{"block_0/mlp/up/kernel": x} as nested dicts."""
    params: dict = {}
    for path, value in weights.items():
        *parents, name = path.split("/")
        place = params
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return params


class Decoding:
    """Greedy decoding of `new_tokens` after a prompt, in a given variant."""

    def __init__(self, r, variant):
        self.device = device_of(r["kind"])
        self.dtype = getattr(torch, r["dtype"])
        self.r, self.variant = r, variant
        prompts = np.random.default_rng(0).integers(
            0, r["model"]["vocab_size"], (r["batch_size"], r["prompt_tokens"])
        )
        self.ids = torch.tensor(prompts, device=self.device)
        weights = dict(np.load(r["weights"]))
        if variant == "transformers":
            self.model = self._transformers(r["model"], weights)
        else:
            self.model = GPT(r["model"])
            self.model.load(weights)
        self.model = self.model.to(self.device, self.dtype).eval()

    @staticmethod
    def _transformers(m, weights):
        import transformers

        cfg = GPTConfig(**{k: v for k, v in m.items() if k != "hidden"})
        shape = transformers.GPT2Config(
            vocab_size=cfg.vocab_size,
            n_positions=cfg.block_size,
            n_embd=cfg.n_embd,
            n_layer=cfg.n_layer,
            n_head=cfg.n_head,
        )
        model = transformers.GPT2LMHeadModel(shape)
        published = published_weights(nested(weights), cfg)
        tensors = {name: torch.tensor(value) for name, value in published.items()}
        _, unexpected = model.load_state_dict(tensors, strict=False)
        assert not unexpected, unexpected
        model.tie_weights()
        return model

    @torch.inference_mode()
    def generate(self):
        n = self.r["new_tokens"]
        if self.variant == "transformers":
            mask = torch.ones_like(self.ids)
            out = self.model.generate(
                self.ids,
                attention_mask=mask,
                max_new_tokens=n,
                min_new_tokens=n,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=None,
            )
            return out[:, self.ids.shape[1] :]
        m, (b, t) = self.r["model"], self.ids.shape
        shape = (b, m["n_head"], m["block_size"], m["n_embd"] // m["n_head"])
        cache = [
            [torch.zeros(shape, device=self.device, dtype=self.dtype) for _ in range(2)]
            for _ in range(m["n_layer"])
        ]
        out = torch.empty((b, n), dtype=torch.long, device=self.device)
        token = self.model(self.ids, cache, 0)[:, -1].argmax(-1)
        for i in range(n):
            out[:, i] = token
            if i + 1 < n:
                token = self.model(token[:, None], cache, t + i)[:, -1].argmax(-1)
        return out

    def time(self, n):
        began = time.perf_counter()
        for _ in range(n):
            self.generate().cpu()
        return time.perf_counter() - began

    def tokens(self):
        return self.generate().cpu().tolist()


def main() -> None:
    torch.manual_seed(0)
    jobs = {}
    for line in sys.stdin:
        r = json.loads(line)
        try:
            if r["do"] == "train":
                jobs["now"] = Training(r, r["variant"])
                answer = {"loss": jobs["now"].first_loss()}
            elif r["do"] == "decode":
                jobs["now"] = Decoding(r, r["variant"])
                answer = {"tokens": jobs["now"].tokens()}
            elif r["do"] == "time":
                answer = {"seconds": jobs["now"].time(r["n"])}
            else:
                answer = describe(r["kind"])
        except NoSuchDevice as error:
            answer = {"error": str(error)}
        except Exception as error:  # a variant that does not run here is reported, not fatal
            first = (str(error).strip().splitlines() or [""])[0]
            answer = {"error": f"{type(error).__name__}: {first[:200]}"}
        print(json.dumps(answer), file=replies, flush=True)


if __name__ == "__main__":
    main()
