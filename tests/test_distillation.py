"""A chain of models: stopped, moved, longer; refusals; its figures are those of evaluate.py."""

import json
import shutil

import jax
import numpy as np
import pytest
from conftest import REPO
from trainer import Trainer

from hlm_jax import checkpoint, distillation, process
from hlm_jax import config as configs
from hlm_jax.errors import Stopped, UserError
from hlm_jax.measures.mixture import ensemble_nats
from hlm_jax.measures.score import scores, total
from hlm_jax.run import load_run
from hlm_jax.training.material import load_material
from hlm_jax.training.program import _teachers

BASE = str(REPO / "configs/base.py")


@pytest.fixture(scope="module")
def words(tiny):
    """Overrides of a model that trains in a second."""
    words = [word.removeprefix("--config.") for word in tiny]
    return [*words, "seed=3"]


@pytest.fixture(scope="module")
def chain(words, tmp_path_factory):
    """A chain of one link, then of two, stopped in the second, moved and finished; what it said."""
    root, lines = tmp_path_factory.mktemp("chain"), []

    def go_on(links, folder):
        return distillation.train_chain(
            [BASE], words, links=links, workdir=root / folder, say=lines.append
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "train", trainer := Trainer())
        assert len(go_on(1, "a")) == 1
        trainer.stops_in = "link 2 of 2"
        with pytest.raises(UserError, match="asked to stop"):
            go_on(2, "a")
        assert len((root / "a/table.md").read_text(encoding="utf-8").splitlines()) == 3
        (root / "a").rename(root / "b")
        trainer.stops_in = None
        found = go_on(2, "b")
    assert len([line for line in lines if "scores the validation" in line]) == 2
    assert trainer.names == ["link 1 of 1", "link 2 of 2"]
    return root / "b", found, lines


def refusal(words, **named):
    with pytest.raises(UserError) as refused:
        distillation.train_chain([BASE], words, **named)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_each_link_learns_from_the_one_before_with_a_seed_of_its_own(chain):
    workdir = chain[0]
    for k in (1, 2):
        run = load_run(workdir / f"link-{k}", "latest")
        teachers = [str(workdir / f"link-{k - 1}")] if k > 1 else []
        assert run.config.train.teachers == teachers
        assert (run.config.seed, run.step) == (3 + k - 1, 12)
        assert run.config.train.teacher_weight == 0.5
    # Link 2 went on from where it was stopped, and knows that its teacher was moved.
    assert "resuming from step" in (workdir / "link-2/log.txt").read_text(encoding="utf-8")
    (change,) = load_run(workdir / "link-2", "latest").meta["changes"]
    assert change["key"] == "train.teachers"
    assert 0 < change["step"] < 12


def test_a_teacher_is_the_best_checkpoint_as_a_reader_opens_it(chain):
    folder = chain[0] / "link-2"
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = configs.settled(configs.ConfigDict(saved))
    ((model, params),) = _teachers(config, load_material(config), "float32")
    run = load_run(chain[0] / "link-1")
    assert model.cfg == run.model.cfg
    jax.tree.map(np.testing.assert_array_equal, params, run.params)
    config.train.teachers = (str(chain[0]),)
    with pytest.raises(UserError, match=r"name a link of this chain, such as .*/link-2$"):
        _teachers(config, load_material(config), "float32")


def test_the_figures_are_those_of_the_mean_of_the_links(chain):
    workdir, links, lines = chain
    runs = [load_run(link.folder) for link in links]
    texts = [chapter.text for chapter in runs[0].read_chapters()]
    for k, link in enumerate(links, 1):
        assert link.step == runs[k - 1].step
        alone = total(runs[k - 1].score(texts)).bits_per_char
        mean = total(scores(ensemble_nats(runs[:k], texts), texts)).bits_per_char
        assert link.bits_per_char == pytest.approx(alone, abs=1e-4)
        assert link.mean_bits_per_char == pytest.approx(mean, abs=1e-4)
        assert f"link {k}: {alone:.4f} bits/char at step {link.step}" in "\n".join(lines)
    assert f"mean of links 1-2: {mean:.4f} (5-gram " in lines[-1]
    assert links[1].mean_bits_per_char != links[1].bits_per_char
    table = (workdir / "table.md").read_text(encoding="utf-8").splitlines()
    assert len(table) == 4
    assert table[-1].startswith("| 2 | 12 | 4 | ")


