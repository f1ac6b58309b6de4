//! Hands the target triple to the code: a plugin states it in its header.

fn main() {
    // Cargo sets TARGET for every build script.
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=TIDEWATER_TARGET={target}");
    println!("cargo::rerun-if-changed=build.rs");
}
