"""Public checkers, for the library's own members and for a user's: each states the laws that it checks.

Is it a group (`assert_group`), a way to act (`assert_slot`), a distribution that moves with its input
(`assert_distribution`), an honest estimator or design (`assert_estimator`, `assert_design`), an equivariant model
(`assert_equivariant`)? Each raises `AssertionError` (`equivariance_error` returns a report), is seeded, and states its
false-alarm rate.
"""

from probsym.testing.distributions import assert_distribution
from probsym.testing.equivariance import EquivarianceReport, assert_equivariant, equivariance_error
from probsym.testing.estimators import assert_design, assert_estimator
from probsym.testing.groups import assert_group
from probsym.testing.slots import assert_slot

__all__ = [
    "EquivarianceReport", "assert_design", "assert_distribution", "assert_equivariant", "assert_estimator",
    "assert_group", "assert_slot", "equivariance_error",
]  # fmt: skip
