//! Connectors, tasks, converters and offsets: the Connect runtime.
