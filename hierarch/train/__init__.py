"""Training, evaluation and prediction, on Lightning Fabric.

Names are imported when they are first used: recipes are read without torch and without Lightning.
"""
