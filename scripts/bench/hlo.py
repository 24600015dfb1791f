"""What an optimised XLA program moves and computes, kernel by kernel, from its text.

Every array that a kernel reads or writes is counted once: real kernels may read an array again. The
times are lower bounds: the larger of bytes / bandwidth and operations / peak.
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator

BYTES = {"pred": 1, "f64": 8, "c64": 8, "token": 0}
_TYPE = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
# Instructions that move nothing.
_FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all", "call"}
_FREE |= {"opt-barrier", "partition-id", "async-start"}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program: its name, result type, operation, operands and whole text."""

    name: str
    type: str
    op: str
    operands: tuple[str, ...]
    line: str

    def attribute(self, pattern: str) -> str | None:
        match = re.search(pattern, self.line)
        return match[1] if match else None


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel that a step launches.

    Attributes:
      kind: "product", "fusion", a collective, or another operation.
      types: of a product, "f16xf16->f16"; else empty.
      count: how often a step launches it.
      bytes, flops: of one launch.
      where: the model's part, from the name that JAX gave the operation.
    """

    kind: str
    types: str
    count: int
    bytes: int
    flops: int
    where: str

    def seconds(self, bandwidth: float, peak: float) -> float:
        """At least this long, at a bandwidth in bytes/s and a peak in operations/s."""
        return self.count * max(self.bytes / bandwidth, self.flops / peak)


def size(type_text: str) -> int:
    """Bytes of a type such as f16[64,256] or of a tuple of them."""
    return sum(_width(kind) * _elements(dims) for kind, dims in _TYPE.findall(type_text))


def _width(kind: str) -> int:
    digits = re.match(r"[a-z]+(\d+)", kind)
    return BYTES[kind] if kind in BYTES else max(1, int(digits[1]) // 8) if digits else 0


def _elements(dims: str) -> int:
    total = 1
    for dim in filter(None, dims.split(",")):
        total *= int(dim)
    return total


def kernels(text: str) -> list[Kernel]:
    """Every kernel of a program's text, those in loops as often as they run."""
    computations, entry = _parse(text)
    return list(_walk(computations, entry, 1))


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    computations: dict[str, list[Instruction]] = {}
    current: list[Instruction] | None = None
    entry = ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _LINE.match(line)):
            name, kind, op, rest = match.groups()
            current.append(Instruction(name, kind, op, _operands(rest), line))
    return computations, entry


def _operands(rest: str) -> tuple[str, ...]:
    depth = 0
    for end, char in enumerate(rest):
        depth += (char == "(") - (char == ")")
        if depth < 0:
            rest = rest[:end]
            break
    return tuple(re.findall(r"%([\w.\-]+)", rest))


def _walk(computations, name: str, times: int) -> Iterator[Kernel]:
    types = {one.name: one.type for one in computations[name]}
    for one in computations[name]:
        if one.op == "while":
            trips = int(one.attribute(r'"known_trip_count":\{"n":"(\d+)"') or 1)
            yield from _walk(computations, one.attribute(r"body=%?([\w.\-]+)"), times * trips)
        elif one.op == "call":
            yield from _walk(computations, one.attribute(r"to_apply=%?([\w.\-]+)"), times)
        elif one.op not in _FREE and not one.op.endswith("-done"):  # its -start is counted
            yield _kernel(one, types, computations, times)


def _kernel(one: Instruction, types, computations, times: int) -> Kernel:
    where = _part(one.attribute(r'op_name="([^"]*)"') or "")
    inputs = [types.get(name, "") for name in one.operands]
    moved = sum(map(size, inputs)) + size(one.type)
    if one.op == "custom-call" and "cublas" in (
        one.attribute(r'custom_call_target="([^"]+)"') or ""
    ):
        moved -= sum(map(int, re.findall(r"s8\[(\d+)\]", one.type)))  # work space
        contracted = one.attribute(r'"lhs_contracting_dimensions":\[([^\]]*)\]') or ""
        return _product(one.type, inputs, contracted, times, moved, where)
    if one.op == "fusion":
        body = computations[one.attribute(r"calls=%?([\w.\-]+)")]
        moved = _fusion_bytes(one, body, inputs)
        inner = {each.name: each.type for each in body}
        for each in body:
            if each.op == "dot":
                operands = [inner[name] for name in each.operands]
                contracted = each.attribute(r"lhs_contracting_dims=\{([^}]*)\}") or ""
                return _product(each.type, operands, contracted, times, moved, where)
    base = re.sub("-(start|done)$", "", one.op)
    return Kernel(base, "", times, moved, 0, where)


def _product(result: str, inputs, contracted: str, times: int, moved: int, where: str) -> Kernel:
    kinds = [_TYPE.findall(kind)[0] for kind in (*inputs[:2], result)]
    left, right, out = (kind for kind, _ in kinds)
    dims = [int(dim) for dim in kinds[0][1].split(",")]
    depth = 1
    for axis in re.findall(r"\d+", contracted):
        depth *= dims[int(axis)]
    flops = 2 * _elements(kinds[2][1]) * depth
    return Kernel("product", f"{left}x{right}->{out}", times, moved, flops, where)


def _fusion_bytes(one: Instruction, body: list[Instruction], inputs: list[str]) -> int:
    """What a fusion moves: an input of which only slices are read counts as these slices."""
    users = defaultdict(list)
    for each in body:
        for name in each.operands:
            users[name].append(each)
    inner = {each.name: each for each in body}
    total = size(one.type)
    for each in body:
        if each.op != "parameter":
            continue
        number = int(each.attribute(r"parameter\((\d+)\)") or 0)
        whole = size(inputs[number])
        reads = _through_bitcasts(each, users)
        if reads and all(use.op in ("slice", "dynamic-slice", "gather") for use in reads):
            whole = min(whole, sum(size(use.type) for use in reads))
        elif reads and all(use.op == "dynamic-update-slice" for use in reads):
            whole = 0  # written in place
        total += whole
    for each in body:
        if each.op == "dynamic-update-slice":
            total += size(inner[each.operands[1]].type) - size(each.type)
    return total


def _through_bitcasts(one: Instruction, users) -> list[Instruction]:
    found: list[Instruction] = []
    for use in users[one.name]:
        again = use.op in ("bitcast", "transpose", "reshape", "copy")
        found += _through_bitcasts(use, users) if again and users[use.name] else [use]
    return found


def _part(op_name: str) -> str:
    """The model's part of an operation's name, layers without their number."""
    names = (
        ("attention/qkv", "attention projections"),
        ("attention/out", "attention projections"),
        ("_norm", "norms"),
        ("attention", "attention core"),
        ("mlp", "MLP"),
        ("GPT", "embedding, residual, logits"),
    )
    return next((part for mark, part in names if mark in op_name), "loss and optimizer")
