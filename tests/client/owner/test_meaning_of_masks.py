"""What an owner reads about masks before signing."""

from fondaco.client.meaning import meaning_in_words, plan_meaning


def _words(plan):
    return " ".join(meaning_in_words(plan, plan_meaning(plan, None)))


def test_masked_plan_says_what_hides_the_silos_numbers(make_plan, make_masked):
    plan = make_plan(**make_masked())
    words = _words(plan)
    assert f"silos that side with it ({plan.cohort.t_collude})" in words
    assert "your share were seen in the clear" in words
    assert f"a sum of at least {plan.cohort.n_min} silos" in words
    assert f"to which {plan.cohort.threshold} silos have agreed" in words


def test_plan_in_the_clear_says_so(make_plan):
    assert "sums are taken in the clear" in _words(make_plan())


def test_plan_without_shared_noise_says_that_nothing_is_masked(make_plan):
    words = _words(make_plan(trust="silo"))
    assert "Your sums are not masked: the coordinator reads each of them" in words
    assert "broke" not in words
    assert "in the clear" not in words
