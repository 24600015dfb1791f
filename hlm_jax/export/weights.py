"""Weights in the type that is written, and what a reader of them computes with."""

import ml_dtypes
import numpy as np

from hlm_jax.model.names import Weights
from hlm_jax.model.shape import Params

NUMPY_TYPES = {"f32": np.dtype(np.float32), "bf16": np.dtype(ml_dtypes.bfloat16)}


def rounded(weights: Weights, dtype: str) -> Weights:
    """The weights as contiguous arrays of this type, rounded to the nearest number.

    Args:
      dtype: a key of NUMPY_TYPES.
    """
    kind = NUMPY_TYPES[dtype]
    return {name: np.ascontiguousarray(np.asarray(x), kind) for name, x in weights.items()}


def as_read(params: Params, dtype: str) -> Params:
    """float32 parameters of a model that were written as this type and read again."""
    if isinstance(params, dict):
        return {name: as_read(value, dtype) for name, value in params.items()}
    return np.asarray(params).astype(NUMPY_TYPES[dtype]).astype(np.float32)
