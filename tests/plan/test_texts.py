"""Everything that a person reads about a state, word for word."""

from __future__ import annotations

import pytest

from tests.plan.texts import FOLDER, path_of, texts

TEXTS = texts()


@pytest.mark.parametrize("name", TEXTS)
def test_words(name: str) -> None:
    """Of the plan or the refusal, of the check, and of `reinit`: with every remedy, as the state's file has them."""
    assert TEXTS[name]() == path_of(name).read_text(encoding="utf-8")


def test_every_file_belongs_to_a_state() -> None:
    """A file that is left over would be read by people, and checked by nobody."""
    assert set(FOLDER.iterdir()) == {path_of(name) for name in TEXTS}
