"""scripts/bench/gpu_roofline.py and its arithmetic, on programs written by hand.

The last tests compile for a card, and need jax-cuda12-plugin and jax-cuda12-pjrt.
"""

import importlib.util
import json
import types

import jax
import pytest

from hlm_jax import config as configs
from hlm_jax.book import windows
from hlm_jax.book.corpus import split_chapters
from hlm_jax.book.tokenizer import train_tokenizer
from scripts.bench import gpu_program, gpu_roofline, hlo

COMPILER = importlib.util.find_spec("jax_cuda12_plugin") is not None
needs_compiler = pytest.mark.skipif(not COMPILER, reason="needs jax-cuda12-plugin and -pjrt")

# --- a program's text ---

COPY = """
%copied (p: f32[{n}]) -> f32[{n}] {{
  %p = f32[{n}] parameter(0)
  ROOT %c{n} = f32[{n}] copy(%p)
}}
"""
BODY = """
%body (t: (s32[], f32[10])) -> (s32[], f32[10]) {
  %t = (s32[], f32[10]) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %x = f32[10] get-tuple-element(%t), index=1
  %y = f32[10] copy(%x)
  ROOT %r = (s32[], f32[10]) tuple(%i, %y)
}

%goes_on (t: (s32[], f32[10])) -> pred[] {
  %t = (s32[], f32[10]) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  ROOT %less = pred[] compare(%i, %i), direction=LT
}
"""
LOOP = """
ENTRY %main (t: (s32[], f32[10])) -> (s32[], f32[10]) {{
  %t = (s32[], f32[10]) parameter(0)
  ROOT %w = (s32[], f32[10]) while(%t), condition=%goes_on, body=%body{trips}
}}
"""
TRIPS = ', backend_config={"known_trip_count":{"n":"64"},"known_init_step":{"init":"0"}}'


PUT = """
%put (c: f32[12,256], i: s32[12,1], x: f32[12,1]) -> f32[12,256] {
  %c = f32[12,256] parameter(0)
  %i = s32[12,1] parameter(1)
  %x = f32[12,1] parameter(2)
  %new = f32[12,1] negate(%x)
  ROOT %s = f32[12,256] scatter(%c, %i, %new), to_apply=%second
}

ENTRY %main (c: f32[12,256], i: s32[12,1], x: f32[12,1]) -> f32[12,256] {
  %c = f32[12,256] parameter(0)
  %i = s32[12,1] parameter(1)
  %x = f32[12,1] parameter(2)
  ROOT %f = f32[12,256] fusion(%c, %i, %x), kind=kInput, calls=%put
}
"""


def test_what_is_written_in_place_counts_as_its_part():
    (fusion,) = hlo.kernels(PUT)
    assert fusion.bytes == 2 * 12 * 4  # 12 numbers read and written


def test_a_loop_counts_as_often_as_it_runs():
    text = BODY + LOOP.format(trips=TRIPS)
    (copy,) = hlo.kernels(text)
    assert (copy.kind, copy.count, copy.bytes) == ("copy", 64, 80)  # 40 read, 40 written
    assert copy.seconds(1e9, 1e12) == pytest.approx(64 * 80e-9)
    assert hlo.trip_counts(text) == [64]


def test_a_loop_of_unknown_length_counts_once_with_its_condition():
    text = BODY + LOOP.format(trips="")
    assert [(each.kind, each.count) for each in hlo.kernels(text)] == [("compare", 1), ("copy", 1)]
    assert hlo.trip_counts(text) == [None]


def branches(words):
    """A choice between copies of 10 and of 20 numbers."""
    small, large = (COPY.format(n=n).replace("copied", f"copy_{n}") for n in (10, 20))
    return f"""{small}{large}
ENTRY %main (p: pred[], a: f32[20], b: f32[10]) -> f32[10] {{
  %p = pred[] parameter(0)
  %a = f32[20] parameter(1)
  %b = f32[10] parameter(2)
  ROOT %chosen = (f32[10]) conditional(%p, %a, %b), {words}
}}"""


@pytest.mark.parametrize(
    "words",
    [
        "true_computation=%copy_20, false_computation=%copy_10",
        "branch_computations={%copy_10, %copy_20}",
    ],
)
def test_of_a_conditional_one_branch_counts(words):
    (most,), (least,) = hlo.kernels(branches(words)), hlo.kernels(branches(words), min)
    assert (most.bytes, least.bytes) == (160, 80)


