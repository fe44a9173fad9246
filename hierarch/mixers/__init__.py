"""Token mixers, one file each, named like the mixer: spec, claim, module and paper."""
