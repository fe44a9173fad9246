"""Checkpoints in: whose layout a file has is read off its keys."""

from hierarch.weights.load import LoadReport as LoadReport
from hierarch.weights.load import load_weights as load_weights
