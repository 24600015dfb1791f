"""Shared fixtures. Eight virtual devices in this process, one in the commands it starts; compiled steps are kept per session."""

import os
import subprocess
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest

REPO = Path(__file__).resolve().parent.parent
TINY = (
    "model.form=gpt2",
    "model.vocab_size=1500",
    "model.block_size=32",
    "model.n_layer=2",
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

    return load_corpus(
        path="", edition="zhiyanzhai", cache_dir=str(REPO / "data"), convert="", parts=20
    )


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
def environment(tmp_path_factory):
    """The environment of commands that tests start: one device, a compilation cache of the session's own, shared by its workers."""
    folder = tmp_path_factory.getbasetemp()
    cache = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "jax_cache"
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return env | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "PYTHONPATH": str(REPO),
    }


@pytest.fixture(scope="session")
def tiny(book, tmp_path_factory):
    """Command-line words of a tiny configuration of a tiny book."""
    cache = tmp_path_factory.mktemp("data")
    words = [*TINY, f"corpus.path={book}", f"corpus.cache_dir={cache}"]
    return [f"--config.{word}" for word in words]


@pytest.fixture(scope="session")
def command(environment):
    """Runs `python …` to its end; the completed process with text output."""

    def run(*words, cwd=REPO, timeout=150, **more):
        env = {k: v for k, v in (environment | more.pop("env", {})).items() if v}
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
            **more,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def train(command, tiny):
    """Runs training on the tiny configuration in a workdir, with further overrides."""

    def run(workdir, *overrides, **more):
        words = [*tiny, *(f"--config.{word}" for word in overrides)]
        return command(
            "-m",
            "hlm_jax.train",
            "--config",
            "configs/base.py",
            "--workdir",
            workdir,
            *words,
            **more,
        )

    return run


@pytest.fixture(scope="session")
def trained(train, tmp_path_factory):
    """The workdir of a finished tiny run, read by many tests and changed by none, and what training printed."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    done = train(workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout
