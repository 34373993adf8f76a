"""The parts of `examples.benchmarks.gpu`."""
