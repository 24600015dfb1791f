"""scripts/reference.sh and the choice of CUDA, mostly with a Python that only notes its words."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
STAGES = [
    "train base",
    "evaluate base train",
    "recitation of base",
    "samples of base",
    "train base_heldout",
    "evaluate base_heldout val",
    "evaluate base_heldout test",
    "recitation of base_heldout",
    "samples of base_heldout",
    "bench",
]
# Words of each stage that no other stage's command has.
WORDS = [
    "train .*configs/base.py",
    "evaluate.py .*/base --split train",
    "novelty.py .*/base --json",
    "sample.py .*/base --num",
    "train .*configs/base_heldout.py",
    "evaluate.py .*/base_heldout --split val",
    "evaluate.py .*/base_heldout --split test",
    "novelty.py .*/base_heldout --json",
    "sample.py .*/base_heldout --num",
    "bench.sh",
]
PYTHON = """#!/usr/bin/env bash
matches() { [ -n "$1" ] && grep -qE -- "$1" <<<"$words"; }
words="$*"
echo "$words" >>"$CALLS"
case "$words" in
  "-c "*) echo "${DEVICE:-cpu}" && exit ;;
  "-m pip"*) echo jax==1.2.3 && exit ;;
esac
if matches "${REAL:-}"; then exec REAL_PYTHON "$@"; fi
if matches "${FAIL:-}"; then exit 3; fi
if matches "${HANG:-}"; then
  if matches hlm_jax.train; then
    trap 'echo "stopped at step 3; the same command resumes"; exit 0' TERM
  fi
  touch "$CALLS.hangs"
  for i in {1..400}; do sleep 0.05; done
fi
if matches hlm_jax.train; then
  workdir="$(sed -E 's/.*--workdir ([^ ]+).*/\\1/' <<<"$words")"
  mkdir -p "$workdir" && touch "$workdir/loss.png" "$workdir/metrics.jsonl"
fi
echo "printed by $words"
"""


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def heed_signals():
    """Bash cannot trap the signals that it ignored at its start, as a background job does."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def tree(tmp_path):
    """A copy of the scripts whose Python notes its words in `calls`."""
    bench = tmp_path / "scripts" / "bench"
    bench.mkdir(parents=True)
    for name in ("hlm_jax", "configs"):
        (tmp_path / name).symlink_to(REPO / name)
    for path in (REPO / "scripts").glob("*.py"):
        (tmp_path / "scripts" / path.name).symlink_to(path)
    shutil.copy(REPO / "scripts" / "reference.sh", tmp_path / "scripts")
    executable(tmp_path / "python", PYTHON.replace("REAL_PYTHON", sys.executable))
    (tmp_path / "scripts" / "environment.sh").write_text(f"PYTHON={tmp_path}/python cuda=\n")
    (bench / "bench.sh").write_text(f'exec {tmp_path}/python bench.sh "$@"\n')
    return tmp_path


@pytest.fixture
def reference(tree, environment):
    """Starts reference.sh in that copy: its process, its output in it."""

    def start(*words, smi=None, **env):
        if smi is not None:
            executable(tree / "bin" / "nvidia-smi", "#!/usr/bin/env bash\n" + smi)
        known = {k: v for k, v in environment.items() if k != "JAX_PLATFORMS"}
        path = f"{tree}/bin:{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", "scripts/reference.sh", *words],
            cwd=tree,
            env=known | {"PATH": path, "CALLS": f"{tree}/calls"} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=heed_signals,
        )

    return start


@pytest.fixture
def ended(reference):
    """Runs reference.sh to its end: (exit code, output, errors)."""

    def run(*words, **more):
        process = reference(*words, **more)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    return run


def calls(tree):
    """What was run since the last call, apart from the look at the device and at versions."""
    path = tree / "calls"
    found = path.read_text().splitlines()
    path.unlink()
    return [line for line in found if not line.startswith(("-c ", "-m pip"))]


def records(tree):
    lines = (tree / "runs" / "reference.jsonl").read_text().splitlines()
    return [(r["stage"], r["ended"]) for r in map(json.loads, lines)]


def test_everything_is_run_once_in_its_order_and_collected(tree, ended):
    words = ["--config.seed=1", "--config.sample.prompt=a b"]
    code, out, err = ended(*words, BENCH_WORDS="--rounds 2")
    assert (code, out.splitlines()[-1]) == (0, "results in docs/results/cpu")
    assert err == "driver and free memory of a card: not checked, there is no nvidia-smi\n"
    assert records(tree) == [(stage, "done") for stage in STAGES]
    run = calls(tree)
    assert run[0] == "-m hlm_jax.train --config configs/base.py --workdir runs/base " + " ".join(
        words
    )
    assert run[4].endswith(f"--train.patience=10 {' '.join(words)}".replace("--t", "--config.t"))
    assert run[-1] == "bench.sh all --config configs/base.py --json --rounds 2 " + " ".join(words)
    results = tree / "docs" / "results" / "cpu"
    assert {str(p.relative_to(results)) for p in results.rglob("*") if p.is_file()} == {
        *("bench.json", "times.jsonl", "times.md", "versions.txt"),
        *(
            f"{name}/{file}"
            for name, scores in (("base", ["train"]), ("base_heldout", ["val", "test"]))
            for file in (
                *(f"{score}.json" for score in scores),
                *("loss.png", "metrics.jsonl", "output.txt", "recitation.json", "samples.txt"),
            )
        ),
    }
    assert (results / "bench.json").read_text() == f"printed by {run[-1]}\n"
    assert "jax==1.2.3" in (results / "versions.txt").read_text()
    assert ended(*words)[0] == 0
    assert calls(tree) == []
    code, _, err = ended("--config.seed=2")
    assert code == 2
    assert "set RUNS to another folder" in err


