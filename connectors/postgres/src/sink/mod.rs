//! postgres-sink: topics into PostgreSQL tables.
