"""Judging: features, state of entities, rules, models, score and evidence. Pure."""
