"""How arrays lie on devices: the mesh, the sharding of every array, whole local copies."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hlm_jax.errors import UserError

BATCH_AXES = ("data", "fsdp")  # the batch is cut over both axes, the weights over the second


def make_mesh(fsdp: int = 1, devices=None) -> Mesh:
    """All devices of all processes as a mesh (data, fsdp).

    Args:
      fsdp: how many devices share one copy of the weights and the optimizer state.
      devices: the devices to use; None for all of them.

    Raises:
      UserError: `fsdp` does not divide the number of devices.
    """
    devices = np.asarray(jax.devices() if devices is None else devices)
    if devices.size % fsdp:
        raise UserError(f"mesh.fsdp={fsdp} does not divide the number of devices, {devices.size}")
    return Mesh(devices.reshape(-1, fsdp), BATCH_AXES)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def shardings(tree: Any, mesh: Mesh) -> Any:
    """A sharding per array: its longest axis that `fsdp` divides is cut, the rest is replicated."""
    parts = mesh.shape["fsdp"]

    def rule(x) -> NamedSharding:
        axes = [axis for axis in range(x.ndim) if x.shape[axis] % parts == 0]
        if parts == 1 or not axes:
            return replicated(mesh)
        cut = max(axes, key=lambda axis: x.shape[axis])
        axis_names = ("fsdp" if axis == cut else None for axis in range(x.ndim))
        return NamedSharding(mesh, PartitionSpec(*axis_names))

    return jax.tree.map(rule, tree)


def process_rows(batch_size: int) -> slice:
    """The rows of a batch that this process loads."""
    rows = batch_size // jax.process_count()
    return slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)


def put_rows(array_MB: np.ndarray, mesh: Mesh) -> jax.Array:
    """The rows of M steps on the devices, [M, B, ...]; every process gives its own rows."""
    layout = NamedSharding(mesh, PartitionSpec(None, BATCH_AXES))
    return jax.make_array_from_process_local_data(layout, array_MB)


def local_copy(tree: Any, mesh: Mesh) -> Any:
    """The whole of every array on this process's first device, however the mesh cut it."""
    whole = jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), whole)
