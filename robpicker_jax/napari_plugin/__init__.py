"""The napari plug-in: a tomogram with its picks, reviewed in napari. Nothing else imports napari, or this room."""
