"""End-to-end tests on a real Kubernetes cluster: `make e2e E2E_CONTEXT=… E2E_LOAD=…`."""
