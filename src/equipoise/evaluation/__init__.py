"""Scoring of models, item by item."""
