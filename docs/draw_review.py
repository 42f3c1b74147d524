"""Take the pictures of docs/review.md: `python docs/draw_review.py page napari`, or one of the two.

A tomogram is simulated, and a list of picks made of its particles: a third of the small ones is missing, and false ones
with low scores come in. The page is shown by a headless Chromium, as the tests of the page do; the plug-in needs the extra
`napari` and a screen, such as that of `xvfb-run -s "-screen 0 1400x1000x24"`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
IMAGES = ROOT / "docs" / "images"
RADII = {"ribosome": 130.0, "apoferritin": 65.0}  # Å
VOXEL = 13.0  # Å


def tomogram(folder: Path) -> tuple[Path, Path]:
    """A simulated volume and the list of its picks."""
    import robpicker_jax as rp

    species = [{"name": name, "phantom": name, "radius_vox": radius / VOXEL} for name, radius in RADII.items()]
    overrides = [
        f"data.species={species}".replace("'", '"'),
        "simulation.shape_zyx=[64, 160, 160]",
        f"simulation.voxel_size_angstrom={VOXEL}",
        "simulation.snr=0.3",
        "simulation.seed=7",
        "label_noise={}",
    ]
    made = rp.simulate(out=folder / "data", overrides=overrides) / "test"
    truth = rp.read_particles(made / "test_000_objl.xml")
    rng = np.random.default_rng(0)
    kept = truth.select(rng.random(len(truth)) < np.where(truth.labels == 1, 0.95, 0.7))
    false = rng.uniform((8, 8, 8), (152, 152, 56), (9, 3))
    positions = np.concatenate([kept.positions_vox + rng.normal(0, 0.5, kept.positions_vox.shape), false])
    labels = np.concatenate([kept.labels, rng.integers(1, 3, len(false))])
    scores = np.concatenate([rng.beta(9, 2, len(kept)), rng.beta(3, 5, len(false))])
    names = np.array(list(RADII))[labels - 1]
    picks = rp.Particles(positions, labels, scores=scores, class_names=names, tomograms=np.full(len(labels), "TS_03"))
    volume = folder / "TS_03.mrc"
    (made / "test_000.mrc").rename(volume)
    rp.write_particles(folder / "PICKS" / "TS_03.xml", picks)
    return volume, folder / "PICKS"


def page(folder: Path) -> None:
    """The page of a review, with a few decisions made."""
    import robpicker_jax as rp
    from tests.reporting.browser import Browser

    volume, picks = tomogram(folder)
    (written,) = rp.review(volume, picks, species=RADII, out=folder / "REVIEW")
    with Browser(folder / "browser", size=(1180, 1320)) as browser:
        browser.open(written)
        browser.click("stage", at=(0.3, 0.3))
        for key in ("n", "a", "n", "a", "n", "r", "n"):
            browser.press(key)
        browser.settle()
        browser.screenshot(IMAGES / "review_page.png", whole=False)
    make_smaller(IMAGES / "review_page.png")


def napari(folder: Path) -> None:
    """The plug-in with the same picks."""
    import napari
    from qtpy.QtWidgets import QApplication

    import robpicker_jax as rp
    from robpicker_jax.napari_plugin.opening import Opened
    from robpicker_jax.napari_plugin.widget import ReviewWidget
    from robpicker_jax.reviewing.reading import ReviewedTomogram, review_lists

    volume, picks = tomogram(folder)
    density = rp.read_volume(volume).data
    (given,) = review_lists(picks, [ReviewedTomogram("TS_03", VOXEL, density.shape)], list(RADII))
    viewer = napari.Viewer(show=True)
    widget = ReviewWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Review picks")
    widget.keep_in = None
    widget.review(Opened(density, given, [radius / VOXEL for radius in RADII.values()]))
    for do in ("accept", "accept", "reject"):
        widget.session.go(1)
        widget.session.decide(do)
    widget.run.setText("RUN")
    widget.volume.setEditText("TS_03")
    viewer.reset_view()
    viewer.dims.set_point(0, 27)
    viewer.window.resize(1180, 820)
    for _ in range(20):
        QApplication.processEvents()
    viewer.screenshot(str(IMAGES / "review_napari.png"), canvas_only=False, flash=False)
    viewer.close()
    make_smaller(IMAGES / "review_napari.png")


def make_smaller(path: Path) -> None:
    """Keep a picture in 256 colours, which takes a third of the room."""
    from PIL import Image

    # This method gives rare colours their share, so that scores keep theirs among all the greys.
    Image.open(path).convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)


def main(names: list[str]) -> None:
    """Take the named pictures, or both."""
    os.environ.setdefault("MPLBACKEND", "agg")
    for name in names or ["page", "napari"]:
        with tempfile.TemporaryDirectory() as folder:
            {"page": page, "napari": napari}[name](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
