"""The package's version; it stands here so that every room can read it without importing the package's face."""

__version__ = "0.1.0"
