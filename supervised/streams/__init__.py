"""The streams: endless examples for every run of a stack, a task after another."""
