"""The import order of the package, and that the book's rooms load no JAX."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
PACKAGE = REPO / "hlm_jax"
# From the first to import to the last. A line may import the lines above it. Rooms that a bar
# separates may not import each other; those with a comma may.
ORDER = """
errors, numbers, signals, rules, keys, conflicts, config
book | model
measures
completion, language_model
checkpoint, pretrained
run | training
analysis, export, serving
train, cli, process, sweep, folds, sides, authors, distillation, evaluation
"""
LINES = [line.split(" | ") for line in ORDER.strip().splitlines()]
PLACES = {
    room: (line, part)
    for line, parts in enumerate(LINES)
    for part, rooms in enumerate(parts)
    for room in rooms.split(", ")
}


# What may be imported against the order, inside a function: `LanguageModel.surprisal` returns the
# table of the analysis, which is built upon it.
DOORS = {"language_model": "hlm_jax.analysis.surprisal"}


def imports(source: str) -> list[str]:
    """Full names of what a module imports from the package, inside functions too."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] == "hlm_jax"]


def violations(room: str, source: str) -> list[str]:
    """What a module of `room` imports against the order."""
    line, part = PLACES[room]
    wrong = []
    for name in imports(source):
        _, target, *_ = [*name.split("."), ""]
        if target == "__version__" or name.startswith(DOORS.get(room, "-")):
            continue
        other_line, other_part = PLACES.get(target, (len(LINES), 0))
        if other_line > line or (other_line == line and other_part != part):
            wrong.append(name)
    return wrong


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_modules_import_only_what_comes_before_them(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in PLACES, f"{room} has no place in the import order"
    assert violations(room, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("room", "source", "wrong"),
    [
        ("book", "from hlm_jax.model.gpt import GPT", ["hlm_jax.model.gpt.GPT"]),
        ("model", "def f():\n    import hlm_jax.book.corpus", ["hlm_jax.book.corpus"]),
        ("training", "from hlm_jax.run import load_run", ["hlm_jax.run.load_run"]),
        ("run", "from hlm_jax import training", ["hlm_jax.training"]),
        ("measures", "from hlm_jax import load_run", ["hlm_jax.load_run"]),
        ("config", "import hlm_jax.book", ["hlm_jax.book"]),
        ("measures", "from hlm_jax import __version__, errors\nimport numpy", []),
        ("config", "from hlm_jax.keys import KEYS", []),
        ("book", "from hlm_jax.book import files", []),
        ("serving", "from hlm_jax import run, training, measures", []),
    ],
)
def test_the_order_is_told_from_its_violations(room, source, wrong):
    assert violations(room, source) == wrong


def test_an_unknown_user_s_home_is_a_path_that_is_not_there():
    """Path.expanduser raises a RuntimeError for ~nobody; os.path.expanduser leaves it as it is."""
    for path in [*PACKAGE.rglob("*.py"), *(REPO / "scripts").glob("*.py")]:
        assert ".expanduser()" not in path.read_text(encoding="utf-8"), path


def test_the_book_loads_no_jax():
    names = [
        ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")
        for path in modules()
        if path.parent == PACKAGE / "book"
    ]
    assert "hlm_jax.book.corpus" in names
    code = (
        f"import sys, {', '.join(names)}; print([m for m in ('jax', 'flax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"
