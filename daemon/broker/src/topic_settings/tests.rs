//! What is taken, refused and shown.

use super::*;

fn own(values: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = values
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    owned.collect()
}

fn topic(values: &[(&str, &str)]) -> TopicInfo {
    TopicInfo::new("t", 1, own(values)).unwrap()
}

fn settings(values: &[(&str, &str)]) -> Result<TopicSettings> {
    TopicSettings::of_topic(&BrokerOptions::new("x"), &topic(values))
}

#[test]
fn the_defaults_are_kafkas() {
    let shown = describe(&BrokerOptions::new("x"), &topic(&[])).unwrap();
    let value = |name: &str| {
        let setting = shown.iter().find(|setting| setting.name == name).unwrap();
        assert_eq!(setting.source, SettingSource::Default, "{name}");
        setting.value.clone()
    };
    assert_eq!(value("retention.ms"), "604800000");
    assert_eq!(value("retention.bytes"), "-1");
    assert_eq!(value("segment.ms"), "604800000");
    assert_eq!(value("cleanup.policy"), "delete");
    assert_eq!(value("min.compaction.lag.ms"), "0");
    assert_eq!(value("max.compaction.lag.ms"), i64::MAX.to_string());
    assert_eq!(value("min.cleanable.dirty.ratio"), "0.5");
    assert_eq!(value("delete.retention.ms"), "86400000");
    assert_eq!(value("message.timestamp.type"), "CreateTime");
    assert_eq!(value("compression.type"), "producer");
    assert_eq!(value("durability"), "fsync");
}

#[test]
fn what_is_shown_reads_back() {
    let values = [
        ("cleanup.policy", " delete , compact "),
        ("compression.type", "zstd"),
        ("delete.retention.ms", "0"),
        ("durability", "os"),
        ("index.interval.bytes", "4096"),
        ("max.compaction.lag.ms", "86400000"),
        ("max.message.bytes", "1048588"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.cleanable.dirty.ratio", "0.25"),
        ("min.compaction.lag.ms", "7"),
        ("retention.bytes", "0"),
        ("retention.ms", "-1"),
        ("segment.bytes", "2147483648"),
        ("segment.ms", "1"),
    ];
    let set = settings(&values).unwrap();
    assert_eq!((set.retention_bytes, set.retention_ms), (Some(0), None));
    let shown = describe(&BrokerOptions::new("x"), &topic(&values)).unwrap();
    assert!(shown.iter().all(|setting| setting.source == SettingSource::Topic));
    let again: Vec<_> = shown.iter().map(|s| (s.name, s.value.as_str())).collect();
    assert_eq!(settings(&again).unwrap(), set);
}

#[test]
fn what_is_out_of_range_is_refused_with_what_is_allowed() {
    for (name, value) in [
        ("cleanup.policy", ""),
        ("cleanup.policy", "delete,keep"),
        ("compression.type", "LZ4"),
        ("delete.retention.ms", "-1"),
        ("durability", "none"),
        ("index.interval.bytes", "0"),
        ("max.message.bytes", "268435457"),
        ("message.timestamp.type", "createtime"),
        ("max.compaction.lag.ms", "0"),
        ("min.cleanable.dirty.ratio", "1.1"),
        ("min.cleanable.dirty.ratio", "NaN"),
        ("min.compaction.lag.ms", "-1"),
        ("retention.bytes", "-2"),
        ("retention.ms", "a week"),
        ("retention.ms", "9223372036854775808"),
        ("segment.bytes", "2147483649"),
        ("segment.ms", "0"),
    ] {
        match settings(&[(name, value)]) {
            Err(Error::InvalidOption { name: said, .. }) => assert_eq!(said, name),
            other => panic!("{name}={value}: {other:?}"),
        }
    }
}

#[test]
fn an_unknown_name_is_answered_with_those_near_it() {
    match settings(&[("retention.mss", "1")]) {
        Err(Error::UnknownSetting { near, .. }) => assert!(near.starts_with("retention.ms,"), "{near}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_value_says_where_it_comes_from() {
    let mut options = BrokerOptions::new("x");
    options.segment_bytes = 1000;
    options.topic_defaults = own(&[("retention.ms", "604800000")]);
    let shown = describe(&options, &topic(&[("segment.ms", "604800000")])).unwrap();
    let source = |name: &str| shown.iter().find(|setting| setting.name == name).unwrap().source;
    assert_eq!(source("segment.bytes"), SettingSource::Broker);
    assert_eq!(source("retention.ms"), SettingSource::Broker);
    assert_eq!(source("segment.ms"), SettingSource::Topic);
    assert_eq!(source("cleanup.policy"), SettingSource::Default);
}
