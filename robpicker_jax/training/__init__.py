"""Losses, the objective, optimisers, the experiment, its data, the loop, and the folder of a run."""
