"""Configs: keys and rules, bad values in one clear line, configs of old runs, printing."""

import json
import math
import shutil
import textwrap
import unicodedata
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from hlm_jax import config as configs
from hlm_jax.config import KEYS, ConfigError

REPO = Path(__file__).resolve().parent.parent
BASE = str(REPO / "configs" / "base.py")

# config.json of a run that version 0.1.0 wrote.
SAVED = {
    "attention": "auto",
    "checkpoint": {"every_steps": 6, "keep_latest": 2},
    "corpus": {
        "cache_dir": "data",
        "convert": "",
        "edition": "zhiyanzhai",
        "parts": 20,
        "path": "book.txt",
    },
    "dtype": "float32",
    "mesh": {"fsdp": 1},
    "model": {
        "block_size": 16,
        "dropout": 0.1,
        "embedding_dropout": -1.0,
        "form": "qwen3",
        "n_embd": 8,
        "n_head": 2,
        "n_layer": 1,
        "rope_theta": 10000.0,
        "vocab_size": 360,
    },
    "optim": {
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-08,
        "final_fraction": 0.0,
        "grad_clip_norm": 1.0,
        "learning_rate": 0.003,
        "muon_learning_rate": 0.02,
        "muon_steps": 3,
        "name": "muon",
        "schedule": "linear",
        "warmup_steps": 20,
        "weight_decay": 0.0,
    },
    "sample": {"max_new_tokens": 12, "prompt": "山看水", "temperature": 1.0, "top_p": 0.9},
    "seed": 0,
    "split": {"held_out": True, "train_every": 1},
    "tokenizer": {"character_coverage": 1.0},
    "train": {
        "accumulate_steps": 2,
        "batch_size": 8,
        "corrupt_anneal": 0.5,
        "corrupt_final": 0.1,
        "corrupt_inputs": 0.2,
        "ema_decay": 0.9,
        "epochs": 2000,
        "eval_every_steps": 6,
        "eval_extraction": False,
        "log_every_steps": 3,
        "patience": 0,
        "steps": 12,
        "steps_per_dispatch": 1,
        "teacher_weight": 0.5,
        "teachers": ["runs/teacher"],
    },
}


def saved(**changes) -> dict:
    """SAVED with values of "section.key" replaced."""
    copy = json.loads(json.dumps(SAVED))
    for name, value in changes.items():
        section, key = name.split("__")
        copy[section][key] = value
    return copy


def refusal(*overrides, path=BASE) -> str:
    with pytest.raises(ConfigError) as refused:
        configs.load_config(path, overrides)
    line = str(refused.value)
    assert "\n" not in line
    return line


# --- the keys ---


@pytest.mark.parametrize("name", KEYS)
def test_a_default_satisfies_its_own_rule_and_has_a_line(name):
    key = KEYS[name]
    assert key.rule.problem(name, key.default) is None
    assert type(key.rule.settle(key.default)) is type(key.default)
    assert 0 < len(key.line) <= 70


