"""The commands start themselves again with large pages, once, where that is of use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from robpicker_jax.system import large_pages


@pytest.fixture
def useful(monkeypatch, tmp_path):
    mode = tmp_path / "enabled"
    mode.write_text("always [madvise] never\n")
    monkeypatch.setattr(large_pages, "_MODE", mode)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(large_pages.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return mode


def test_environment_asks_for_large_pages(useful):
    found = large_pages.environment_with_large_pages()
    assert found is not None
    assert found["GLIBC_TUNABLES"] == large_pages.LARGE_PAGES
    assert found["PATH"] == os.environ["PATH"]
    kept = large_pages.environment_with_large_pages(keep=True)
    assert kept is not None
    assert kept["GLIBC_TUNABLES"] == f"{large_pages.LARGE_PAGES}:{large_pages.KEEP}"


@pytest.mark.parametrize("mode", ["[always] madvise never", "always madvise [never]"])
def test_nothing_to_ask_where_the_kernel_decides(useful, mode):
    useful.write_text(mode)
    assert large_pages.environment_with_large_pages() is None


@pytest.mark.parametrize("library", [("glibc", "2.34"), ("", ""), ("musl", "1.2")])
def test_nothing_to_ask_of_other_libraries(useful, monkeypatch, library):
    monkeypatch.setattr(large_pages.platform, "libc_ver", lambda: library)
    assert large_pages.environment_with_large_pages() is None


def test_the_users_own_setting_is_left_alone(useful, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    assert large_pages.environment_with_large_pages() is None


def test_no_such_file(useful, monkeypatch, tmp_path):
    monkeypatch.setattr(large_pages, "_MODE", tmp_path / "absent")
    assert large_pages.environment_with_large_pages() is None


def test_a_restarted_command_keeps_its_arguments(tmp_path):
    script = (
        "import sys, os; from robpicker_jax.system.large_pages import restart_with_large_pages as again; again(); "
        "print(sys.argv[1:], os.environ.get('GLIBC_TUNABLES'))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    expected = (large_pages.environment_with_large_pages() or {}).get("GLIBC_TUNABLES")
    if "GLIBC_TUNABLES" in os.environ:
        pytest.skip("this process's own setting hides what a fresh one would take")
    done = subprocess.run(
        [sys.executable, "-c", script, "--a", "b c"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"['--a', 'b c'] {expected}"
