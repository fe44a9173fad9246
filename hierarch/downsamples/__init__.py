"""Downsamplings between stages, one file each. The file's name is the part's name."""
