"""Arguments by their old names: accepted with a warning, refused beside the new one."""

from __future__ import annotations

import pytest

from scions.deprecation import renamed_arguments


@renamed_arguments(root="adapters", kept="density")
def function(name, *, adapters=None, density=0.2):
    return name, adapters, density


def test_the_old_name_is_accepted_with_a_warning_at_the_caller():
    with pytest.warns(DeprecationWarning, match=r"function\(root=\.\.\.\) is deprecated; use adapters=\.\.\.") as seen:
        assert function("legal", root="folder") == ("legal", "folder", 0.2)
    assert seen[0].filename == __file__


def test_the_new_name_warns_of_nothing(recwarn):
    assert function("legal", adapters="folder", density=0.5) == ("legal", "folder", 0.5)
    assert not recwarn


def test_both_names_are_refused():
    with pytest.raises(TypeError, match="both 'adapters' and its old name 'root'"):
        function("legal", adapters="one", root="other")
