"""No command opens a connection, and no module does when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

WATCHED = """
import sys

ASKED = []

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        ASKED.append((event, arguments[1:]))

sys.addaudithook(watch)
import importlib, pkgutil, robpicker_jax
from robpicker_jax.commands.cli import call
for module in pkgutil.walk_packages(robpicker_jax.__path__, "robpicker_jax."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:  # the plug-in's window needs napari's extra
            assert ".napari_plugin." in module.name and error.name in ("napari", "qtpy"), (module.name, error)
run, out = sys.argv[1:]
commands = [
    ["doctor", "--data", f"{run}/data", "--no-resources"],
    ["convert", f"{run}/picks/test_000.xml", f"{out}/a.csv"],
    ["evaluate", "--truth", f"{run}/data/test/test_000_objl.xml", "--picks", f"{run}/picks/test_000.xml", "--rule=tolerance"],
    ["report", "--workdir", run, "--out", f"{out}/report"],
    ["pick", "--workdir", run, "--out", f"{out}/picks", f"{run}/data/test/test_000.mrc"],
]
for verb, *arguments in commands:
    assert call(importlib.import_module(f"robpicker_jax.{verb}").main, arguments) in (0, 2), verb
assert not ASKED, ASKED
print("nothing was asked")
"""


def test_no_command_asks_the_network(tiny_run: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", WATCHED, str(tiny_run), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "nothing was asked" in done.stdout
