"""The nouns that all other rooms share: nodes, slots, views, the declared shape, steps, plans, outcomes. All are frozen
and hold no socket. Code that decides, reads or writes belongs to another package.
"""
