//! Settings of Kafka's clients that a connector file may give under `producer.override.`, `consumer.override.` and
//! `admin.override.`: what they come to here, where there are no clients. Those that do something are keys of their own.

use super::connector_keys::Absent;
use super::nearest::suggestion;

/// What a setting comes to.
enum Fate {
    /// One of these values is how it is anyway; any other is refused, with the reason.
    Always(&'static [&'static str], &'static str),
    /// It is passed over.
    NoEffect(&'static str),
    /// It is refused, with the reason.
    Refused(&'static str),
}

use Fate::{Always, NoEffect, Refused};

const IN_PROCESS: &str = "has no effect: the log is in this process, and there is no client between";
const NO_CLUSTER: &str =
    "cannot be met: the log is in this process, and there is no Kafka cluster to connect to; remove it";
const CONVERTERS: &str = "is not for a connector: converters do this; see key.converter and value.converter";

const PRODUCER: [(&str, Fate); 22] = [
    (
        "acks",
        Always(
            &["all", "-1"],
            "must be all: a record is acknowledged once it is durable; remove it",
        ),
    ),
    (
        "enable.idempotence",
        Always(
            &["true"],
            "must be true: a record that is sent again is stored once; remove it",
        ),
    ),
    (
        "transactional.id",
        Refused("is given by the runtime, one to each task; remove it"),
    ),
    ("partitioner.adaptive.partitioning.enable", NoEffect(IN_PROCESS)),
    ("partitioner.availability.timeout.ms", NoEffect(IN_PROCESS)),
    ("buffer.memory", NoEffect(IN_PROCESS)),
    ("compression.gzip.level", NoEffect(IN_PROCESS)),
    ("compression.lz4.level", NoEffect(IN_PROCESS)),
    ("compression.zstd.level", NoEffect(IN_PROCESS)),
    ("delivery.timeout.ms", NoEffect(IN_PROCESS)),
    ("max.block.ms", NoEffect(IN_PROCESS)),
    ("max.in.flight.requests.per.connection", NoEffect(IN_PROCESS)),
    ("max.request.size", NoEffect(IN_PROCESS)),
    ("retries", NoEffect(IN_PROCESS)),
    ("transaction.timeout.ms", NoEffect(IN_PROCESS)),
    ("key.serializer", Refused(CONVERTERS)),
    ("value.serializer", Refused(CONVERTERS)),
    (
        "interceptor.classes",
        Refused("is not available: Java classes cannot be loaded; remove it"),
    ),
    ("linger.ms", NoEffect("")),
    ("compression.type", NoEffect("")),
    ("batch.size", NoEffect("")),
    ("partitioner.class", NoEffect("")),
];

const CONSUMER: [(&str, Fate); 22] = [
    (
        "isolation.level",
        Always(
            &["read_committed"],
            "must be read_committed: what is not committed may yet be taken back; remove it",
        ),
    ),
    (
        "enable.auto.commit",
        Always(
            &["false"],
            "must be false: an offset is committed once its records are durable in the target; remove it",
        ),
    ),
    (
        "group.id",
        Refused("is given by the runtime: connect- and the connector's name; remove it"),
    ),
    ("group.instance.id", Refused("is given by the runtime; remove it")),
    (
        "allow.auto.create.topics",
        Always(&["false"], "must be false: a sink creates no topics; remove it"),
    ),
    ("auto.commit.interval.ms", NoEffect(IN_PROCESS)),
    ("check.crcs", NoEffect(IN_PROCESS)),
    ("default.api.timeout.ms", NoEffect(IN_PROCESS)),
    ("fetch.max.bytes", NoEffect(IN_PROCESS)),
    ("fetch.max.wait.ms", NoEffect(IN_PROCESS)),
    ("fetch.min.bytes", NoEffect(IN_PROCESS)),
    ("group.protocol", NoEffect(IN_PROCESS)),
    ("heartbeat.interval.ms", NoEffect(IN_PROCESS)),
    ("max.partition.fetch.bytes", NoEffect(IN_PROCESS)),
    ("max.poll.interval.ms", NoEffect(IN_PROCESS)),
    ("partition.assignment.strategy", NoEffect(IN_PROCESS)),
    ("session.timeout.ms", NoEffect(IN_PROCESS)),
    ("key.deserializer", Refused(CONVERTERS)),
    ("value.deserializer", Refused(CONVERTERS)),
    (
        "interceptor.classes",
        Refused("is not available: Java classes cannot be loaded; remove it"),
    ),
    ("max.poll.records", NoEffect("")),
    ("auto.offset.reset", NoEffect("")),
];

/// Settings of every client.
const EVERY: [(&str, Fate); 14] = [
    ("bootstrap.servers", Refused(NO_CLUSTER)),
    ("security.protocol", Refused(NO_CLUSTER)),
    ("client.dns.lookup", NoEffect(IN_PROCESS)),
    ("client.id", NoEffect(IN_PROCESS)),
    ("client.rack", NoEffect(IN_PROCESS)),
    ("connections.max.idle.ms", NoEffect(IN_PROCESS)),
    ("metadata.max.age.ms", NoEffect(IN_PROCESS)),
    ("metadata.max.idle.ms", NoEffect(IN_PROCESS)),
    ("receive.buffer.bytes", NoEffect(IN_PROCESS)),
    ("reconnect.backoff.max.ms", NoEffect(IN_PROCESS)),
    ("reconnect.backoff.ms", NoEffect(IN_PROCESS)),
    ("request.timeout.ms", NoEffect(IN_PROCESS)),
    ("retry.backoff.ms", NoEffect(IN_PROCESS)),
    ("send.buffer.bytes", NoEffect(IN_PROCESS)),
];

/// How a key of this kind that is no key of its own stands; none where `key` is of another kind.
pub fn stand(key: &str, value: &str) -> Option<Result<Absent, String>> {
    const PREFIXES: [(&str, &[(&str, Fate)]); 3] = [
        ("producer.override.", &PRODUCER),
        ("consumer.override.", &CONSUMER),
        ("admin.override.", &[]),
    ];
    let (name, of_client) = PREFIXES
        .iter()
        .find_map(|(prefix, table)| Some((key.strip_prefix(prefix)?, *table)))?;
    if ["sasl.", "ssl."].iter().any(|prefix| name.starts_with(prefix)) {
        return Some(Err(NO_CLUSTER.to_owned()));
    }
    let known = of_client.iter().chain(&EVERY);
    let Some((_, fate)) = known.clone().find(|(known, _)| *known == name) else {
        let near = suggestion(name, known.map(|(known, _)| *known));
        return Some(Err(format!(
            "{name} is no setting of a Kafka client that is known here{near}; remove it"
        )));
    };
    Some(match fate {
        Always(values, why) => {
            let is_so = values.iter().any(|so| so.eq_ignore_ascii_case(value.trim()));
            if is_so {
                Ok(Absent::Harmless)
            } else {
                Err((*why).to_owned())
            }
        }
        NoEffect(why) => Ok(Absent::NoEffect(why)),
        Refused(why) => Err((*why).to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::connector_keys;
    use tidewater_plugin_api::ConnectorKind;

    #[test]
    fn every_setting_is_met_harmless_passed_over_or_refused_with_the_reason() {
        let no_effect = |why: &str| why == IN_PROCESS;
        for (key, value, harmless, refused) in [
            ("producer.override.acks", "all", true, ""),
            ("producer.override.acks", "1", false, "must be all"),
            ("producer.override.enable.idempotence", "TRUE", true, ""),
            (
                "producer.override.enable.idempotence",
                "false",
                false,
                "must be true",
            ),
            ("producer.override.retries", "5", false, ""),
            (
                "producer.override.transactional.id",
                "x",
                false,
                "given by the runtime",
            ),
            (
                "producer.override.batch.sizes",
                "1",
                false,
                "did you mean batch.size?",
            ),
            (
                "producer.override.sasl.jaas.config",
                "x",
                false,
                "no Kafka cluster",
            ),
            ("consumer.override.isolation.level", "read_committed", true, ""),
            (
                "consumer.override.isolation.level",
                "read_uncommitted",
                false,
                "taken back",
            ),
            ("consumer.override.fetch.min.bytes", "1", false, ""),
            ("consumer.override.group.id", "x", false, "connect-"),
            ("admin.override.request.timeout.ms", "1", false, ""),
            ("admin.override.bootstrap.servers", "x", false, "no Kafka cluster"),
        ] {
            match stand(key, value).expect("an override") {
                Ok(Absent::Harmless) => assert!(harmless, "{key}={value}"),
                Ok(Absent::NoEffect(why)) => {
                    assert!(!harmless && refused.is_empty() && no_effect(why), "{key}={value}");
                }
                Ok(Absent::Refused) => panic!("{key}={value} is refused without a reason"),
                Err(why) => {
                    assert!(
                        !refused.is_empty() && why.contains(refused),
                        "{key}={value}: {why}"
                    );
                }
            }
        }
        assert_eq!(stand("tasks.max", "1"), None);
    }

    /// Names without a reason stand in the tables only so that they are suggested: keys of their own come first.
    #[test]
    fn what_has_no_reason_is_a_key_of_its_own() {
        let tables = [
            ("producer.override.", &PRODUCER[..], ConnectorKind::Source),
            ("consumer.override.", &CONSUMER[..], ConnectorKind::Sink),
        ];
        for (prefix, table, kind) in tables {
            for (name, fate) in table {
                let own = connector_keys::keys(kind)
                    .find(&format!("{prefix}{name}"))
                    .is_some();
                assert_eq!(matches!(fate, NoEffect("")), own, "{prefix}{name}");
            }
        }
    }
}
