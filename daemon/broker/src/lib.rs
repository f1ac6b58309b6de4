//! An embedded, durable, partitioned log of Kafka v2 record batches.
