"""A small world whose truth is known, and the model that was taught it."""
