"""The parts of the world, a module each."""
