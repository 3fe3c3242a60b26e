"""Tests of the local cluster: real DNS, real servers, real signals."""
