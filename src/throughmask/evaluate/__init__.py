"""Comparing trajectories and videos with the truth and with what was asked for."""
