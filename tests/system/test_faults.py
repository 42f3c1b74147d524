"""Faults of the user's machine are one line, through whatever library they come (field rows B13, B15)."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robpicker_jax.commands.cli import call
from robpicker_jax.system.faults import outside_fault


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """The error, raised from its cause."""
    try:
        raise error from cause
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ENOENT])
def test_b15_an_error_of_the_disk_is_one_line_with_the_file(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(_: list[str]) -> int:
        raise OSError(number, os.strerror(number), str(tmp_path / "x.mrc"))

    assert call(failing, []) == 2
    error = capsys.readouterr().err.strip()
    assert "x.mrc" in error
    assert os.strerror(number).lower() in error
    assert len(error.splitlines()) == 1


def test_b15_an_error_of_the_disk_is_known_however_libraries_wrap_it() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert outside_fault(raised(RuntimeError("writer failed"), full)) is not None
    words = "RESOURCE_EXHAUSTED: Error writing local file: No space left on device [os_error_code='28']"
    fault = outside_fault(ValueError(words))
    assert fault is not None
    assert "no space left" in str(fault)


def test_b15_low_memory_is_one_line() -> None:
    for error in (MemoryError("Unable to allocate 40 GiB"), ValueError("RESOURCE_EXHAUSTED: Out of memory allocating")):
        fault = outside_fault(error)
        assert fault is not None
        assert "memory" in str(fault)


def test_b15_our_own_errors_stay_ours() -> None:
    for error in (ValueError("shapes differ"), AssertionError(), RuntimeError("x"), KeyError("x")):
        assert outside_fault(raised(error)) is None


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_b13_a_device_without_its_plug_in_is_one_line(platform: str, tmp_path: Path) -> None:
    environment = {**os.environ, "JAX_PLATFORMS": platform}
    if platform == "cuda":
        import importlib.util

        if importlib.util.find_spec("jax_cuda12_plugin") or importlib.util.find_spec("jax_cuda13_plugin"):
            pytest.skip("the plug-in for CUDA is installed")
    command = [sys.executable, "-m", "robpicker_jax.train", "--workdir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 2
    error = done.stderr.strip().splitlines()[-1]
    assert f"JAX_PLATFORMS={platform}" in error
    assert "Traceback" not in done.stderr
