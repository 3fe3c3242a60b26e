"""A real cluster on one machine without Kubernetes: real servers, real DNS, and then the same `apply` as in the Job.

`zone` → `nameserver` answer as cluster DNS would; `addresses`, `programs`, `leash` → `servers` run real servers;
`cluster` joins the two; `home` remembers a cluster in its directory; `arguments`, `signals`, `host`, `keeper` and
`command` are the command line.
"""
