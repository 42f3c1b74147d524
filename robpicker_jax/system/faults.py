"""Faults of the user's machine, whatever library they come through: the disk, the memory, the devices."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import disk_fault, one_line

_NO_BACKEND = ("Unable to initialize backend", "Unknown backend", "is not in the list of known backends")
_NO_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "bad_alloc", "Cannot allocate memory")


def outside_fault(error: BaseException) -> InputError | None:
    """The one line for an error that the machine is the cause of; None for any other, which is ours.

    Args:
        error: an error that no part of the program made anything of.
    """
    fault = disk_fault(error)
    if fault is not None:
        return fault
    text = str(error)
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == 12):
        return _memory_fault(error)
    if isinstance(error, RuntimeError | ValueError | AssertionError):
        # A platform without its plug-in fails an assertion of JAX's, without a word.
        if any(words in text for words in _NO_BACKEND) or (isinstance(error, AssertionError) and _from_jax(error)):
            asked = os.environ.get("JAX_PLATFORMS")
            where = f"JAX_PLATFORMS={asked}" if asked else "JAX"
            fix = "install JAX's plug-in for that device (see the README), or set JAX_PLATFORMS=cpu"
            return InputError(f"no such device here ({one_line(error)})", where=where, fix=fix)
        if any(words in text for words in _NO_MEMORY):
            return _memory_fault(error)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had too little memory; a full disk, which some call so too, is another fault."""
    if isinstance(error, MemoryError):
        return True
    runtime = isinstance(error, RuntimeError | ValueError) and any(words in str(error) for words in _NO_MEMORY)
    return runtime and disk_fault(error) is None


def _from_jax(error: BaseException) -> bool:
    """Whether an error was raised where JAX looks for devices."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).name == "xla_bridge.py"


def _memory_fault(error: BaseException) -> InputError:
    return InputError(
        f"the memory does not suffice ({one_line(error)})",
        fix="take smaller tiles or patches, more parallel.micro_batches, or a machine with more memory",
    )
