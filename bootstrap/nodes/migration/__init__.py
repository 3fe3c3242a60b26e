"""Moving slots with their keys: `transfer` (the essay, and which way each move takes), `atomic`, `keys`. Which slots
move is decided in `plan`.
"""
