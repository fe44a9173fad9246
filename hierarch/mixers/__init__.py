"""Token mixers, one file each: its spec, its claim, its module, its paper.

The file's name is the mixer's name.
"""
