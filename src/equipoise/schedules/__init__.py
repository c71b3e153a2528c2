"""Pure state machines that decide order and stopping; no torch."""
