"""Public checkers: is it a group, does a distribution move with its input, is a model equivariant?

Each raises `AssertionError` (`equivariance_error` returns a report), is seeded, and states its false-alarm rate.
"""

from probsym.testing.distributions import assert_distribution
from probsym.testing.equivariance import EquivarianceReport, assert_equivariant, equivariance_error
from probsym.testing.groups import assert_group

__all__ = ["EquivarianceReport", "assert_distribution", "assert_equivariant", "assert_group", "equivariance_error"]
