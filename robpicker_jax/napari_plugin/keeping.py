"""What keeps a review in napari: one file of decisions for each list, written after every edit and taken up when it is opened.

The page of a review leaves the same to the browser.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from robpicker_jax.reviewing import Review, ReviewList, fingerprint, read_decisions, write_decisions
from robpicker_jax.reviewing.decisions import TomogramDecisions
from robpicker_jax.system.errors import InputError

_LONGEST_NAME = 60


def kept_name(given: ReviewList) -> str:
    """The name of the file that keeps the review of a list: it tells tomograms, lists and their classes apart."""
    content = json.dumps([given.name, fingerprint(given.particles), list(given.class_names)])
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', given.name)[:_LONGEST_NAME]}_{digest}.json"


class Keeper:
    """Keeps the review of one list.

    Attributes:
        path: its file, which is there once something has been decided; None: nothing is kept.
        fault: why nothing is kept, None where it is.
    """

    def __init__(self, folder: Path | None, given: ReviewList) -> None:
        self.path = None if folder is None else folder / kept_name(given)
        self.fault: str | None = None
        self._given = given

    def read(self) -> TomogramDecisions | None:
        """What was decided before; None where nothing was, or where it cannot be read, which `fault` then tells."""
        try:
            if self.path is None or not self.path.is_file():
                return None
            entry = read_decisions(self.path, self._given.class_names).tomograms.get(self._given.name)
            if entry is not None:
                entry.review_of(self._given)
            return entry
        except (InputError, OSError) as error:
            # A newer version of the package may have written the file, so that nothing may take its place.
            self.path, self.fault = None, f"what was kept cannot be read: {error}"
            return None

    def write(self, review: Review, min_scores: Mapping[str, float]) -> None:
        """Keep a review as it is now; where the disk refuses that, `fault` tells why."""
        if self.path is None:
            return
        try:
            if review.edits or min_scores:
                write_decisions(self.path, "napari", [(review, min_scores)])
            else:
                self.path.unlink(missing_ok=True)
            self.fault = None
        except (InputError, OSError) as error:
            self.fault = str(error)
