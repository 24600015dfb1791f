"""Shared fixtures.

Eight virtual devices in this process, one in the commands that it starts. Compiled programs are
kept per session in a folder that workers and commands share. `train` runs the command line of
training in this process: starting Python and JAX takes longer than a tiny run.
"""

import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Nearly all of the suite's time is compilation of tiny programs, each of which runs once or twice.
# Both settings make it quicker: no optimizations, and the older of XLA's two emitters of kernels.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
_OLD_EMITTER = "--xla_cpu_use_fusion_emitters=false"
_FLAGS = [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
os.environ["XLA_FLAGS"] = " ".join([*_FLAGS, _OLD_EMITTER])
os.environ.setdefault("JAX_PLATFORMS", "cpu")
_OWN_CACHE = "JAX_COMPILATION_CACHE_DIR" not in os.environ  # the workers' is that of their parent
if _OWN_CACHE:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jax_cache_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import pytest  # noqa: E402 - the variables above must be set before JAX starts

REPO = Path(__file__).resolve().parent.parent
TINY = (
    "model.form=gpt2",
    "model.vocab_size=1500",
    "model.block_size=32",
    "model.n_layer=1",
    "model.n_head=2",
    "model.n_embd=16",
    "train.batch_size=8",
    "train.steps=12",
    "train.eval_every_steps=6",
    "train.log_every_steps=3",
    "checkpoint.every_steps=6",
    "optim.learning_rate=0.003",
    "sample.max_new_tokens=24",
    "split.held_out=true",
    "tokenizer.character_coverage=0.98",
    "dtype=float32",
)


@pytest.fixture(scope="session")
def edition():
    """The cleaned default edition, fetched once into the repository's own data/."""
    from hlm_jax.book.corpus import load_corpus
    from hlm_jax.config import book_arguments, default_config

    corpus = book_arguments(default_config()) | {"cache_dir": str(REPO / "data")}
    return load_corpus(**corpus)


@pytest.fixture(scope="session")
def tokenizer(edition):
    """The tokenizer of configs/tiny.py."""
    from hlm_jax.book.corpus import split_chapters
    from hlm_jax.book.tokenizer import train_tokenizer

    texts = [chapter.text for chapter in split_chapters(edition.chapters, held_out=True)["train"]]
    return train_tokenizer(texts, vocab_size=5000, character_coverage=0.993)


@pytest.fixture(scope="session")
def book(edition, tmp_path_factory):
    """A book file of twenty short chapters, each the beginning of one of the novel's."""
    path = tmp_path_factory.mktemp("book") / "book.txt"
    path.write_text(
        "".join(chapter.text[:700] + "\n" for chapter in edition.chapters[:20]), encoding="utf-8"
    )
    return path


@pytest.fixture(scope="session")
def environment():
    """The environment of commands that tests start: one device, the session's compiled programs."""
    return os.environ | {"XLA_FLAGS": _OLD_EMITTER, "PYTHONPATH": str(REPO)}


@pytest.fixture(scope="session")
def tiny(book, tmp_path_factory):
    """Command-line words of a tiny configuration of a tiny book."""
    cache = tmp_path_factory.mktemp("data")
    words = [*TINY, f"corpus.path={book}", f"corpus.cache_dir={cache}"]
    return [f"--config.{word}" for word in words]


@pytest.fixture(scope="session")
def command(environment):
    """Runs `python …` in a process of its own to its end; the completed process with its output."""

    def run(*words, cwd=REPO, timeout=150, **more):
        env = {k: v for k, v in (environment | more.pop("env", {})).items() if v}
        words = [sys.executable, *map(str, words)]
        done = subprocess.run(
            words, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, **more
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def captured(main, *words):
    """What a process with this main() would return: its exit code and both outputs."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(*words)
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(words, code or 0, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def train(tiny):
    """Runs the command line of training in this process on the tiny configuration."""
    from hlm_jax import train

    def run(workdir, *overrides, config="configs/base.py"):
        words = [*tiny, *(f"--config.{word}" for word in overrides)]
        return captured(
            train.main, ["--config", str(REPO / config), "--workdir", str(workdir), *words]
        )

    return run


@pytest.fixture
def script(monkeypatch):
    """Runs the main() of scripts/NAME.py in this process, whose JAX has started and compiled."""

    def run(name, *words):
        path = REPO / "scripts" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"script_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, words)])
        return captured(module.main)

    return run


@pytest.fixture(scope="session")
def trained(train, tmp_path_factory):
    """A finished tiny run, read by many tests and changed by none: its workdir and its output."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    done = train(workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


@pytest.fixture(scope="session")
def run_of_0_1_0(tmp_path_factory):
    """A run that version 0.1.0 (commit ce2935c) left at step 6 of 12, with the synthetic book.

    Form qwen3, Muon, an average of the weights and a noise schedule, all float32. The weights that
    0.1.0 reached at step 12 lie next to it.
    """
    folder = tmp_path_factory.mktemp("old") / "run"
    shutil.unpack_archive(REPO / "tests" / "fixtures" / "run_of_0.1.0.zip", folder)
    return folder


def pytest_unconfigure():
    if _OWN_CACHE:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
