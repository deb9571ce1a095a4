"""Checks of a run on the user's own model, data, engine and machine, before its first step."""
