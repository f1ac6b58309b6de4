//! The program as its users meet it: real files, a real plugin, what is printed, and how it ends.

mod daemon;
mod folder;
mod plugins;
mod rest;
mod run;
mod settings;
mod validate;
