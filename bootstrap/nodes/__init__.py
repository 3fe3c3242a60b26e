"""Redis nodes and their DNS: discover, look, write, move slots, probe. Decisions about what to write belong in `plan`,
the order of a run in `run`.
"""
