//! postgres-source: PostgreSQL changes into topics.
