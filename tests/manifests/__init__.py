"""The manifests, the image and the probes, checked as they come out of a real `kubectl kustomize`."""
