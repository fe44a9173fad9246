"""Names of weights that several layouts share, or that one builds by rule."""
