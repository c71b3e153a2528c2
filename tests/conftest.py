"""What every test may use; `tiny_models` beside this file becomes importable through it."""