def test_what_runs_beside_is_counted_once():
    text = (
        COPY.format(n=10)
        + """
ENTRY %main (a: f32[10]) -> f32[10] {
  %a = f32[10] parameter(0)
  %s = ((f32[10]), f32[10], u32[]) async-start(%a), calls=%copied
  ROOT %d = f32[10] async-done(%s)
}"""
    )
    assert [each.bytes for each in hlo.kernels(text)] == [80]


def program(line, partitions=8):
    return f"""HloModule step, num_partitions={partitions}

ENTRY %main (a: f32[1000]) -> f32[] {{
  %a = f32[1000]{{0}} parameter(0)
  %c = {line}
}}"""


@pytest.mark.parametrize(
    ("line", "group", "array", "sent", "moved"),
    [
        # 4000 bytes of each of 8 devices: 7/8 of them go round twice.
        ("f32[1000]{0} all-reduce-start(%a), replica_groups={}", 8, 4000, 7000, 8000),
        ("f32[1000]{0} all-reduce(%a), replica_groups={{0,1},{2,3},{4,5},{6,7}}",
         2, 4000, 4000, 8000),
        # The whole array has 4 x 4000 bytes. A device sends 3/4 of it, and writes all of it.
        ("(f32[1000], f32[4000]) all-gather-start(%a), replica_groups=[2,4]<=[8], dimensions={0}",
         4, 16000, 12000, 20000),
        # 4000 bytes of each; 3/4 of them are sent, and a quarter is kept.
        ("(f32[1000], f32[250]) reduce-scatter-start(%a), "
         "replica_groups=mesh['x'=4,'y'=1,'z'=2], device_ids=([2,4]T(1,0)) {'x'}, dimensions={0}",
         4, 4000, 3000, 5000),
        ("((f32[1000]), f32[1000]) all-to-all-start(%a), replica_groups=mesh['x'=4,'z'=2] "
         "{'x', 'z'}, dimensions={0}", 8, 4000, 3500, 8000),
        ("f32[1000] all-reduce(%a), replica_groups=mesh['x'=8] {'x':(2)4}, to_apply=%add",
         4, 4000, 6000, 8000),
        ("f32[1000] collective-permute(%a), source_target_pairs={{0,1},{1,0}}",
         8, 4000, 4000, 8000),
    ],
)  # fmt: skip
def test_what_a_device_sends_in_a_ring(line, group, array, sent, moved):
    (kernel,) = hlo.kernels(program(line))
    assert (kernel.group, kernel.array) == (group, array)
    assert (kernel.sent, kernel.bytes) == (sent, moved)


def test_a_done_is_not_a_second_collective():
    text = program("f32[1000] all-reduce-start(%a), replica_groups={}").replace(
        "\n}", "\n  %d = f32[1000] all-reduce-done(%c)\n}"
    )
    assert [each.kind for each in hlo.kernels(text)] == ["all-reduce"]


def test_groups_in_an_unknown_form_are_an_error():
    with pytest.raises(ValueError, match="unknown replica_groups"):
        hlo.kernels(program("f32[1000] all-reduce(%a), replica_groups=ring(8)"))


def test_a_step_takes_the_longer_of_both_or_their_sum():
    assert hlo.step_bounds(3.0, 2.0) == (3.0, 5.0)
    assert hlo.step_bounds(1.0, 2.0) == (2.0, 3.0)


def test_float32_products_have_no_matrix_units():
    card = gpu_program.CARDS["rtx6000"]
    half = hlo.Kernel("product", "f16xf16->f32", 1, 0, 10**12, "MLP")
    full = hlo.Kernel("product", "f32xf32->f32", 1, 0, 10**12, "MLP")
    assert card.seconds(half) == pytest.approx(1 / 130)
    assert card.seconds(full) == pytest.approx(1 / 16.3, rel=0.01)


def test_links_are_those_of_the_card():
    cards = gpu_program.CARDS
    assert list(cards["rtx6000"].links(2)) == ["NVLink", "PCIe"]  # a bridge joins two
    assert list(cards["rtx6000"].links(4)) == ["PCIe"]
    assert list(cards["t4"].links(2)) == ["PCIe"]
    assert cards["h100"].links(8) == {"NVLink": 450e9, "PCIe": 64e9}


