"""Tests, one folder per room of the package; what a folder's tests share is a module in that folder."""
