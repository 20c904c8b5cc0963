"""Moving: Kafka and Faust, turns, checkpoints, the worker."""
