"""Reads run directories and draws them; never imports torch."""
