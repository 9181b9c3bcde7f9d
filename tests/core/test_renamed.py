"""Options under their old names are read, and the warning names the new one."""

from __future__ import annotations

import pytest

from mgpo_core.messages.renamed import with_current_names


def test_an_old_name_is_read_with_a_warning_that_names_the_new_one() -> None:
    with pytest.warns(FutureWarning, match="pictures=3: pictures is now called keep_images; write keep_images=3"):
        assert with_current_names({"pictures": 3, "seed": 1}, {"pictures": "keep_images"}) == {
            "keep_images": 3,
            "seed": 1,
        }


def test_an_option_under_both_names_is_refused() -> None:
    with pytest.raises(ValueError, match="pictures is the old name of keep_images: give keep_images alone"):
        with_current_names({"pictures": 3, "keep_images": 4}, {"pictures": "keep_images"})
