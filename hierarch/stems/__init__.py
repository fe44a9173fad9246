"""Stems, from an image to tokens, one file each. The file's name is the part's name."""
