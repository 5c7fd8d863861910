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


def test_old_names_of_attributes_warn():
    from scions.evaluation.bootstrap import Interval
    from scions.evaluation.verdict import SAME, Verdict
    from scions.training import Plan

    one = Interval(1.0, 0.5, 1.5)
    verdict = Verdict(SAME, "ndcg@10", one, one, one, metrics=[], general=None, drift=None, baselines={"linear": one})
    with pytest.warns(DeprecationWarning, match=r"Verdict\.baselines"):
        assert verdict.rivals == {"linear": one}
    plan = Plan("base", "lora", "pairs", {}, [], None, 4, 10, 0.1, 5, 0, baseline_seconds=2.0)
    with pytest.warns(DeprecationWarning, match=r"Plan\.baseline_seconds"):
        assert plan.rival_seconds == 2.0
