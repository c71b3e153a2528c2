"""What the tests of `statistics` return. A number that could not be computed is None, and `note` says why."""

from dataclasses import dataclass
from typing import Literal

Interval = tuple[float, float]
Alternative = Literal["two-sided", "greater", "less"]


@dataclass(frozen=True)
class Mean:
    """A mean with its sample variance and Student's t interval. A single value has neither; equal values have none."""

    mean: float
    variance: float | None
    ci: Interval | None
    n: int
    note: str | None = None


@dataclass(frozen=True)
class Comparison:
    """A difference of means, mean(a) - mean(b).

    Attributes:
        ci: two-sided interval of the difference, whatever the alternative.
        p: for `alternative`; `p_two_sided` beside it.
        effect_size: in standard deviations, of the differences if paired (Cohen's d_z), else of the mean variance.
        n: pairs if paired, else values in both together.
        note: why there is no test, if there is none.
    """

    estimate: float
    ci: Interval | None
    t: float | None
    df: float | None
    p: float | None
    p_two_sided: float | None
    effect_size: float | None
    n: int
    test: str
    alternative: Alternative
    note: str | None = None


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided t tests (TOST): is mean(a) - mean(b) inside (-margin, margin)?

    Attributes:
        ci: interval of confidence 1 - 2*alpha, inside the margin exactly when `equivalent`.
        p: the larger of the two one-sided p-values.
        equivalent: None if there is no test, and then `note` says why.
    """

    estimate: float
    ci: Interval | None
    margin: float
    t_lower: float | None
    t_upper: float | None
    df: float | None
    p: float | None
    equivalent: bool | None
    n: int
    test: str
    note: str | None = None


@dataclass(frozen=True)
class VarianceRatio:
    """F test of var(a) = var(b), two-sided, for independent normal samples. `ratio` is var(a) / var(b)."""

    ratio: float | None
    ci: Interval | None
    p: float | None
    variance_a: float
    variance_b: float
    df: tuple[int, int]
    note: str | None = None


@dataclass(frozen=True)
class McNemar:
    """Exact McNemar test on paired right-or-wrong answers: of the items where a and b differ, is half won by each?"""

    only_a: int
    only_b: int
    p: float | None
    p_two_sided: float | None
    n: int
    note: str | None = None


@dataclass(frozen=True)
class Ratio:
    """mean(a) / mean(b) of paired values, with Fieller's interval; it is None where it would not be finite."""

    ratio: float | None
    ci: Interval | None
    n: int
    note: str | None = None
