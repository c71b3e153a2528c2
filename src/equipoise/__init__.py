"""Equipoise: post-training that weighs what a language model already knows."""

import importlib

__version__ = "0.1.0"

_EXPORTS = {
    "REAFTLoss": "equipoise.objectives.reaft",
    "RECOMMENDED_CONFIG": "equipoise.objectives.reaft",
    "train_with_reaft": "equipoise.objectives.reaft",
    "weighting": "equipoise.objectives.weighting",
    "Weighting": "equipoise.objectives.weighting",
    "fused_linear_loss": "equipoise.objectives.fused_head",
    "TokenLoss": "equipoise.objectives.fused_head",
    "evaluate_knowledge": "equipoise.evaluation.asking",
    "compare": "equipoise.metrics.statistics",
    "equivalence": "equipoise.metrics.statistics",
    "calibration_error": "equipoise.metrics.calibration",
    "UserError": "equipoise.errors",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str):
    """Import a public name on first use, so that `import equipoise` costs nothing."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'equipoise' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
