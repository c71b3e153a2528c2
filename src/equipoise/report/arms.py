"""One colour, marker and label per arm, the same in every figure, and the weight that an arm gives a token."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weight = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]

# Okabe & Ito's palette, safe for colour-blind readers; shape tells arms apart where colour is lost.
FIXED = {
    "sft": ("#D55E00", "s"),
    "eaft": ("#009E73", "^"),
    "r-eaft": ("#0072B2", "o"),
    "r-eaft-detached": ("#56B4E9", "D"),
    "dft": ("#CC79A7", "v"),
    "focal": ("#E69F00", "P"),
}
SPARE = [("#E69F00", "P"), ("#8C6D31", "X"), ("#6A3D9A", "p"), ("#7F7F7F", "h"), ("#B2B200", "*")]
UNTRAINED = ("#7F7F7F", "x")
LABELS = {"sft": "SFT", "eaft": "EAFT", "r-eaft": "R-EAFT", "r-eaft-detached": "R-EAFT detached", "dft": "DFT"}


@dataclass(frozen=True)
class Arm:
    """How one arm is drawn. `marker` is matplotlib's letter."""

    name: str
    label: str
    colour: str
    marker: str


def styles(names: Iterable[str]) -> dict[str, Arm]:
    """Give every arm its style: known ones always the same, others the spare colours in order."""
    names, used = list(names), 0
    known, drawn = {name: FIXED[name] for name in names if name in FIXED}, {}
    spare = [style for style in SPARE if style not in known.values()]
    for name in names:
        colour, marker = known.get(name) or spare[used % len(spare)]
        used += name not in known
        drawn[name] = Arm(name, LABELS.get(name, name), colour, marker)
    return drawn


@dataclass(frozen=True)
class Weighting:
    """An arm's objective as the recipe names it."""

    name: str
    params: Mapping[str, float]

    @property
    def shock_line(self) -> tuple[float, float] | None:
        """Give (tau, eps) of the line nll = tau * (h + eps) above which a token is shocked, if there is one."""
        return (self.params.get("tau", 5.0), self.params.get("eps", 1e-6)) if self.name == "r-eaft" else None

    @property
    def weight(self) -> Weight | None:
        """Give the weight as a function of (nll, h), if it has a closed form known here."""
        return CLOSED_FORMS[self.name](self.params) if self.name in CLOSED_FORMS else None


def weighting_of(config: Mapping[str, Any], arm: str) -> Weighting:
    """Find an arm's objective in a resolved recipe; an arm that the recipe does not describe goes by its name."""
    arms = config.get("arms")
    settings = arms.get(arm) if isinstance(arms, Mapping) else config.get("objective")
    settings = settings if isinstance(settings, Mapping) else {}
    params = settings.get("params") if isinstance(settings.get("params"), Mapping) else {}
    name = str(settings.get("name") or arm)
    if name not in CLOSED_FORMS and name.startswith("r-eaft"):
        name = "r-eaft"
    numbers = {str(k): float(v) for k, v in (params or {}).items() if isinstance(v, int | float) and math.isfinite(v)}
    return Weighting(name, numbers)


def _sft(params: Mapping[str, float]) -> Weight:
    return lambda nll, h: np.ones_like(nll * h)


def _dft(params: Mapping[str, float]) -> Weight:
    return lambda nll, h: np.exp(-nll) * np.ones_like(h)


def _eaft(params: Mapping[str, float]) -> Weight:
    return lambda nll, h: np.ones_like(nll) * h ** params.get("power", 1.0)


def _focal(params: Mapping[str, float]) -> Weight:
    return lambda nll, h: (1 - np.exp(-nll)) ** params.get("gamma", 2.0) * np.ones_like(h)


def _reaft(params: Mapping[str, float]) -> Weight:
    tau, alpha = params.get("tau", 5.0), params.get("alpha", 3.0)
    eps, clamp = params.get("eps", 1e-6), params.get("clamp", 10.0)

    def weight(nll: NDArray[np.float64], h: NDArray[np.float64]) -> NDArray[np.float64]:
        if alpha == 0:  # no correction is eaft, as in the objective itself
            return h * np.ones_like(nll)
        shock = nll / (h + eps)
        return np.where(shock > tau, 1 + alpha * np.minimum(shock / tau, clamp), h)

    return weight


def _profit(params: Mapping[str, float]) -> Weight:
    return lambda nll, h: (np.exp(-nll) > params.get("threshold", 0.1)) * np.ones_like(h)


def _stm(params: Mapping[str, float]) -> Weight:
    return lambda nll, h: (np.exp(nll) <= params.get("max_perplexity", 2.5)) * np.ones_like(h)


CLOSED_FORMS = {
    "profit": _profit,
    "stm": _stm,
    "sft": _sft,
    "dft": _dft,
    "eaft": _eaft,
    "focal": _focal,
    "r-eaft": _reaft,
}
