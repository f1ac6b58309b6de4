//! What only shows when the disk fails or the power goes: every legal state of the disk after a power failure, and
//! every operation failing once. The disk is one in memory that remembers all that is done to it.

mod compaction;
mod crash_disk;
mod crash_ledger;
mod crash_workload;
mod durability;
mod failed_disk;
mod memory_disk;
mod power_failure;
mod torn_commit;
