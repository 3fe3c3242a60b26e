"""A Redis Cluster on one machine without Kubernetes: real servers, a real DNS server and the same `apply` as in a Job.

Nothing here forms, checks or repairs a cluster. Only the program's command line and the tests import this package.
"""
