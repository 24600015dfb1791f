"""What an optimised XLA program moves, computes and sends, kernel by kernel, from its text.

Every array that a kernel reads or writes is counted once: real kernels may read an array again. The
times are lower bounds: the larger of bytes / bandwidth and operations / peak. Of a conditional one
branch is counted, the one that moves most unless the caller asks for the one that moves least.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator

BYTES = {"pred": 1, "f64": 8, "c64": 8, "token": 0}
_TYPE = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
# Instructions that move nothing.
_FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all", "call"}
_FREE |= {"opt-barrier", "partition-id"}
# Instructions that write a part of their first operand, and which operand is that part.
_IN_PLACE = {"dynamic-update-slice": 1, "scatter": 2}
# What an instruction that runs other computations calls them.
_CALLS = {
    "while": "condition|body",
    "call": "to_apply",
    "async-start": "calls",
    "conditional": "branch_computations|true_computation|false_computation",
}
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
      bytes, flops: of one launch; bytes of the device's own memory.
      where: the model's part, from the name that JAX gave the operation.
      array: of a collective, bytes of the whole array that it reduces, gathers or exchanges.
      group: of a collective, how many devices take part in it.
      name: of the instruction, by which a profiler names the kernel.
    """

    kind: str
    types: str
    count: int
    bytes: int
    flops: int
    where: str
    array: int = 0
    group: int = 1
    name: str = ""

    @property
    def sent(self) -> float:
        """Bytes that a device sends in one launch of a collective."""
        return sent(self.kind, self.array, self.group)

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


def sent(kind: str, array: int, devices: int) -> float:
    """Bytes that each device sends when a collective runs as a ring.

    Args:
      array: bytes of the whole array: of an all-gather the result, of a reduce-scatter the operand,
        of an all-reduce, all-to-all or permute what each device holds.
      devices: in the ring.
    """
    if kind == "collective-permute":
        return float(array)
    part = array * (devices - 1) / devices
    return 2 * part if kind == "all-reduce" else part


def step_bounds(computing: float, communicating: float) -> tuple[float, float]:
    """(everything overlapped, nothing overlapped): seconds of a step that does both."""
    return max(computing, communicating), computing + communicating


def kernels(text: str, branch: Callable = max) -> list[Kernel]:
    """Every kernel of a program's text, those in loops as often as they run.

    A loop without a known number of trips counts as one trip, and its condition with it.

    Args:
      branch: max counts of every conditional the branch that moves most, min the one that moves
        least; of two that move the same, the one of more or fewer launches.
    """
    program = _parse(text)
    return list(_walk(program, program.entry, 1, branch))


def trip_counts(text: str) -> list[int | None]:
    """The trips of every loop that a program reaches, outer loops first; None: not known."""
    program = _parse(text)
    return list(_trips(program, program.entry))


@dataclasses.dataclass
class _Program:
    """A parsed text: its computations by name, the name of the first, and how many devices."""

    computations: dict[str, list[Instruction]]
    entry: str
    devices: int


def _parse(text: str) -> _Program:
    devices = re.search(r"num_partitions=(\d+)", text)
    program = _Program({}, "", int(devices[1]) if devices else 1)
    current: list[Instruction] | None = None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = program.computations[head[2]] = []
            program.entry = head[2] if head[1] else program.entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _LINE.match(line)):
            name, kind, op, rest = match.groups()
            current.append(Instruction(name, kind, op, _operands(rest), line))
    return program


def _operands(rest: str) -> tuple[str, ...]:
    depth = 0
    for end, char in enumerate(rest):
        depth += (char == "(") - (char == ")")
        if depth < 0:
            rest = rest[:end]
            break
    return tuple(re.findall(r"%([\w.\-]+)", rest))


def _called(one: Instruction) -> list[str]:
    """The computations that an instruction runs, in its text's order: of a loop, the body last."""
    words = _CALLS.get(one.op, "none")
    given = re.findall(rf"\b(?:{words})=(\{{[^}}]*\}}|[\w.%\-]+)", one.line)
    return [name for names in given for name in re.findall(r"[\w.\-]+", names)]


def _known_trips(one: Instruction) -> int | None:
    trips = one.attribute(r'"known_trip_count":\{"n":"(\d+)"')
    return None if trips is None else int(trips)


def _trips(program: _Program, name: str) -> Iterator[int | None]:
    for one in program.computations[name]:
        if one.op == "while":
            yield _known_trips(one)
        for called in _called(one):
            yield from _trips(program, called)


