"""Loading and generating with causal language models."""
