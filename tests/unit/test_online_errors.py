"""What is said of a feature that there is not."""

from __future__ import annotations

import pytest

from serving.online.errors import not_a_feature

KNOWN = {"weather": ["temp", "wind"], "many": [f"f{number}" for number in range(9)]}
EVERY_MANY = "many:f0, many:f1, many:f2, many:f3, many:f4, many:f5, many:f6, many:f7, ..."


@pytest.mark.parametrize(
    ("asked", "problem", "hint"),
    [
        ("weather:tmp", "there is no feature 'weather:tmp'", "did you mean 'weather:temp'?"),
        ("weather__tmp", "there is no feature 'weather__tmp'", "did you mean 'weather__temp'?"),
        ("wether:temp", "there is no feature 'wether:temp'", "did you mean 'weather:temp'?"),
        ("wether__winds", "there is no feature 'wether__winds'", "did you mean 'weather__wind'?"),
        ("wether", "there is no view 'wether'", "did you mean 'weather'?"),
        ("temp", "there is no view 'temp'", "did you mean 'weather:temp'?"),
        ("weather:zzz", "there is no feature 'weather:zzz'", "there are weather:temp, weather:wind."),
        (
            "wether:zzz",
            "there is no feature 'wether:zzz'",
            "did you mean view 'weather'? It has weather:temp, weather:wind.",
        ),
        ("many:zzz", "there is no feature 'many:zzz'", f"there are {EVERY_MANY}."),
    ],
)
def test_what_may_have_been_meant_is_spelt_as_it_was_asked(asked: str, problem: str, hint: str) -> None:
    assert not_a_feature(asked, KNOWN) == (problem, hint)


def test_without_anything_like_it_some_are_named() -> None:
    assert not_a_feature("zzz:q", {"weather": ["temp"]})[1] == "there are weather:temp."
