"""What holds for every test."""

from collections.abc import Generator

import pytest
from hypothesis import Phase, settings

from tests.available_servers import BARE_PATH
from tests.bare_path import guarded, has_a_packaged_server, makes_no_difference

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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what `.ci/without-servers` need not repeat."""
    if BARE_PATH:
        config.hook.pytest_deselected(items=[item for item in items if makes_no_difference(item)])
        items[:] = [item for item in items if not makes_no_difference(item)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Checks, with every PATH, that PATH makes no difference to such a test."""
    if not has_a_packaged_server(item):
        return (yield)
    with guarded():
        return (yield)
