//! End to end: the built daemon, real servers; the demo and the benchmarks.
