"""Sweeps for the rules of the model `auto`: answers that are kept, and shadows."""
