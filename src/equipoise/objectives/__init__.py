"""Token-weighted losses and the fused head that computes them without a logits tensor."""
