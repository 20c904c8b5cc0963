"""Leaving: verdicts, counts and dead letters on their way out, each way exactly once."""