BAD = {
    "seed": ["-1", "4294967296", "1.5", "one"],
    "dtype": ["int4", "Float32", ""],
    "attention": ["x"],
    "mesh.fsdp": ["0"],
    "corpus.edition": ["chengyi"],
    "corpus.cache_dir": [""],
    "corpus.convert": ["t3s", "traditional"],
    "corpus.parts": ["9"],
    "corpus.revision": ["0", "3"],
    "corpus.heading": ["(", "[a", "a{99999999999999999999}", "[[a]", "(" * 5000],
    "corpus.extra_fraction": ["0", "1.1"],
    "corpus.extra_hold": ["-0.1", "1.1"],
    "corpus.extra_end": ["-0.1", "2"],
    "corpus.drop_brackets": ["【", "【【", "ab", "】【", "，。"],
    "split.held_out": ["perhaps", "1", ""],
    "split.train_every": ["0"],
    "split.train": ["5-1", "all", "1,,2", "1-3,2", "-1"],
    "split.test": ["3,3", "1.5", "五", "1-"],
    "tokenizer.character_coverage": ["0.97", "1.01"],
    "tokenizer.chapters": ["1-2-3", "1;2"],
    "model.form": ["gpt5"],
    "model.vocab_size": ["262"],
    "model.block_size": ["1"],
    "model.n_layer": ["0"],
    "model.n_head": ["0", "four"],
    "model.n_embd": ["0"],
    "model.n_kv_head": ["-1"],
    "model.head_dim": ["-1"],
    "model.intermediate_size": ["-1"],
    "model.dropout": ["1", "-0.1", "much"],
    "model.rope_theta": ["0"],
    "optim.name": ["sgd"],
    "optim.learning_rate": ["-1e-3"],
    "optim.muon_learning_rate": ["-1"],
    "optim.muon_steps": ["2", "6"],
    "optim.schedule": ["stairs"],
    "optim.warmup_steps": ["-1"],
    "optim.final_fraction": ["1.1"],
    "optim.b1": ["1"],
    "optim.b2": ["1"],
    "optim.eps": ["0"],
    "optim.weight_decay": ["-1"],
    "optim.grad_clip_norm": ["-1"],
    "train.batch_size": ["0"],
    "train.init_step": ["first", "-1", "1.5", ""],
    "train.epochs": ["-1", "1.5"],
    "train.steps": ["-1", "2147483648"],
    "train.grad_accum_steps": ["0"],
    "train.corrupt_inputs": ["1"],
    "train.corrupt_anneal": ["1.5"],
    "train.corrupt_final": ["1"],
    "train.teacher_weight": ["2"],
    "train.steps_per_dispatch": ["0"],
    "train.ema_decay": ["1"],
    "train.eval_every_steps": ["0"],
    "train.eval_extraction": ["2"],
    "train.log_every_steps": ["0"],
    "train.patience": ["-1"],
    "checkpoint.every_steps": ["0"],
    "checkpoint.keep_latest": ["0"],
    "sample.prompt": [" \u3000\n", "\udce5"],
    "sample.max_new_tokens": ["0"],
    "sample.temperature": ["-1"],
    "sample.top_k": ["-1"],
    "sample.top_p": ["7", "-0.1"],
    "sample.min_p": ["1.5"],
    "sample.repetition_penalty": ["0"],
}
# Every text is a path, or a list of paths.
ANY_WORDS = {"corpus.path", "corpus.extra", "train.init_from", "train.teachers"}


def test_the_table_of_bad_values_has_every_key():
    assert BAD.keys() | ANY_WORDS == KEYS.keys()


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_a_bad_value_is_refused_with_its_key(name, value):
    assert name in refusal(f"{name}={value}")


@pytest.mark.parametrize("name", [n for n, key in KEYS.items() if key.rule.kind is float])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_nan_and_infinity_are_refused_everywhere(name, value):
    assert f"{name}=" in (line := refusal(f"{name}={value}"))
    assert "must be a finite number" in line


@pytest.mark.parametrize("name", KEYS)
def test_a_wrong_type_is_refused_in_a_config_built_in_python(name):
    config = configs.default_config()
    *sections, leaf = name.split(".")
    section = config[sections[0]] if sections else config
    with section.ignore_type():
        section[leaf] = None
    with pytest.raises(ConfigError, match=f"^{name} is .*, not None"):
        configs.check(config)


@pytest.mark.parametrize("value", [True, 3.0, "3"])
def test_a_whole_number_is_nothing_else(value):
    assert "is a whole number" in KEYS["train.steps"].rule.problem("train.steps", value)


