"""Kind: two processes in one work folder (field row A17)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from robpicker_jax.system.errors import InputError
from robpicker_jax.training.lock import LOCK, locked

_HOLDER = """
import sys, time
from pathlib import Path
from robpicker_jax.training.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(workdir: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder's lock."""
    environment = {**os.environ, "SLURM_JOB_ID": "4711"}
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(workdir)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a17_a_second_process_is_refused_by_name_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        with pytest.raises(InputError, match=rf"process {process.pid} on \S+, job 4711"), locked(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked(tmp_path):
            assert str(os.getpid()) in (tmp_path / LOCK).read_text()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a17_without_locks_of_the_file_system_a_process_that_is_gone_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with locked(tmp_path):
        text = (tmp_path / LOCK).read_text()
        with pytest.raises(InputError, match="another process"), locked(tmp_path):
            pass
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / LOCK).write_text(text.replace(str(os.getpid()), str(gone.pid)))
    with locked(tmp_path):
        pass
