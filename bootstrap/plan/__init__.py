"""The decisions: what is wrong with a cluster, which steps repair or resize it, and when to refuse. All of it is pure.
Code that reads or writes a server, and anything that needs a clock or a log, belongs to another package.
"""