def test_a_number_too_large_for_a_float_is_refused():
    rule = KEYS["optim.learning_rate"].rule
    assert "must be a finite number" in rule.problem("optim.learning_rate", 10**400)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.schedule=stairs", "optim.schedule=stairs: use constant, cosine or linear"),
        ("dtype=int4", "dtype=int4: use auto, float32, bfloat16 or float16"),
        ("attention=x", "attention=x: use auto, xla or fused"),
        ("model.form=gpt5", "model.form=gpt5: use gpt2, qwen3 or mogrifier"),
        ("sample.top_p=7", "sample.top_p=7.0 must lie in [0, 1]"),
        ("sample.top_p=7", "for example --config.sample.top_p=0.9"),
        ("sample.prompt=  ", "must be Unicode text, and not white space alone"),
        ("corpus.heading=(", "corpus.heading=( is no regular expression of Python; write for"),
        ("corpus.drop_brackets=【", "corpus.drop_brackets=【 must be pairs of an opening and a"),
        ("corpus.revision=3", "corpus.revision=3 must lie in [1, 2]"),
        ("sample.max_new_tokens=0", "must be at least 1; for example"),
        ("optim.eps=0", "optim.eps=0.0 must be greater than 0"),
        ("model.dropout=1.5", "must lie in [0, 1)"),
        ("corpus.edition=x", "or --config.corpus.path=BOOK.txt for another book"),
        ("corpus.convert=t3s", "such as t2s, tw2s or hk2s"),
        ("model.n_head=four", "--config.model.n_head is a whole number, not 'four'"),
        ("model.dropout=much", "--config.model.dropout is a number, not 'much'"),
        ("split.held_out=perhaps", "--config.split.held_out is true or false, not 'perhaps'"),
        ("split.held_out", "needs a value: write --config.split.held_out=VALUE"),
        ("model={}", "--config.model is a section and cannot be replaced"),
        ("model", "set its keys, such as --config.model.form=…"),
        ("model.n_haed=4", "unknown config key 'model.n_haed'; did you mean model.n_head?"),
        ("n_head=4", "did you mean model.n_head?"),
        ("optim.dropout=0.2", "did you mean model.dropout?"),
        ("xyzzy=1", "unknown config key 'xyzzy'"),
        (
            "train.accumulate_steps=2",
            "--config.train.accumulate_steps was renamed: use --config.train.grad_accum_steps",
        ),
        ("model.embedding_dropout=0.3", "--config.model.embedding_dropout was removed: model.drop"),
        ("optim.cycles=4", "--config.optim.cycles was removed: cycles of the rate gained nothing"),
    ],
)
def test_the_line_names_what_to_write(override, message):
    assert message in refusal(override)


ALL_FURTHER = [
    "corpus.extra=b.txt",
    "corpus.extra_fraction=1",
    "corpus.extra_hold=1",
    "corpus.extra_end=1",
]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.n_head=7"], "model.n_head=7 does not divide model.n_embd=768"),
        (["model.form=qwen3", "model.n_embd=36"], "model.n_embd / model.n_head = 3 must be even"),
        (["train.grad_accum_steps=3"], "does not divide train.batch_size=64"),
        (["train.epochs=0"], "there is nothing to train"),
        (["train.patience=2"], "set --config.split.held_out=true or --config.train.patience=0"),
        (["optim.name=muon"], "set --config.optim.muon_learning_rate"),
        (["split.train=1-6", "split.test=5,6,9"], "split.train and split.test both name 5-6"),
        (["split.test=5", "split.train_every=2"], "set --config.split.train_every=1"),
        (
            ["split.train=5", "split.held_out=true", "train.patience=2"],
            "there are none: set --config.train.patience=0",
        ),
        (
            ["train.corrupt_inputs=0.2", "train.corrupt_final=0.1"],
            "set --config.train.corrupt_anneal",
        ),
        (["model.form=mogrifier", "mesh.fsdp=2"], "set --config.mesh.fsdp=1"),
        (["train.teachers=a", *ALL_FURTHER], "set --config.train.teachers="),
        (["model.form=mogrifier", "model.intermediate_size=77"], "set --config.model.interm"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(overrides, message):
    assert message in refusal(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.epochs=0", "train.steps=1"],
        ["train.patience=2", "split.held_out=true"],
        ["split.train=0-4, 7", "split.test=5", "split.held_out=true"],
        ["optim.name=muon", "optim.muon_learning_rate=0.02"],
        ["train.corrupt_inputs=0", "train.corrupt_final=0.1"],
        ["model.form=mogrifier", "model.n_embd=50", "model.n_head=12"],
        ["train.corrupt_inputs=0.2", "train.corrupt_final=0.1", "train.corrupt_anneal=0.2"],
        ["model.n_embd=36"],
        ["corpus.convert=s2tw", "corpus.path=somewhere.txt"],
        ["corpus.convert=/folder/own.json"],
        ["optim.learning_rate=0", "sample.temperature=0", "sample.top_p=0"],
        ["model.vocab_size=263", "model.block_size=2", "seed=4294967295"],
    ],
)
def test_what_can_be_trained_is_accepted(overrides):
    configs.load_config(BASE, overrides)


# --- loading ---


