"""napari without a screen, and apart from what the user's own napari keeps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.napari_plugin.cases import NOT_INSTALLED

# Both are read when napari and Qt are imported. An empty name means settings that are neither read nor written.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ["NAPARI_CONFIG"] = ""


@pytest.fixture(autouse=True)
def reviews_apart(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Qt find another folder of application data, so that no test touches reviews that the user keeps."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("application_data")))


@pytest.fixture
def viewer() -> Any:
    """napari's viewer without a window."""
    return pytest.importorskip("napari.components", reason=NOT_INSTALLED).ViewerModel()


@pytest.fixture
def application() -> Any:
    """Qt, for widgets without napari's window."""
    widgets = pytest.importorskip("qtpy.QtWidgets", reason=NOT_INSTALLED)
    return widgets.QApplication.instance() or widgets.QApplication([])


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """napari's viewer with its window, as a user has it, which is drawn nowhere."""
    napari = pytest.importorskip("napari", reason=NOT_INSTALLED)
    pytest.importorskip("napari._qt.qt_main_window", reason=NOT_INSTALLED)
    from vispy.gloo import gl
    from vispy.gloo.gl import _pyopengl2

    # Qt's offscreen platform has no OpenGL, which napari asks for its limits even where nothing is drawn.
    limits = {gl.GL_EXTENSIONS: ""}
    for module in (gl, _pyopengl2):
        monkeypatch.setattr(module, "glGetParameter", lambda name: limits.get(name, 2048))
    viewer = napari.Viewer(show=False)
    yield viewer
    viewer.close()
