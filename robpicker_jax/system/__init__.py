"""The machine and the process: errors, files, progress, memory, compilation."""
