"""From a tomogram to picks: tiled inference, clusterings, pickers, files of picks, calibration."""