def _walk(program: _Program, name: str, times: int, branch: Callable) -> Iterator[Kernel]:
    types = {one.name: one.type for one in program.computations[name]}
    for one in program.computations[name]:
        called = _called(one)
        if one.op == "conditional":
            branches = [list(_walk(program, each, times, branch)) for each in called]
            yield from branch(branches, key=_cost)
        elif called:
            trips = _known_trips(one)
            for each in called if trips is None else called[-1:]:
                yield from _walk(program, each, times * (1 if trips is None else trips), branch)
        elif one.op not in _FREE and not one.op.endswith("-done"):  # its -start is counted
            kernel = _kernel(one, types, program, times)
            yield dataclasses.replace(kernel, name=one.name)


def _cost(kernels: list[Kernel]) -> tuple[int, int]:
    """(bytes moved, launches)."""
    return sum(each.count * each.bytes for each in kernels), sum(each.count for each in kernels)


def _kernel(one: Instruction, types, program: _Program, times: int) -> Kernel:
    where = _part(one.attribute(r'op_name="([^"]*)"') or "")
    inputs = [types.get(name, "") for name in one.operands]
    moved = sum(map(size, inputs)) + size(one.type)
    if one.op == "custom-call" and "triton" in (
        one.attribute(r'custom_call_target="([^"]+)"') or ""
    ):
        # Queries, keys and values are three views of one operand.
        moved = sum(size(types.get(name, "")) for name in set(one.operands)) + size(one.type)
    if one.op == "custom-call" and "cublas" in (
        one.attribute(r'custom_call_target="([^"]+)"') or ""
    ):
        moved -= sum(map(int, re.findall(r"s8\[(\d+)\]", one.type)))  # work space
        contracted = one.attribute(r'"lhs_contracting_dimensions":\[([^\]]*)\]') or ""
        return _product(one.type, inputs, contracted, times, moved, where)
    if one.op == "fusion":
        body = program.computations[one.attribute(r"calls=%?([\w.\-]+)") or ""]
        moved = _fusion_bytes(one, body, inputs)
        inner = {each.name: each.type for each in body}
        for each in body:
            if each.op == "dot":
                operands = [inner[name] for name in each.operands]
                contracted = each.attribute(r"lhs_contracting_dims=\{([^}]*)\}") or ""
                return _product(each.type, operands, contracted, times, moved, where)
    if one.op == "dot":
        contracted = one.attribute(r"lhs_contracting_dims=\{([^}]*)\}") or ""
        return _product(one.type, inputs, contracted, times, moved, where)
    base = re.sub("-(start|done)$", "", one.op)
    if base in COLLECTIVES:
        given = sum(map(size, inputs))  # the type of a -start names its operands again
        return _collective(base, given, _group(one, program.devices), times, where)
    return Kernel(base, "", times, moved, 0, where)


def _collective(kind: str, given: int, group: int, times: int, where: str) -> Kernel:
    """A collective of `group` devices, to which each gives `given` bytes."""
    array = given * group if kind == "all-gather" else given
    moved = given + (given // group if kind == "reduce-scatter" else array)
    return Kernel(kind, "", times, moved, 0, where, array, group)


def _group(one: Instruction, devices: int) -> int:
    """How many devices take part in one group of a collective of a program for `devices`.

    Raises:
      ValueError: XLA wrote the groups in a way that is not known here.
    """
    if first := one.attribute(r"replica_groups=\{\{([\d,]+)\}"):  # {{0,1},{2,3}}
        return first.count(",") + 1
    if width := one.attribute(r"replica_groups=\[\d+,(\d+)\]"):  # [2,2]<=[4]
        return int(width)
    if mesh := one.attribute(r"replica_groups=(mesh\[.*?\}), "):  # mesh['a'=4,'b'=2] {'b'}
        axes, _, used = mesh.partition("{")
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", axes))
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", used)  # 'a':(2)2 is a part of an axis
        return math.prod(int(part or sizes[name]) for name, part in parts)
    if "replica_groups=" in one.line and "replica_groups={}" not in one.line:
        raise ValueError(f"unknown replica_groups: {one.line.strip()}")
    return devices


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
        elif reads and all(use.op in _IN_PLACE for use in reads):
            whole = 0  # written in place
        total += whole
    for each in body:
        if each.op in _IN_PLACE:
            total += size(inner[each.operands[_IN_PLACE[each.op]]].type) - size(each.type)
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
        ("/lstm/", "LSTM"),
        ("_norm", "norms"),
        ("attention", "attention core"),
        ("mlp", "MLP"),
        ("GPT", "embedding, residual, logits"),
    )
    return next((part for mark, part in names if mark in op_name), "loss and optimizer")
