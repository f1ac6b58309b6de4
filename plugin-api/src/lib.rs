//! The SDK for authors of Tidewater connectors.
