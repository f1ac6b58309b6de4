//! Who commits: what a consumer hands to a producer so that its offsets are fenced.

use std::sync::Arc;

/// A consumer's membership at some time, for
/// [`Transaction::commit_offsets_of`](crate::Transaction::commit_offsets_of). It may be kept while records
/// are processed: it stays good for the partitions the consumer keeps, and is refused for those it has lost since.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerGroupMetadata {
    /// The group.
    pub group: Arc<str>,
    /// The member; `None` for a consumer that chose its partitions itself.
    pub member_id: Option<Arc<str>>,
    /// The generation the member was last told of.
    pub generation: i32,
}

impl ConsumerGroupMetadata {
    /// Somebody who commits for a group without members.
    pub(crate) fn without_member(group: &str) -> Self {
        Self {
            group: group.into(),
            member_id: None,
            generation: -1,
        }
    }
}