# --- the run's length ---


@pytest.mark.parametrize(
    ("name", "words", "steps"),
    [
        ("base", (), 54_657),  # 2000 epochs of (448,196 - 256) // 256 windows, 64 a step
        ("base_heldout", (), 44_000),
        ("small", (), 6_500),
        ("base", ("train.batch_size=128",), 27_329),
        ("base", ("train.epochs=1",), 28),
        ("base", ("corpus.path=mine.txt",), None),
        ("base", ("model.vocab_size=300",), None),
    ],
)
def test_steps_of_a_config(name, words, steps):
    config = configs.load_config(f"configs/{name}.py", words)
    assert gpu_roofline.config_steps(config) == steps


@pytest.mark.parametrize("held_out", [False, True])
def test_the_default_text_has_as_many_tokens_as_the_command_believes(edition, held_out):
    config = configs.default_config()
    chapters = split_chapters(edition.chapters, held_out=held_out)["train"]
    tokenizer = train_tokenizer(
        [chapter.text for chapter in chapters],
        vocab_size=config.model.vocab_size,
        character_coverage=config.tokenizer.character_coverage,
    )
    tokens = windows.token_stream(tokenizer, chapters)
    assert len(tokens) == gpu_roofline.TRAINING_TOKENS[held_out]


# --- the command ---


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--card", "gtx"), "use rtx6000, t4, a100, h100"),
        (("--devices", 8, "--fsdp", 3), "--fsdp 3 does not divide --devices 8"),
        (("--devices", 0), "--devices must be above 0"),
        (("--fsdp", -1), "--fsdp must be above 0"),
        (("--memory", "nan"), "--memory must be above 0"),
        (("--steps", 0), "--steps must be above 0"),
        (("--devices", 3), "train.batch_size=64 is not divisible by --devices 3"),
        (("--what", "decode", "--devices", 2), "leave out --devices"),
        (("--what", "decode", "--batch", 0), "--batch must be above 0"),
        (("--config.model.n_lyer=3",), "did you mean"),
    ],
)
def test_bad_input_is_one_line(script, words, error):
    done = script("bench/gpu_roofline", *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert error in done.stderr


def test_a_missing_compiler_is_one_line(script, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "cuda12" in name else find(name)
    )
    done = script("bench/gpu_roofline")
    assert done.returncode == 2
    assert f"pip install --no-deps jax-cuda12-plugin=={jax.__version__}" in done.stderr


@pytest.fixture
def compiles(monkeypatch):
    """The compiler's place is taken by a program that copies 336 MB and adds 1 GB on `n` cards.

    A step takes 1 GB, and 9 GB more by the number of parts of its batch. Returns what was compiled.
    """
    made = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: types.SimpleNamespace())

    def compile_step(config, card, *, count, fsdp):
        parts = config.train.grad_accum_steps
        made.append((count, parts))
        sends = "%s = f32[250000000] all-reduce(%b), replica_groups={}" if count > 1 else ""
        text = f"""HloModule step, num_partitions={count}
ENTRY %main (a: f32[42000000]) -> f32[] {{
  %a = f32[42000000] parameter(0)
  %b = f32[250000000] parameter(1)
  %c = f32[42000000] copy(%a)
  {sends}
}}"""
        use = types.SimpleNamespace(
            argument_size_in_bytes=10**9,
            output_size_in_bytes=10**9,
            alias_size_in_bytes=10**9,
            temp_size_in_bytes=9 * 10**9 // parts,
        )
        return types.SimpleNamespace(as_text=lambda: text, memory_analysis=lambda: use)

    monkeypatch.setattr(gpu_program, "compile_step", compile_step)
    return made


def test_the_run_takes_its_steps_times_the_steps_time(script, compiles):
    words = ("bench/gpu_roofline", "--steps", 7_200_000)
    out = json.loads(script(*words, "--json").stdout)
    assert out["ms_at_least"] == pytest.approx(0.5)  # 336 MB at 672 GB/s
    assert out["hours_at_least"] == pytest.approx(1.0)
    assert out["memory_gb"] == 10
    assert out["fitting"] is None
    assert "compiled, not run" in out["note"]
    assert "lower bound" in out["note"]
    done = script(*words)
    assert "Quadro RTX 6000, float16, compiled, not run: 1 device(s)" in done.stdout
    assert "7,200,000 steps: at least 1.00 hours (compiled, not run; lower bound" in done.stdout
    assert compiles == [(1, 1)] * 2


