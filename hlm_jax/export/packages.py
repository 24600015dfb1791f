"""Packages that only an export needs: imported when they are used, named when they are missing."""

import importlib
import importlib.metadata
import importlib.util
from types import ModuleType

from hlm_jax.errors import UserError


def needed(name: str) -> ModuleType:
    """The package.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.split(".")[0]
        if (error.name or "").split(".")[0] != package:
            raise
        raise UserError(
            f"the package {package} is not installed: EXTRAS=export bash scripts/environment.sh"
        ) from None


def installed(*names: str) -> bool:
    """Whether all these packages can be imported."""
    return all(importlib.util.find_spec(name) for name in names)


def version(distribution: str) -> str:
    """The version of an installed distribution, as pip names it."""
    return importlib.metadata.version(distribution)