@pytest.mark.parametrize("stage", [0, 1, 4, 9])
def test_a_stage_that_fails_is_named_and_stops_no_other(tree, ended, stage):
    name, training = STAGES[stage], STAGES[stage].removeprefix("train ")
    code, out, err = ended(FAIL=WORDS[stage])
    assert code == 1
    assert err.splitlines()[-1] == (
        f"failed: {name} (exit code 3); the same command tries these again"
    )
    # Nothing reads a run whose training failed.
    needs = [other for other in STAGES if training in other.split()[1:] and name != other]
    rest = needs if name.startswith("train") else []
    assert records(tree) == [
        (s, "failed" if s == name else "done") for s in STAGES if s not in rest
    ]
    assert out.splitlines()[-1] != "results in docs/results/cpu"
    calls(tree)
    assert ended()[0] == 0
    assert len(calls(tree)) == 1 + len(rest)


@pytest.mark.slow
def test_a_stop_in_any_stage_ends_the_script_and_the_same_command_goes_on(tree, reference, ended):
    for i, stage in enumerate(STAGES):
        process = reference("--config.x=a b", HANG=WORDS[i])
        deadline = time.monotonic() + 30
        while not (tree / "calls.hangs").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        # Ctrl-C and timeout signal the whole group, kill only the script.
        send = (os.killpg, os.kill)[i % 2]
        send(process.pid, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[i % 3])
        out, _ = process.communicate(timeout=10)
        assert process.returncode == 0
        assert out.splitlines()[-1] == (
            r"stopped; to go on: bash scripts/reference.sh --config.x=a\ b"
        )
        assert records(tree)[-1] == (stage, "stopped")
        (tree / "calls.hangs").unlink()
        calls(tree)
    code, out, _ = ended("--config.x=a b")
    assert (code, out.splitlines()[-1]) == (0, "results in docs/results/cpu")
    assert len(calls(tree)) == 1  # the bench; all else was done
    times = (tree / "docs/results/cpu/times.md").read_text().splitlines()[2:]
    assert [line.split(" | ")[2:] for line in times] == [["2", "done |"]] * len(STAGES)


CARD = """case "$*" in
  *driver_version*) echo {driver} ;;
  *memory.free*) printf '{free}\\n' ;;
esac
"""


@pytest.mark.parametrize(
    ("smi", "env", "message"),
    [
        (CARD.format(driver="470.223.02", free=24000), {}, "older than 525"),
        ("echo no driver here; exit 9", {}, "nvidia-smi fails: no driver here"),
        (CARD.format(driver="535.1", free=r"24000\n9000"), {}, "9000 MiB of the card are free"),
        (CARD.format(driver="535.1", free=24000), {}, "nvidia-smi finds a card and JAX does not"),
    ],
)
def test_what_is_wrong_with_a_card_is_one_line_before_anything_runs(tree, ended, smi, env, message):
    code, _, err = ended(smi=smi, **env)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert message in err
    assert not (tree / "runs").exists()


def test_a_card_names_the_folder_and_a_check_that_cannot_be_made_is_named(tree, ended):
    smi = CARD.format(driver="580.65.06", free="[N/A]")
    code, out, err = ended(smi=smi, DEVICE="NVIDIA H100 80GB HBM3")
    assert code == 0
    assert out.splitlines()[-1] == "results in docs/results/h100-80gb-hbm3"
    assert err == "free memory: not checked, nvidia-smi does not tell it ([N/A])\n"
    versions = (tree / "docs/results/h100-80gb-hbm3/versions.txt").read_text()
    assert versions.startswith("device NVIDIA H100 80GB HBM3\ndriver 580.65.06\n")
    code, _, err = ended(smi="exit 1", JAX_PLATFORMS="cpu", RUNS="other")
    assert code == 0
    assert "not checked, JAX_PLATFORMS=cpu" in err


