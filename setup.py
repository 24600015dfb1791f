from setuptools import find_packages, setup

SERVE = ["starlette>=1.0,<2", "uvicorn>=0.40,<1", "prometheus-client>=0.22,<1"]

setup(
    name="hlm-jax",
    version="0.2.0",
    description="Pretrain, measure and read a GPT of one book, 《红楼梦》, in JAX",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["hlm_jax", "hlm_jax.*"]),
    package_data={
        "hlm_jax.book": ["repairs.tsv", "mends.tsv"],
        "hlm_jax.analysis.page": ["*.css", "*.js"],
        "hlm_jax.serving": ["page/*.html", "page/*.css", "page/*.js"],
    },
    install_requires=[
        "jax>=0.10,<0.13",
        "flax>=0.12,<0.14",
        "optax>=0.2.8,<0.4",
        "orbax-checkpoint>=0.12,<0.13",
        "sentencepiece>=0.2.1,!=0.2.2,<0.4",  # 0.2.2 aborts the process on this book
        "numpy>=2.0,<3",
        "scipy>=1.11",
        "ml_collections>=1.1,<2",
        "lxml>=5.2,<7",
        "opencc>=1.1.9,<2",
        "matplotlib>=3.9,<4",
        "tensorboardX>=2.6.2,<3",
        "tqdm>=4.66,<5",
    ],
    extras_require={
        # One of the two, by the driver (scripts/environment.sh chooses). No extra holds torch: its
        # CUDA libraries and JAX's would overwrite each other (scripts/bench/bench.sh).
        "cuda12": ["jax[cuda12]>=0.10,<0.13"],
        "cuda13": ["jax[cuda13]>=0.10,<0.13"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "tokenizers>=0.21",
            "safetensors>=0.5",
            "gguf>=0.18",
            *SERVE,
            "httpx>=0.27,<1",
            "httpx2>=2,<3",  # of starlette's test client
            "openai>=2",
            "playwright>=1.50",
            "axe-playwright-python>=0.1.4",
            "ruff>=0.11",
            "mypy>=1.15",
        ],
        "export": ["safetensors>=0.5", "tokenizers>=0.21", "gguf>=0.18"],
        "serve": SERVE,
        "parquet": ["pyarrow>=17"],
        "notebooks": ["jupytext>=1.16", "nbclient>=0.10", "ipykernel>=6.29"],
    },
)
