//! Loads Tidewater plugins and speaks to them over their C ABI.
