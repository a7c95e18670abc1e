"""The same pure step on one device or many: under pmap, or under jit over a device mesh.

Both map one function `step(state, batch, model)` over the axis AXIS: every device holds the whole state and model and
its part of the batch, and the step averages what it computes over the axis. `mapping("pmap")` and `mapping("sharded")`
differ in how arrays are laid out, which their four methods hide.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxface.core.errors import InputError

AXIS = "devices"
"""The mapped axis: pass it to `jax.lax.pmean` and to BatchNorm's axis_name."""

Step = Callable[[Any, Any, Any], tuple[Any, Any]]


class Mapping(Protocol):
    """How a step and its arrays are spread over the devices."""

    def compile(self, step: Step) -> Step:
        """Maps `step(state, batch, model) -> (state, metrics)` over the devices; the old state's memory is reused."""

    def replicate(self, tree: Any) -> Any:
        """Puts a whole tree of arrays on every device."""

    def shard(self, batch: Any) -> Any:
        """Splits this process's part of the batch [B, ...] among its devices."""

    def fetch(self, tree: Any) -> Any:
        """One copy of a replicated tree, as numpy arrays; waits until it is computed."""


@dataclasses.dataclass(frozen=True)
class Pmap:
    """One leading axis of devices on every array, mapped by `jax.pmap`."""

    devices: tuple[jax.Device, ...]

    def compile(self, step: Step) -> Step:
        """Maps the step by pmap over all devices of all processes."""
        devices = list(self.devices) if jax.process_count() == 1 else None
        return jax.pmap(step, axis_name=AXIS, devices=devices, donate_argnums=0)

    def replicate(self, tree: Any) -> Any:
        """[...] to [local devices, ...]."""
        count = len(self.devices)
        stacked = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x)[None], (count, *np.shape(x))), tree)
        return jax.device_put(stacked, self._sharding)

    def shard(self, batch: Any) -> Any:
        """[B, ...] to [local devices, B / local devices, ...]."""
        count = len(self.devices)
        _check_divisible(batch, count)
        split = jax.tree.map(lambda x: x.reshape(count, len(x) // count, *x.shape[1:]), batch)
        return jax.device_put(split, self._sharding)

    def fetch(self, tree: Any) -> Any:
        """[local devices, ...] to [...]."""
        return jax.tree.map(lambda x: x[0], _copies(tree))

    @property
    def _sharding(self) -> NamedSharding:
        return NamedSharding(Mesh(np.array(self.devices), (AXIS,)), PartitionSpec(AXIS))


@dataclasses.dataclass(frozen=True)
class Sharded:
    """Global arrays over a mesh of devices, mapped by jit and shard_map."""

    devices: tuple[jax.Device, ...]

    def compile(self, step: Step) -> Step:
        """Maps the step by shard_map: state and model replicated, the batch's leading axis split."""
        # check_vma=False gives collectives pmap's meaning, so that one step serves both mappings: parameters belong to
        # each device and so does their gradient, until the step averages it. With the check on, JAX would sum the
        # gradient by itself and the average would come out too large by the number of devices, without an error.
        whole, split = PartitionSpec(), PartitionSpec(AXIS)
        mapped = jax.shard_map(
            step, mesh=self._mesh, in_specs=(whole, split, whole), out_specs=(whole, whole), check_vma=False
        )
        return jax.jit(mapped, donate_argnums=0)

    def replicate(self, tree: Any) -> Any:
        """[...] on every device."""
        sharding = NamedSharding(self._mesh, PartitionSpec())
        # A copy, because device_put may hand back the caller's own memory, which the step's donation would then reuse.
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.array(x)), tree)

    def shard(self, batch: Any) -> Any:
        """[B, ...] per process to one global array [processes B, ...]."""
        _check_divisible(batch, len([d for d in self.devices if d.process_index == jax.process_index()]))
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)

    def fetch(self, tree: Any) -> Any:
        """The first local device's copy."""
        return _copies(tree)

    @property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS,))


def mapping(kind: str, *, devices: list[jax.Device] | None = None) -> Mapping:
    """The way `kind` ("pmap" or "sharded") spreads a step over the devices: by default all of them.

    Raises:
        InputError: for another kind.
    """
    if kind == "pmap":
        return Pmap(tuple(devices or jax.local_devices()))
    if kind == "sharded":
        return Sharded(tuple(devices or jax.devices()))
    raise InputError(f"config.parallel is {kind!r}: choose 'pmap' or 'sharded'")


def initialize(multi_host: bool) -> None:
    """Joins the processes of a multi-host run; call it before anything else touches JAX.

    Under Slurm, Open MPI, Kubernetes and on Cloud TPU, JAX finds the other processes by itself. Elsewhere set
    JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID in every process, which also switches
    multi-host on by itself.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address:
        try:
            count, index = (int(os.environ[name]) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
        except (KeyError, ValueError) as error:
            raise InputError(
                "JAX_COORDINATOR_ADDRESS is set, so JAX_NUM_PROCESSES and JAX_PROCESS_ID must be set to numbers too"
            ) from error
        jax.distributed.initialize(address, num_processes=count, process_id=index)
    elif multi_host:
        jax.distributed.initialize()


def process_batch_size(batch_size: int) -> int:
    """This process's share of the global batch.

    Raises:
        InputError: when the batch cannot be split evenly among all devices.
    """
    if batch_size % jax.device_count():
        raise InputError(
            f"config.batch_size is {batch_size}, which {jax.device_count()} devices cannot share evenly: "
            f"choose a multiple of {jax.device_count()}"
        )
    return batch_size // jax.process_count()


def _copies(tree: Any) -> Any:
    # True copies: a view of a CPU device's memory would keep the next step from reusing it.
    return jax.tree.map(lambda x: np.array(x.addressable_data(0)), tree)


def _check_divisible(batch: Any, count: int) -> None:
    size = len(jax.tree.leaves(batch)[0])
    if size % count:
        raise ValueError(f"a batch of {size} cannot be split evenly among {count} devices")