def test_a_finished_chain_prints_how_to_go_on(chain, words, script, monkeypatch):
    workdir = chain[0]
    monkeypatch.setattr(process, "train", None)
    options = ["--config", BASE, "--workdir", workdir, *(f"--config.{word}" for word in words)]
    done = script("chain", *options, "--links", 2)
    assert done.returncode == 0, done.stderr
    assert f"the model is {workdir}/link-2" in done.stdout
    ensemble = " ".join(f"{workdir}/link-{k}" for k in (1, 2))
    assert f"python scripts/evaluate.py --ensemble {ensemble}\n" in done.stdout
    done = script("chain", *options, "--links", 2, "--config.train.teacher_weight=0.7")
    assert done.returncode == 2
    assert "holds another training (train.teacher_weight: 0.5 -> 0.7): use" in done.stderr


def test_what_makes_no_chain_is_refused_before_anything_is_written(
    chain, words, book, tmp_path, monkeypatch
):
    monkeypatch.setattr(process, "train", None)
    workdir = chain[0]
    named = {"links": 2, "workdir": workdir}
    assert "(train.steps: 12 -> 13)" in refusal([*words, "train.steps=13"], **named)
    assert "(seed: 3 -> 4)" in refusal([*words, "seed=4"], **named)
    other = tmp_path / "other.txt"
    other.write_text(book.read_text(encoding="utf-8").replace("宝玉", "贾母"), encoding="utf-8")
    assert "the book: sha256" in refusal([*words, f"corpus.path={other}"], **named)
    other.unlink()
    new = {"links": 2, "workdir": tmp_path / "new"}
    assert "leave train.teachers empty" in refusal([*words, "train.teachers=a"], **new)
    assert "split.held_out=true" in refusal([*words, "split.held_out=false"], **new)
    for links in (1, 2):
        assert "a,b has a comma" in refusal(words, links=links, workdir=tmp_path / "a,b")
    assert "--links must be at least 1, not 0" in refusal(words, links=0, workdir=tmp_path / "n")
    assert "unknown config key" in refusal([*words, "no.key=2"], **new)
    run = {"links": 2, "workdir": workdir / "link-1"}
    assert "link-1 holds one run, not a chain: use another" in refusal(words, **run)
    assert not list(run["workdir"].glob("link-*"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for name in ("file", "file/under"):
        found = refusal(words, links=2, workdir=tmp_path / name)
        assert f"cannot make the folder {tmp_path / name} (" in found


@pytest.fixture
def copied(chain, tmp_path, monkeypatch):
    """The finished chain to alter; nothing trains."""
    monkeypatch.setattr(process, "train", None)
    return shutil.copytree(chain[0], tmp_path / "copied")


def go_on(words, workdir, links=2):
    return distillation.train_chain([BASE], words, links=links, workdir=workdir, say=lambda _: None)


def test_the_hint_for_a_chain_names_the_newest_link_that_has_a_checkpoint(copied):
    for name in ("link-9", "link-10"):  # link 10 has begun, link 9 has not got so far
        (copied / name / "checkpoints").mkdir(parents=True)
    (copied / "link-2.old/checkpoints/7").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds a chain, not one run: .*/copied/link-2$"):
        checkpoint.resolve_step(copied, "best")
    shutil.rmtree(copied / "link-2/checkpoints")
    with pytest.raises(UserError, match=r"/copied/link-1$"):
        checkpoint.resolve_step(copied, "best")
    shutil.rmtree(copied / "link-1/checkpoints")
    with pytest.raises(UserError, match=r"no checkpoint in .*copied: train first"):
        checkpoint.resolve_step(copied, "best")


def test_an_interruption_while_a_link_is_scored_says_how_to_go_on(copied, words, monkeypatch):
    def scores(*_):
        raise KeyboardInterrupt

    (copied / "link-2" / distillation.NATS).unlink()
    monkeypatch.setattr(distillation, "_scores", scores)
    with pytest.raises(Stopped, match="interrupted; the same command goes on"):
        go_on(words, copied)


def test_a_link_that_learned_from_another_teacher_or_none_is_refused(copied, words):
    path = copied / "link-2/config.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    for teachers in ([], ["/a/link-7"], ["/a/link-1", "/a/link-1"]):
        saved["train"]["teachers"] = teachers
        path.write_text(json.dumps(saved), encoding="utf-8")
        message = refusal(words, links=2, workdir=copied)
        assert "link-2 holds another training (train.teachers: " in message
    saved["train"]["teachers"] = ["/somewhere/else/link-1"]
    path.write_text(json.dumps(saved), encoding="utf-8")
    assert len(go_on(words, copied)) == 2


@pytest.mark.parametrize("links", [1, 2])
@pytest.mark.parametrize("content", ["{", "[1]", "{}"])
def test_damaged_scores_are_named_before_the_table_is_written(copied, words, links, content):
    before = (copied / "table.md").read_text(encoding="utf-8")
    kept = copied / "link-2/nats.json"
    kept.write_text(content, encoding="utf-8")
    message = refusal(words, links=links, workdir=copied)
    assert f"{kept} holds no scores: delete it" in message
    assert (copied / "table.md").read_text(encoding="utf-8") == before


def test_the_table_never_has_fewer_rows_than_there_are_finished_links(copied, words, monkeypatch):
    table, written = copied / "table.md", []
    before = table.read_text(encoding="utf-8")

    def write(path, text):
        written.append(text)
        process.write_text(path, text)

    monkeypatch.setattr(distillation, "write_text", write)
    (link,) = go_on(words, copied, links=1)
    assert link.number == 1
    (copied / "link-2/nats.json").unlink()
    assert [link.number for link in go_on(words, copied)] == [1, 2]
    tables = [text for text in written if text.startswith("|")]
    assert len(tables) > 1
    assert set(tables) == {before}


def test_a_link_that_trains_again_is_scored_again(copied, words, monkeypatch):
    kept = copied / "link-2/nats.json"
    before = kept.read_text(encoding="utf-8")
    kept.write_text(json.dumps(json.loads(before) | {"step": 999}), encoding="utf-8")
    assert go_on(words, copied)[1].step == 999  # of a finished link they are read
    (copied / "link-2/finished").unlink()
    there = []
    monkeypatch.setattr(process, "train", lambda *_, **__: there.append(kept.exists()))
    assert go_on(words, copied)[1].step == 12
    assert there == [False]
    assert kept.read_text(encoding="utf-8") == before


LSTM = """
from configs import base


def get_config():
    config = base.get_config()
    config.model.form = "mogrifier"
    config.seed = 40
    return config
"""


def test_models_of_two_kinds_take_turns(words, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "train", Trainer())
    monkeypatch.chdir(REPO)
    (tmp_path / "lstm.py").write_text(LSTM, encoding="utf-8")
    files = [str(tmp_path / "lstm.py"), BASE]
    words = [word for word in words if not word.startswith(("seed=", "model.form="))]
    workdir = tmp_path / "chain"
    links = distillation.train_chain(files, words, links=2, workdir=workdir, say=lambda _: None)
    runs = [load_run(link.folder, "latest") for link in links]
    assert [run.model.cfg.form for run in runs] == ["mogrifier", "gpt2"]
    assert [run.config.seed for run in runs] == [40, 1]
    assert runs[1].config.train.teachers == [str(workdir / "link-1")]
    jobs = distillation.plan(files, words, links=3, workdir=workdir)
    assert [job.config for job in jobs] == [files[0], files[1], files[0]]
    for line in ("config.model.vocab_size = 300", "config.split.train_every = 2"):
        other = tmp_path / "other.py"
        other.write_text(LSTM.replace('config.model.form = "mogrifier"', line), encoding="utf-8")
        key = line.split()[0].removeprefix("config.")
        some = [word for word in words if not word.startswith(key)]
        with pytest.raises(UserError, match=f"differ in {key}, which all links have in common"):
            distillation.plan([BASE, str(other)], some, links=2, workdir=workdir)
    with pytest.raises(UserError, match="--links 1 leaves some of the 2 configs out"):
        distillation.plan(files, words, links=1, workdir=workdir)