def test_an_unknown_number_of_steps_is_asked_for(script, compiles):
    done = script("bench/gpu_roofline", "--config.corpus.path=mine.txt")
    assert "no hours: the config counts epochs of another text" in done.stdout


@pytest.mark.parametrize(
    ("memory", "parts", "fits"),
    [(12, [1], None), (10, [1, 2], 2), (4, [1, 2, 4], 4), (1, [1, 2, 4, 8, 16, 32, 64], None)],
)
def test_the_fewest_parts_that_fit_are_named(script, compiles, memory, parts, fits):
    words = ("bench/gpu_roofline", "--memory", memory)
    out = json.loads(script(*words, "--json").stdout)
    assert [made for _, made in compiles] == parts
    assert out["card_gb"] == memory * 2**30 / 1e9
    done = script(*words)
    if fits:
        assert out["fitting"]["grad_accum_steps"] == fits
        assert f"--config.train.grad_accum_steps={fits} fits" in done.stdout
    elif memory == 1:
        assert "no --config.train.grad_accum_steps that is a power of two fits" in done.stdout
        assert "hours_at_least" not in out
    else:  # 10 of 12.9 GB
        assert "set XLA_PYTHON_CLIENT_MEM_FRACTION=0.9" in done.stdout


def test_parts_divide_what_a_device_has_of_the_batch():
    config = configs.load_config("configs/base.py", ["train.batch_size=48"])
    assert gpu_roofline.larger_parts(config, 1) == [2, 4, 8, 16]
    assert gpu_roofline.larger_parts(config, 4) == [2, 4]


def test_several_cards_are_held_against_one(script, compiles):
    words = ("--card", "h100", "--devices", 2, "--steps", 1000)
    out = json.loads(script("bench/gpu_roofline", *words, "--json").stdout)
    assert compiles == [(2, 1), (1, 1)]
    assert out["collectives"] == {"all-reduce of 2": {"count": 1, "gb": 1.0, "gb_sent": 1.0}}
    copying, sending = 336e6 / 3350e9 * 1e3, 1e9 / 450e9 * 1e3  # ms
    assert out["ms_at_least"] == pytest.approx(copying)  # sending is not part of it
    link = out["links"]["NVLink"]
    assert link["sending_ms"] == pytest.approx(sending)
    assert link["ms_overlapped"] == pytest.approx(sending)
    assert link["ms_not_overlapped"] == pytest.approx(copying + sending)
    assert link["speedup_not_overlapped"] == pytest.approx(copying / (copying + sending))
    assert link["hours_overlapped"] == pytest.approx(1000 * sending / 3.6e6)
    assert out["links"]["PCIe"]["sending_ms"] == pytest.approx(1e9 / 64e9 * 1e3)
    done = script("bench/gpu_roofline", *words)
    assert "| all-reduce of 2 | 1 | 1.000 | 1.000 |" in done.stdout
    assert "Compiled, not run" in done.stdout


# --- compiled for a card ---


@needs_compiler
@pytest.mark.slow
def test_the_decoder_is_a_loop_of_known_length(script):
    small = ("model.n_layer=1", "model.n_embd=64", "model.n_head=2", "model.vocab_size=300")
    words = ("--what", "decode", "--batch", 2, *(f"--config.{word}" for word in small))
    done = script("bench/gpu_roofline", *words, "--json")
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    assert out["static_trip_count"]
    assert out["trip_counts"][0] == out["tokens"] == 64
    greedy, sampling = out["drawing"]["greedy"], out["drawing"]["sampling"]
    assert 10 < greedy["kernels"] < sampling["kernels"] < 100
    weights = 4 * (300 * 64 + 12 * 64 * 64)  # bytes of the matrices that every token reads
    assert weights < greedy["gb"] * 1e9 < 4 * weights


@needs_compiler
@pytest.mark.slow
def test_the_evaluators_figures(script):
    small = ("model.n_layer=1", "model.n_embd=64", "model.n_head=2", "model.vocab_size=300")
    done = script("bench/gpu_roofline", "--what", "eval", *(f"--config.{word}" for word in small))
    assert "float32, compiled, not run: scoring 16 windows, 4,096 tokens" in done.stdout
    assert "(lower bound), at most" in done.stdout
