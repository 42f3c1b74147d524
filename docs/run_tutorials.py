"""Execute the tutorials in place: `python docs/run_tutorials.py [--limit SECONDS] [NAME …]`, all without a name.

Each notebook runs in an empty temporary folder, with this checkout's package and the commands of this environment, and is
written back with its new outputs and without metadata of this machine. It needs the extra `tutorials`, and
docs/tutorials/copick.ipynb the extra `copick`. The tests refuse outputs with errors, warnings or absolute paths.

The seconds of each notebook are printed with the machine, and stated in docs/start.md. A tutorial is to take less than
five minutes on two free cores: one that takes longer than `--limit` ends the command, and its file stays as it is. Where
other programs use the cores too, a larger limit gives it the time that it then takes.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
LIMIT_S = 300
"""What a tutorial may take on two free cores, seconds."""
_TERMINAL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def executed(path: Path, limit_s: float = LIMIT_S) -> Any:
    """The notebook with the outputs of a new execution.

    Args:
        path: of the notebook.
        limit_s: what all its cells may take together, seconds.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the message holds it.
        nbclient.exceptions.CellTimeoutError: the limit was reached; the message holds the cell that ran then.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    search = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": search,
    }
    deadline = time.monotonic() + limit_s

    def left(_: Any) -> int:
        """What a cell may take, in whole seconds; nbclient reads 0 as no limit at all."""
        return max(1, round(deadline - time.monotonic()))

    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout_func=left, kernel_name="python3", resources=resources)
        client.execute(env=environment)
    return cleaned(notebook)


def cleaned(notebook: Any) -> Any:
    """The notebook without times and versions in its metadata and without codes for a terminal in its outputs."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = {}
            if "text" in output:
                lines = _TERMINAL.sub("", output.text).splitlines()
                output.text = "\n".join(line.rstrip() for line in lines) + "\n"
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """The outputs with what was printed in one piece, however it arrived."""
    joined: list[Any] = []
    for output in outputs:
        before = joined[-1] if joined else None
        if before is not None and output.get("name") is not None and output.get("name") == before.get("name"):
            before.text += output.text
        else:
            joined.append(output)
    return joined


def main() -> int:
    """Execute and write what is named, or all."""
    import nbformat

    parser = argparse.ArgumentParser(description="Execute the tutorials in place.")
    parser.add_argument("names", metavar="NAME", nargs="*", help="of docs/tutorials/; default: all")
    parser.add_argument("--limit", metavar="SECONDS", type=float, default=LIMIT_S, help="of each; default: %(default)s")
    options = parser.parse_args()
    paths = [TUTORIALS / f"{name.removesuffix('.ipynb')}.ipynb" for name in options.names]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores ({platform.processor() or platform.machine()})", flush=True)
    for path in paths or sorted(TUTORIALS.glob("*.ipynb")):
        start = time.monotonic()
        notebook = executed(path, options.limit)
        nbformat.write(notebook, path)
        print(f"{path.relative_to(ROOT)}: {time.monotonic() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
