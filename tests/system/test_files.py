"""How files are written: who may read them stays, links are not followed, and killed processes leave nothing for good."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import atomic_path, clear_temporary, from_here, write_text
from robpicker_jax.training.lock import LOCK, locked

pytestmark = pytest.mark.fast


def test_e10_the_mode_of_a_file_that_is_replaced_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    umask = os.umask(0o027)
    try:
        write_text(path, "one")
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o604)
        write_text(path, "two")
    finally:
        os.umask(umask)
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o604


def test_a_link_is_replaced_and_what_it_leads_to_is_left_alone(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("hours of work")
    link = tmp_path / "out.txt"
    link.symlink_to(own)
    write_text(link, "new")
    assert own.read_text() == "hours of work"
    assert not link.is_symlink()


def test_a_lock_that_is_a_link_is_refused_and_the_file_behind_it_kept(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("hours of work")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(own)
    with pytest.raises(InputError, match="symbolic links"), locked(tmp_path / "run"):
        pass
    assert own.read_text() == "hours of work"


def test_e10_what_a_killed_process_left_half_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, signal; from robpicker_jax.system.files import atomic_path\n"
        f"with atomic_path({str(tmp_path / 'a.txt')!r}) as path:\n"
        "    path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == -9
    assert len(list(tmp_path.glob(".tmp-*"))) == 1
    (tmp_path / ".tmp-of-another-program").write_text("x")
    with atomic_path(tmp_path / "b.txt") as mine:
        clear_temporary(tmp_path)
        assert mine.exists()  # this process is alive
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-of-another-program", "b.txt"]


def test_paths_are_shown_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert str(from_here(tmp_path / "project/RUN/a")) == str(Path("RUN/a"))
    assert from_here(tmp_path / "project-2/a") == tmp_path / "project-2/a"
    assert str(from_here("../a")) == str(Path("../a"))
