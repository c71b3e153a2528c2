"""One colour, marker and label per arm, the same in every figure, and the weight that an arm gives a token."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    "r-eaft-tail": ("#003F5C", "p"),
    "dft": ("#CC79A7", "v"),
    "focal": ("#E69F00", "P"),
}
# As many as the arms of Protocol S that have no style of their own, and two more.
SPARE = [
    *(("#E69F00", "P"), ("#8C6D31", "X"), ("#6A3D9A", "p"), ("#7F7F7F", "h"), ("#B2B200", "*")),
    *(("#882255", "<"), ("#00A08A", ">"), ("#F0A3B5", "d"), ("#332288", "D"), ("#A6761D", "^"), ("#66A61E", "o")),
]
# The letters of matplotlib's markers as a page can write them.
GLYPHS = dict(zip("s^ovDPXph*<>d", "■▲●▼◆✚✖⬟⬢★◀▶♦"))
UNTRAINED = ("#7F7F7F", "x")
# Of the weightings' parameters, as `equipoise.objectives.weighting` has them.
DEFAULTS: dict[str, dict[str, float]] = {
    "eaft": {"power": 1.0},
    "focal": {"gamma": 2.0},
    "profit": {"threshold": 0.1},
    "stm": {"max_perplexity": 2.5},
    "r-eaft": {"tau": 5.0, "alpha": 3.0, "eps": 1e-6, "clamp": 10.0},
    "r-eaft-tail": {"delta": 0.05, "alpha": 3.0, "sure": 2.0, "clamp": 10.0},
    "r-eaft-recent": {"quantile": 0.5, "tau": 5.0, "alpha": 3.0, "eps": 1e-6, "clamp": 10.0, "window": 1024},
}
_SHOCKED = "1 + alpha · min(shock / tau, clamp) where shock = nll / (h + eps) is above tau, else h"
FORMULAS = {  # p is the probability of the token that was right, h the normalised entropy
    "sft": "1",
    "dft": "p",
    "eaft": "h^power",
    "focal": "(1 − p)^gamma",
    "profit": "1 where p is above the threshold, else 0",
    "stm": "1 where the token's perplexity is at most max_perplexity, else 0",
    "r-eaft": _SHOCKED,
    "r-eaft-tail": "1 + alpha · min(ln tail / ln delta, clamp) where tail, the probability of all tokens at least as "
    "unlikely, is below delta and the entropy at most sure (nats), else h",
    "r-eaft-recent": f"{_SHOCKED}; tau is a quantile of the shocks of the last window of trained tokens",
}
LABELS = {
    "sft": "SFT",
    "eaft": "EAFT",
    "r-eaft": "R-EAFT",
    "r-eaft-detached": "R-EAFT detached",
    "r-eaft-tail": "R-EAFT tail",
    "dft": "DFT",
}


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
    """An arm's objective as the recipe names it, with the parameters that it leaves at their defaults."""

    name: str
    params: Mapping[str, float]

    @property
    def moves(self) -> bool:
        """Tell whether its threshold moves with training."""
        return self.name == "r-eaft-recent"

    @property
    def shock_line(self) -> tuple[float, float] | None:
        """Give (tau, eps) of the line nll = tau * (h + eps) above which a token is shocked, if there is one."""
        return (self.params["tau"], self.params["eps"]) if self.name in SHOCKED else None

    @property
    def weight(self) -> Weight | None:
        """Give the weight as a function of (nll, h), if it has a closed form known here."""
        return CLOSED_FORMS[self.name](self.params) if self.name in CLOSED_FORMS else None

    def after(self, shocks: Sequence[float]) -> "Weighting":
        """Give the objective as it stands once it has seen tokens of these shocks: only a moving threshold changes."""
        if not self.moves or not len(shocks):
            return self
        tau = max(float(np.quantile(shocks, self.params["quantile"])), self.params["eps"])
        return Weighting(self.name, {**self.params, "tau": tau})


def weighting_of(config: Mapping[str, Any], arm: str) -> Weighting:
    """Find an arm's objective in a resolved recipe; an arm that the recipe does not describe goes by its name."""
    arms = config.get("arms")
    settings = arms.get(arm) if isinstance(arms, Mapping) else config.get("objective")
    settings = settings if isinstance(settings, Mapping) else {}
    params = settings.get("params") if isinstance(settings.get("params"), Mapping) else {}
    name = str(settings.get("name") or arm)
    if name not in DEFAULTS and name.startswith("r-eaft"):
        name = "r-eaft"
    numbers = {str(k): float(v) for k, v in (params or {}).items() if isinstance(v, int | float) and math.isfinite(v)}
    return Weighting(name, DEFAULTS.get(name, {}) | numbers)


def _sft(params: Mapping[str, float]) -> Weight:
    return lambda nll, h: np.ones_like(nll * h)


def _dft(params: Mapping[str, float]) -> Weight:
    return lambda nll, h: np.exp(-nll) * np.ones_like(h)


def _eaft(params: Mapping[str, float]) -> Weight:
    return lambda nll, h: np.ones_like(nll) * h ** params["power"]


def _focal(params: Mapping[str, float]) -> Weight:
    return lambda nll, h: (1 - np.exp(-nll)) ** params["gamma"] * np.ones_like(h)


def _reaft(params: Mapping[str, float]) -> Weight:
    tau, alpha, eps, clamp = (params[name] for name in ("tau", "alpha", "eps", "clamp"))

    def weight(nll: NDArray[np.float64], h: NDArray[np.float64]) -> NDArray[np.float64]:
        if alpha == 0:  # no correction is eaft, as in the objective itself
            return h * np.ones_like(nll)
        shock = nll / (h + eps)
        return np.where(shock > tau, 1 + alpha * np.minimum(shock / tau, clamp), h)

    return weight


def _profit(params: Mapping[str, float]) -> Weight:
    return lambda nll, h: (np.exp(-nll) > params["threshold"]) * np.ones_like(h)


def _stm(params: Mapping[str, float]) -> Weight:
    return lambda nll, h: (np.exp(nll) <= params["max_perplexity"]) * np.ones_like(h)


CLOSED_FORMS = {
    "profit": _profit,
    "stm": _stm,
    "sft": _sft,
    "dft": _dft,
    "eaft": _eaft,
    "focal": _focal,
    "r-eaft": _reaft,
    "r-eaft-recent": _reaft,
}
SHOCKED = ("r-eaft", "r-eaft-recent")
