"""A campaign that never was: people, crowds that look suspicious, planted wool parties, and the truth about all."""
