"""hlm_jax: pretrain, measure and read a GPT of one book, 《红楼梦》 (Dream of the Red Chamber)."""

__version__ = "0.2.0"
__all__ = ["load_run"]


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def __getattr__(name: str):
    # `import hlm_jax` costs milliseconds; JAX loads when the first run is opened.
    if name == "load_run":
        from hlm_jax.run import load_run

        return load_run
    raise AttributeError(f"module 'hlm_jax' has no attribute {name!r}")