@pytest.mark.parametrize("path", sorted(REPO.glob("configs/[a-z]*.py")), ids=lambda path: path.stem)
def test_every_config_loads_and_documents_its_command_time_and_result(path):
    config = configs.load_config(str(path))
    assert config.is_locked
    assert configs.flatten(config).keys() == KEYS.keys()
    lines = configs.load_module(str(path), needs=("get_config",)).__doc__.splitlines()
    command = f"Command:  python -m hlm_jax.train --config configs/{path.name} --workdir runs/"
    for begin in (command, "Time:     ", "Result:   "):
        assert any(line.startswith(begin) for line in lines), begin


@pytest.mark.parametrize(
    "path", sorted((REPO / "configs/sweeps").glob("*.py")), ids=lambda p: p.stem
)
def test_every_run_of_a_sweep_loads(path, monkeypatch):
    monkeypatch.setenv("FIRST", "runs/first")
    sweep = configs.load_module(str(path), needs=("CONFIG", "COMMON", "RUNS"))
    for overrides in sweep.RUNS.values():
        config = configs.load_config(str(REPO / sweep.CONFIG), [*sweep.COMMON, *overrides])
        assert config.split.held_out
    assert ("two stages" in sweep.RUNS) == (path.stem == "shelf")


def test_base_is_the_reference_run():
    config = configs.load_config(BASE)
    assert configs.flatten(config) == {name: key.default for name, key in KEYS.items()}
    model, train = config.model, config.train
    assert (model.form, model.n_layer, model.n_embd, model.n_head) == ("gpt2", 12, 768, 12)
    assert (train.batch_size, train.epochs, config.optim.learning_rate) == (64, 2000, 3e-5)


def test_overrides_have_the_keys_types():
    words = ["seed=7", "optim.weight_decay=1", "split.held_out=True", "train.teachers=a, b,"]
    config = configs.load_config(BASE, [*words, "sample.prompt=a=b", "seed=8"])
    assert config.seed == 8
    assert isinstance(config.optim.weight_decay, float)
    assert config.split.held_out is True
    assert config.train.teachers == ("a", "b")
    assert config.sample.prompt == "a=b"
    assert configs.load_config(BASE, ["train.teachers="]).train.teachers == ()


def test_the_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/reader")
    words = ["corpus.path=~/book.txt", "corpus.cache_dir=~/data", "train.teachers=~/a,b"]
    config = configs.load_config(BASE, words)
    assert config.corpus.path == "/home/reader/book.txt"
    assert config.corpus.cache_dir == "/home/reader/data"
    assert config.train.teachers == ("/home/reader/a", "b")


def test_a_missing_file_names_the_nearest():
    assert "did you mean tiny.py?" in refusal(path=str(REPO / "configs" / "tinny.py"))


@pytest.fixture
def user_file(tmp_path):
    """Writes a config file whose get_config() has this body, in a copy of the configs folder."""

    def write(body: str) -> str:
        shutil.copytree(REPO / "configs", tmp_path / "configs", dirs_exist_ok=True)
        path = tmp_path / "configs" / "own.py"
        head = "from configs import base\n\n\ndef get_config():\n"
        path.write_text(head + textwrap.indent(body, "    ") + "\n")
        return str(path)

    return write


