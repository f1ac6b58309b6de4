//! The core, as it is in the crate.

#[path = "../../src/log/in_flight.rs"]
pub(crate) mod in_flight;
#[path = "../../src/log/progress.rs"]
pub(crate) mod progress;
#[path = "../../src/log/ready_queue.rs"]
pub(crate) mod ready_queue;
#[path = "../../src/log/visibility.rs"]
pub(crate) mod visibility;
#[path = "../../src/log/work_queue.rs"]
pub(crate) mod work_queue;
