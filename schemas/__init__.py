"""What flows: events, sightings, verdicts, configs, keys, and how they are read and written. Pure."""
