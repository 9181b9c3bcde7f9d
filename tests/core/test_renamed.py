"""Options under their old names are read, and the warning names the new one."""

from __future__ import annotations

import pytest

from mgpo_core.messages.renamed import with_current_names, with_current_values


def test_an_old_name_is_read_with_a_warning_that_names_the_new_one() -> None:
    with pytest.warns(FutureWarning, match="pictures=3: pictures is now called keep_images; write keep_images=3"):
        assert with_current_names({"pictures": 3, "seed": 1}, {"pictures": "keep_images"}) == {
            "keep_images": 3,
            "seed": 1,
        }


def test_an_option_under_both_names_is_refused() -> None:
    with pytest.raises(ValueError, match="pictures is the old name of keep_images: give keep_images alone"):
        with_current_names({"pictures": 3, "keep_images": 4}, {"pictures": "keep_images"})


def test_an_old_value_is_read_with_a_warning_that_names_the_new_one() -> None:
    renamed = {"mode": {"direct": "single_turn"}}
    with pytest.warns(FutureWarning, match="^mode=direct: direct is now called single_turn; write mode=single_turn$"):
        assert with_current_values({"mode": "direct", "seed": 1}, renamed) == {"mode": "single_turn", "seed": 1}


@pytest.mark.parametrize("mode", ["two_turn", "single_turn", None, 3])
def test_other_values_stay_without_a_warning(mode, recwarn) -> None:
    assert with_current_values({"mode": mode}, {"mode": {"direct": "single_turn"}}) == {"mode": mode}
    assert with_current_values({}, {"mode": {"direct": "single_turn"}}) == {}
    assert not [warning for warning in recwarn if warning.category is FutureWarning]