def test_a_file_builds_on_another(user_file):
    path = user_file("config = base.get_config()\nconfig.train.steps = 7\nreturn config")
    assert configs.load_config(path).train.steps == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("config.train.accumulate_steps = 2", "was renamed: use train.grad_accum_steps"),
        ("config.train.update(accumulate_steps=2)", "was renamed: use train.grad_accum_steps"),
        ("config.train.accumulate_steps *= 2", "was renamed: use train.grad_accum_steps"),
        ("config.model.embedding_dropout = 0.3", "model.embedding_dropout was removed"),
        ("config.train.stepz = 7", "unknown config key 'train.stepz'; did you mean train.steps?"),
        ("config.train.steps = 'seven'", "TypeError"),
        ("config.sample.top_p = 7.0", "sample.top_p=7.0 must lie in [0, 1]"),
        ("del config.train.steps", "the config has no train.steps"),
        ("config = 3", "get_config() must return a ConfigDict, not 3"),
        ("1 / 0", "own.py: ZeroDivisionError: division by zero"),
        ("config.train = (", "own.py: SyntaxError"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(user_file, change, message):
    path = user_file(f"config = base.get_config()\n{change}\nreturn config")
    assert message in refusal(path=path)


def test_a_file_without_get_config(tmp_path):
    (tmp_path / "own.py").write_text("STEPS = 7\n")
    assert refusal(path=str(tmp_path / "own.py")).endswith("own.py defines no get_config")
    (tmp_path / "own.txt").write_text("")
    assert "must end in .py" in refusal(path=str(tmp_path / "own.txt"))


def test_a_config_built_in_python_is_checked_and_settled(monkeypatch):
    monkeypatch.setenv("HOME", "/home/reader")
    config = configs.default_config()
    with config.ignore_type():
        config.model.dropout = 0
        config.train.teachers = ["~/a"]
    configs.check(config)
    final = configs.settled(config)
    assert final.is_locked
    assert isinstance(final.model.dropout, float)
    assert final.train.teachers == ("/home/reader/a",)
    assert tuple(config.train.teachers) == ("~/a",)  # the caller's own stays


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 1}, "unknown config key 'stepz'"),
        ({"seed": 0}, "the config has no dtype: begin with hlm_jax.config.default_config()"),
        ({"model": 3}, "model is a section and cannot be replaced"),
        ({"train": {"accumulate_steps": 1}}, "was renamed: use train.grad_accum_steps"),
    ],
)
def test_missing_and_unknown_keys_of_a_config_built_in_python(values, message):
    with pytest.raises(ConfigError) as refused:
        configs.check(ConfigDict(values))
    assert message in str(refused.value)


# --- recording and comparing ---


