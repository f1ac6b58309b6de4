//! What only shows when the disk fails or the power goes: every legal state of the disk after a power failure, and
//! every operation failing once. The disk is one in memory that remembers all that is done to it. And what shows when
//! the files hold anything at all.

#[cfg(test)]
mod back_pressure;
#[cfg(test)]
mod compaction;
#[cfg(test)]
mod compaction_model;
#[cfg(test)]
mod crash_disk;
#[cfg(test)]
mod crash_ledger;
#[cfg(test)]
mod crash_registers;
#[cfg(test)]
mod crash_topics;
#[cfg(test)]
mod crash_workload;
#[cfg(test)]
mod damaged_files;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod failed_disk;
#[cfg(test)]
mod failed_opening;
#[cfg(test)]
mod full_disk;
pub mod fuzz_targets;
#[cfg_attr(not(test), expect(dead_code, reason = "fuzzing uses a part of it"))]
mod memory_disk;
#[cfg(test)]
mod power_failure;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod torn_commit;
