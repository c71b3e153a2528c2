"""What changes weights: trainers, checkpoints, and the settings that drive them."""
