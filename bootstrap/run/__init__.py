"""A run: the verbs, the loop that reaches the desired shape, the report. Decisions are in `plan`, IO in `nodes`."""
