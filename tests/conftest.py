"""What holds for every test."""

import pytest
from hypothesis import Phase, settings

# Assertions in modules that tests share are explained in the same way as those of the tests.
pytest.register_assert_rewrite(
    *(f"tests.real.{module}" for module in ("clusters", "sizes", "processes", "strangers", "testbed")),
    *("tests.builders", "tests.waiting", "tests.kube.servers", "tests.manifests.servers", "tests.e2e.harness"),
)

# How long an example takes says nothing on a machine that does other things too.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
# For `make mutants`: always the same examples, and a failing one is not made smaller.
settings.register_profile(
    "mutants", deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)