@pytest.mark.slow
def test_a_real_training_goes_on_where_it_was_stopped(tree, reference, ended, tiny):
    words = [*tiny, "--config.train.eval_extraction=false"]
    real = {"REAL": f"{WORDS[4]}|{WORDS[5]}", "JAX_PLATFORMS": "cpu"}
    process = reference(*words, **real)
    for line in process.stdout:
        if line.startswith("step 3/12"):
            os.kill(process.pid, signal.SIGTERM)
            break
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "; the same command resumes" in rest
    code, out, err = ended(*words, **real)
    assert code == 0, err
    assert "resuming from step" in out
    shown = tree / "docs/results/cpu/base_heldout"
    assert json.loads((shown / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 12
    assert json.loads((shown / "val.json").read_text())["bits_per_char"] > 0
    assert (shown / "loss.png").stat().st_size > 0
    assert "| 2 | done |" in (tree / "docs/results/cpu/times.md").read_text()


@pytest.mark.parametrize(
    ("driver", "capability", "installed", "target"),
    [
        ("580.65.06", "7.5", "", ".[test,cuda13]"),
        ("590.1", "12.0", "", ".[test,cuda13]"),
        ("580.65.06", "7.0", "", ".[test,cuda12]"),  # CUDA 13 has no code for a V100
        ("535.104.05", "7.5", "", ".[test,cuda12]"),
        ("580.65.06", "7.5", "1 2 cuda12", ".[test,cuda12]"),  # no second CUDA beside the first
        ("535.104.05", "7.5", "1 2 cuda13", None),
        ("470.223.02", "7.5", "", ".[test]"),
        ("", "", "", ".[test]"),
    ],
)
def test_the_driver_decides_which_cuda_is_installed(
    tmp_path, driver, capability, installed, target
):
    for name in ("setup.py", "requirements.lock", "scripts/environment.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / name, tmp_path / name)
    executable(
        tmp_path / "bin" / "nvidia-smi",
        "#!/usr/bin/env bash\n"
        f'case "$*" in *driver_version*) echo "{driver}" ;; *) echo "{capability}" ;; esac\n'
        f"exit {0 if driver else 1}\n",
    )
    executable(
        tmp_path / ".venv" / "bin" / "python",
        f'#!/usr/bin/env bash\necho "$@" >>{tmp_path}/calls\n',
    )
    (tmp_path / ".venv" / "installed").write_text(installed + "\n")
    done = subprocess.run(
        ["bash", "-c", 'source scripts/environment.sh; echo "$cuda"'],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "EXTRAS": "test"},
        capture_output=True,
        text=True,
    )
    if target is None:
        assert done.returncode == 2
        assert done.stderr == (
            f"the NVIDIA driver {driver} cannot run the CUDA 13 in .venv: "
            "rm -r .venv and start again\n"
        )
        return
    assert (tmp_path / "calls").read_text().split()[-1] == target
    assert done.stdout.strip() == target.partition(",")[2].strip("]")
    assert ("older than 525" in done.stderr) == (driver.startswith("470"))


@pytest.mark.parametrize(
    ("cuda", "has_index", "indices", "code"),
    [
        ("", True, ["cpu"], 0),
        ("", False, ["cpu", None], 0),  # any build runs on a CPU
        ("cuda12", True, ["cu126"], 0),
        ("cuda12", False, ["cu126"], 2),  # the newest CUDA's build would not find the card
        ("cuda13", False, [None], 0),
    ],
)
def test_torch_gets_an_environment_of_its_own(tmp_path, cuda, has_index, indices, code):
    executable(
        tmp_path / "python",
        f"""#!/usr/bin/env bash
echo "$0 $*" >>{tmp_path}/calls
case "$*" in
  "-m venv "*) mkdir -p .venv-bench/bin && cp "$0" .venv-bench/bin/python ;;
  *--index-url*) exit {0 if has_index else 1} ;;
esac
""",
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(tmp_path / "python")
    (tmp_path / "scripts" / "bench").mkdir(parents=True)
    shutil.copy(REPO / "scripts" / "bench" / "bench.sh", tmp_path / "scripts" / "bench")
    (tmp_path / "scripts" / "environment.sh").write_text(
        f"set -euo pipefail\ncd {tmp_path}\nPYTHON={tmp_path}/python cuda={cuda}\n"
    )

    def bench(**env):
        (tmp_path / "calls").write_text("")
        done = subprocess.run(
            ["bash", "scripts/bench/bench.sh", "train"],
            cwd=tmp_path,
            env=os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"} | env,
            capture_output=True,
            text=True,
        )
        return done, (tmp_path / "calls").read_text().splitlines()

    done, run = bench()
    assert done.returncode == code
    assert done.stdout == ""  # for JSON alone
    installs = [line for line in run if line.endswith("torch>=2.6")]
    urls = [line.partition("--index-url ")[2].partition(" ")[0] or None for line in installs]
    assert [url and url.rsplit("/", 1)[1] for url in urls] == indices
    assert all("/.venv-bench/bin/python -m pip install" in line for line in installs)
    if code == 0:
        own = f"{tmp_path}/.venv-bench/bin/python"
        last = f"{tmp_path}/python scripts/bench/bench.py --torch_python {own} train"
        assert run[-1] == last
        assert bench()[1] == [last]  # set up once
        given = last.replace(own, "/some/python")
        assert bench(TORCH_PYTHON="/some/python")[1] == [given]
