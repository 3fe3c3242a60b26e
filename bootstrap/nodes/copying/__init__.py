"""Copying keys into the cluster: read at a source, restored at the owners of their slots, compared."""