def test_recorded_is_json_with_absolute_paths(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    record = configs.recorded(configs.load_config(BASE, ["train.teachers=runs/a,/runs/b"]))
    assert json.loads(json.dumps(record)) == record
    assert record["train"]["teachers"] == [str(tmp_path / "runs/a"), "/runs/b"]
    assert record["corpus"]["cache_dir"] == str(tmp_path / "data")
    assert record["corpus"]["path"] == ""  # the edition
    assert configs.upgrade(record) == record


def test_a_config_of_version_0_1_0_keeps_its_meaning():
    new = configs.upgrade(SAVED)
    assert list(configs.flatten(new)) == list(KEYS)
    assert new["train"]["grad_accum_steps"] == 2
    assert new["sample"] == SAVED["sample"] | {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    assert (new["corpus"]["revision"], new["corpus"]["heading"]) == (1, "")
    for name, value in configs.flatten(SAVED).items():
        if name not in ("train.accumulate_steps", "model.embedding_dropout"):
            assert configs.flatten(new)[name] == value
    configs.check(ConfigDict(new))


def test_a_run_of_version_0_1_0_can_be_resumed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    now = configs.recorded(ConfigDict(configs.upgrade(SAVED)))
    assert now["train"]["teachers"] == [str(tmp_path / "runs/teacher")]
    assert configs.differences(SAVED, now) == []
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (line,) = configs.differences(SAVED, now)
    assert line == f"train.teachers: runs/teacher -> {tmp_path / 'runs/teacher'}"


def test_a_linked_path_is_the_same_path(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    one, two = (
        configs.recorded(configs.load_config(BASE, [f"train.teachers={tmp_path / name}"]))
        for name in ("real", "link")
    )
    assert configs.differences(one, two) == []


def test_differences_are_named_with_both_values():
    before = configs.recorded(configs.load_config(BASE))
    words = ["seed=3", "optim.learning_rate=0.5", "split.held_out=true", "corpus.convert=t2s"]
    assert configs.differences(before, configs.recorded(configs.load_config(BASE, words))) == [
        "seed: 0 -> 3",
        "corpus.convert: '' -> t2s",
        "split.held_out: false -> true",
        "optim.learning_rate: 3e-05 -> 0.5",
    ]


def test_the_revision_of_the_edition_matters_only_where_the_edition_is_read():
    before = saved()
    before["corpus"]["path"] = ""
    after = configs.recorded(ConfigDict(configs.upgrade(before)))
    assert configs.differences(before, after) == []
    after["corpus"]["revision"] = 2
    assert configs.differences(before, after) == ["corpus.revision: 1 -> 2"]
    before["corpus"]["path"] = after["corpus"]["path"] = "/books/mine.txt"
    assert configs.differences(before, after) == []


@pytest.mark.parametrize(
    "free",
    [
        "checkpoint.every_steps=7",
        "checkpoint.keep_latest=7",
        "corpus.cache_dir=elsewhere",
        "corpus.path=elsewhere/book.txt",
        "mesh.fsdp=2",
        "sample.prompt=山",
        "sample.top_k=7",
        "train.log_every_steps=7",
    ],
)
def test_what_changes_no_figure_is_free_on_resume(free):
    before = configs.recorded(configs.load_config(BASE))
    after = configs.recorded(configs.load_config(BASE, [free]))
    assert before != after
    assert configs.differences(before, after) == []


@pytest.mark.parametrize(("rate", "same"), [(-1.0, True), (0.1, True), (0.3, False), (0.0, False)])
def test_an_own_dropout_of_embeddings_cannot_be_resumed(rate, same):
    old = saved(model__embedding_dropout=rate)
    lines = configs.differences(old, configs.recorded(ConfigDict(configs.upgrade(old))))
    assert lines == ([] if same else [f"model.embedding_dropout: {rate} -> (removed)"])


@pytest.mark.parametrize("key", ["optim.cycles", "train.mtp_weight"])
def test_a_removed_key_that_did_something_cannot_be_resumed(key):
    for value, lines in ((0, []), (4, [f"{key}: 4 -> (removed)"])):
        old = saved(**{key.replace(".", "__"): value})
        assert configs.differences(old, configs.recorded(ConfigDict(configs.upgrade(old)))) == lines


def test_a_key_of_another_version_is_a_difference():
    new = saved(train__new_trick=0.5)
    now = configs.recorded(ConfigDict(configs.upgrade(new)))
    assert "train.new_trick: 0.5 -> (absent)" in configs.differences(new, now)


# --- printing ---


def test_the_printed_config_is_readable():
    words = ["train.teachers=runs/a,runs/b", "split.held_out=true"]
    text = configs.as_text(configs.load_config(BASE, words))
    lines = text.splitlines()
    assert lines[:5] == ["seed: 0", "dtype: auto", "attention: auto", "mesh:", "  fsdp: 1"]
    for line in (
        "  path: ''",
        "  held_out: true",
        "  learning_rate: 3e-05",
        "  eps: 1e-08",
        "  rope_theta: 10000.0",
        "  teachers: runs/a,runs/b",
        "  prompt: ''",
    ):
        assert line in lines
    sections = {name.split(".")[0] for name in KEYS if "." in name}
    assert len(lines) == len(KEYS) + len(sections)
    # Every line is also an override: the printed values give the same config again.
    section, overrides = "", []
    for line in lines:
        key, _, value = line.partition(": ")
        if line.endswith(":") and not line.startswith(" "):
            section = line[:-1] + "."
        else:
            name = section + key.strip() if line.startswith(" ") else key
            overrides.append(f"{name}={'' if value == repr('') else value}")
    assert configs.as_text(configs.load_config(BASE, overrides)) == text


def test_the_help_lists_every_key_with_its_default_and_rule():
    def columns(line):
        return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)

    lines = configs.describe_keys().splitlines()
    assert max(map(columns, lines)) <= 100
    assert len(lines) == 1 + 2 * len(KEYS)
    rules = lines[0].index("rule")
    for name, row, line in zip(KEYS, lines[1::2], lines[2::2], strict=True):
        key = KEYS[name]
        assert row.split()[0] == name
        assert row.removesuffix(key.rule.summary).split()[-1] == key.resume
        assert row.endswith(key.rule.summary)
        assert columns(row.removesuffix(key.rule.summary)) == rules
        assert line.strip() == key.line
    row = "optim.learning_rate           3e-05       recorded  number, at least 0"
    assert row in lines


def test_rates_are_printed_as_written():
    config = configs.load_config(BASE, ["optim.learning_rate=0.00003", "optim.eps=1E-9"])
    assert "  learning_rate: 3e-05" in configs.as_text(config)
    assert "  eps: 1e-09" in configs.as_text(config)
    assert math.isclose(config.optim.eps, 1e-9)
