"""Parsers, scorers and statistics; no torch."""
