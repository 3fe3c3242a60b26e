"""The Kubernetes API: the lock, Events, and what it reports about pods. Nothing here connects to Redis or plans."""
