"""From a tomogram to picks: tiled inference, clustering, files of picks, calibration."""
