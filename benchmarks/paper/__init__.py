"""Studies of the method, after the paper's figures and ablations: `python -m benchmarks.paper --study NAME`."""
