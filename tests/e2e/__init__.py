"""The whole thing on a real Kubernetes cluster, for whoever names one: `make e2e E2E_CONTEXT=… E2E_LOAD=…`."""
