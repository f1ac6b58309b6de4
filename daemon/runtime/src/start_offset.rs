//! Where a sink begins to read a partition, and when it may not.

use tidewater_plugin_api::TopicPartition;

use crate::error::{Error, Result};

/// `consumer.override.auto.offset.reset`: where to begin without an offset, or where its records are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetReset {
    /// Not set: a new sink begins at the first record; one whose next records are gone fails, since going on would lose
    /// them without anybody having said so.
    Unset,
    /// At the first record there is.
    Earliest,
    /// Behind the last record there is.
    Latest,
}

impl OffsetReset {
    /// By its name; `Unset` for none.
    pub fn named(name: &str) -> Self {
        match name {
            "earliest" => Self::Earliest,
            "latest" => Self::Latest,
            _ => Self::Unset,
        }
    }
}

/// The offset to begin at, in a log that holds `start` to `end`; `known` is the one the sink is to go on from.
pub fn start_offset(
    partition: &TopicPartition,
    known: Option<u64>,
    (start, end): (u64, u64),
    reset: OffsetReset,
) -> Result<u64> {
    let begin = if reset == OffsetReset::Latest { end } else { start };
    let Some(known) = known else { return Ok(begin) };
    let TopicPartition { topic, partition } = partition;
    if known > end {
        return Err(Error::State(format!(
            "the sink goes on from offset {known} of {topic}-{partition}, but the log ends at {end}: it was replaced or \
             restored from an older copy; restore the newer log, or reset the sink's offsets (rows already written stay)"
        )));
    }
    if known >= start {
        return Ok(known);
    }
    if reset == OffsetReset::Unset {
        return Err(Error::State(format!(
            "the sink goes on from offset {known} of {topic}-{partition}, but the records before {start} are gone, by the \
             topic's retention or because they were deleted; set consumer.override.auto.offset.reset to earliest to go on \
             without them, and give the topic a longer retention.ms or retention.bytes"
        )));
    }
    tracing::warn!(
        topic,
        partition,
        offset = known,
        start,
        begin,
        "records the sink had not read are gone; it goes on without them, as auto.offset.reset says"
    );
    Ok(begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_are_gone_are_passed_over_only_if_that_was_asked_for() {
        use OffsetReset::{Earliest, Latest, Unset};
        let partition = TopicPartition {
            topic: "shop.orders".to_owned(),
            partition: 3,
        };
        let at = |known, reset| start_offset(&partition, known, (10, 20), reset);
        for (known, reset, expected) in [
            (None, Unset, 10),
            (None, Earliest, 10),
            (None, Latest, 20),
            (Some(10), Unset, 10),
            (Some(15), Latest, 15),
            (Some(20), Unset, 20),
            (Some(9), Earliest, 10),
            (Some(9), Latest, 20),
        ] {
            assert_eq!(at(known, reset).ok(), Some(expected), "{known:?} {reset:?}");
        }
        let gone = at(Some(9), Unset).unwrap_err().to_string();
        assert!(
            gone.contains("shop.orders-3") && gone.contains("auto.offset.reset"),
            "{gone}"
        );
        for reset in [Unset, Earliest, Latest] {
            assert!(
                at(Some(21), reset).is_err(),
                "a log that ends before the offset is another one"
            );
        }
    }
}
