//! Waiting until a mirror has caught up, then proving that it is equal.

use std::time::Duration;

use crate::arrivals::Arrivals;
use crate::compare::{Comparison, Table, compare};
use crate::error::Result;
use crate::postgres::Postgres;
use crate::shop::{self, DATABASE, SCHEMA};

/// How long nothing at all may arrive before what differs is final.
pub const QUIET: Duration = Duration::from_secs(45);

/// Waits until the shop on `target` is as on `source`, which nobody writes to any more, and compares them row by row. Answers the
/// differences when nothing has arrived for [`QUIET`].
pub async fn settle(source: &Postgres, target: &Postgres, arrivals: &mut Arrivals) -> Result<Comparison> {
    let mut one = source.connect(DATABASE).await?;
    let mut other = target.connect(DATABASE).await?;
    let tables = Table::all_in(&mut one, SCHEMA).await?;
    let expected = shop::fingerprint(&mut one).await?;
    loop {
        let arrived = expected == shop::fingerprint(&mut other).await?;
        if arrived {
            let comparison = compare(&mut one, &mut other, &tables).await?;
            if comparison.is_equal() {
                return Ok(comparison);
            }
        }
        // A fingerprint can agree by chance before the last change is there: only quiet makes a difference final.
        if !arrivals.next(QUIET).await? {
            return compare(&mut one, &mut other, &tables).await;
        }
    }
}
