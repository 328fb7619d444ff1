"""Running experiments: the simulation engine, federations on this machine, benchmarks."""
