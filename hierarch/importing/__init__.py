"""Configs of other libraries as specs. They are read as data: nothing in them runs."""
