"""The pictures of the documentation, each drawn from its source by `make pictures`."""
