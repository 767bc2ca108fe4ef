"""Refusals: why a job finds no place, and the memory that refuses the next ones early."""
