"""Grids of runs that test a claim: arms, seeds, analysis and verdicts."""
