"""Forms and keeps a Redis Cluster on Kubernetes from one Job: look, decide, do one safe thing, look again."""

__version__ = "0.1.0"
