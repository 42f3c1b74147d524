"""Execute the tutorials in place: `python docs/run_tutorials.py [NAME …]`, all of docs/tutorials/ without a name.

Each notebook runs in an empty temporary folder, with this checkout's package and the commands of this environment, and is
written back with its new outputs and without metadata of this machine. It needs the extra `tutorials`, and
docs/tutorials/copick.ipynb the extra `copick`. The tests refuse outputs with errors, warnings or absolute paths.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
TIMEOUT_S = 1800
_TERMINAL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def executed(path: Path) -> Any:
    """The notebook with the outputs of a new execution.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the message holds it.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    search = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": search,
    }
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=TIMEOUT_S, kernel_name="python3", resources=resources)
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

    paths = [TUTORIALS / f"{name.removesuffix('.ipynb')}.ipynb" for name in sys.argv[1:]]
    for path in paths or sorted(TUTORIALS.glob("*.ipynb")):
        nbformat.write(executed(path), path)
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
