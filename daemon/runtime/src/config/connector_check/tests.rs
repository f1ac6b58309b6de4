use super::*;
use tidewater_broker::Compression;
use tidewater_plugin_api::Importance::High;

fn classes() -> Vec<ConnectorSpec> {
    let source = ConfigDef::new()
        .required("database.hostname", ConfigType::String, High, "The server.")
        .optional("database.port", ConfigType::Int, "5432", High, "The port.")
        .required("database.password", ConfigType::Password, High, "The password.")
        .nullable("table.include.list", ConfigType::List, High, "The tables.")
        .optional("slot.name", ConfigType::String, "tidewater", High, "The slot.")
        .validate(tidewater_plugin_api::Validator::SlotName)
        .prefix("driver.");
    let sink = ConfigDef::new()
        .required("file", ConfigType::String, High, "The file.")
        .alias("path");
    vec![
        spec(
            "postgres-source",
            ConnectorKind::Source,
            source,
            &["io.debezium.connector.postgresql.PostgresConnector"],
        ),
        spec("file-sink", ConnectorKind::Sink, sink, &["FileStreamSink"]),
    ]
}

fn spec(class: &str, kind: ConnectorKind, config: ConfigDef, aliases: &[&str]) -> ConnectorSpec {
    ConnectorSpec {
        class: class.to_owned(),
        aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
        kind,
        version: "1.2.3".to_owned(),
        documentation: String::new(),
        config,
        exactly_once: false,
    }
}

fn read(text: &str) -> ConnectorFile {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("my.properties");
    std::fs::write(&path, text).expect("written");
    ConnectorFile::read(&path).expect("can be read")
}

fn check(text: &str) -> Checked {
    let providers = Providers::with_env(|name| match name {
        "PASSWORD" => Some("s3cr3t-of-env".to_owned()),
        "PORT" => Some("five".to_owned()),
        _ => None,
    });
    let worker = WorkerConfig::default();
    Checker {
        classes: &classes(),
        worker: &worker,
        providers: &providers,
    }
    .check(&read(text))
}

fn errors(text: &str) -> Vec<String> {
    let checked = check(text);
    let errors: Vec<String> = checked
        .problems
        .iter()
        .filter(|p| p.is_error())
        .map(ToString::to_string)
        .collect();
    assert_eq!(errors.is_empty(), checked.config.is_some());
    errors
}

/// One error, at `line`, that says `says`.
fn one_error(text: &str, line: u32, says: &str) {
    let errors = errors(text);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(
        errors[0].contains(&format!("my.properties:{line}: ")),
        "{}",
        errors[0]
    );
    assert!(errors[0].contains(says), "{}", errors[0]);
}

const SOURCE: &str =
    "connector.class=postgres-source\ndatabase.hostname=db\ndatabase.password=${env:PASSWORD}\n";
const SINK: &str = "connector.class=file-sink\nfile=/tmp/x\n";

fn source(more: &str) -> String {
    format!("{SOURCE}{more}")
}

fn sink(more: &str) -> String {
    format!("{SINK}{more}")
}

#[test]
fn a_source_with_its_defaults() {
    let config = check(SOURCE).config.expect("valid");
    assert_eq!(
        (config.name.as_str(), config.class.as_str()),
        ("my", "postgres-source")
    );
    assert_eq!(
        (
            config.kind,
            config.tasks_max,
            config.encoder.topics.default.partitions
        ),
        (ConnectorKind::Source, 1, 1)
    );
    assert_eq!(config.retry_delay_max, Duration::from_mins(1));
    assert_eq!(config.encoder.compression, Compression::None);
    assert_eq!(config.raw["database.password"], "${env:PASSWORD}");
    assert_eq!(config.resolved["database.password"], "s3cr3t-of-env");
    assert!(!format!("{config:?}").contains("s3cr3t"));
}

#[test]
fn a_source_with_everything() {
    let config = check(&source(
        "tasks.max= 4\nvalue.converter=org.apache.kafka.connect.json.JsonConverter\n\
         value.converter.schemas.enable=false\nkey.converter=string\nproducer.override.compression.type=LZ4\n\
         topic.creation.default.partitions=6\ntopic.creation.default.segment.bytes=1000\n\
         errors.retry.delay.max.ms=10\nheader.converter=simple\ntransforms=\nerrors.tolerance=none\n\
         driver.anything=goes\nconfig.action.reload=restart\n",
    ));
    assert_eq!(config.problems, []);
    let config = config.config.expect("valid");
    assert_eq!(
        (config.tasks_max, config.encoder.topics.default.partitions),
        (4, 6)
    );
    assert_eq!(config.value_converter.class, "json");
    assert_eq!(config.value_converter.settings["schemas.enable"], "false");
    assert_eq!(config.key_converter.class, "string");
    assert_eq!(config.encoder.compression, Compression::Lz4);
    assert_eq!(
        config.encoder.topics.default.settings,
        [("segment.bytes".to_owned(), "1000".to_owned())].into()
    );
    assert_eq!(config.retry_delay_max, Duration::from_millis(10));
}

#[test]
fn a_sink_reads_named_topics_or_those_that_match_whole() {
    let config = check(&sink("topics= a, b ,a\nconsumer.override.max.poll.records=7\n"))
        .config
        .expect("valid");
    assert!(
        matches!(&config.topics, Topics::Named(names) if *names == ["a", "b"]),
        "{:?}",
        config.topics
    );
    assert_eq!(config.max_poll_records, 7);
    let config = check(&sink("topics.regex=shop.a|b\n")).config.expect("valid");
    let Topics::Matching(regex) = &config.topics else {
        panic!("{:?}", config.topics)
    };
    assert!(
        regex.is_match("b")
            && regex.is_match("shop.a")
            && !regex.is_match("bb")
            && !regex.is_match("xshop.a")
    );
}

#[test]
fn every_fault_of_a_file_at_once_in_the_order_of_its_lines() {
    let errors = errors(
        "connector.class=postgres-source\ndatabase.port=fivethousand\nslot.nmae=x\ntasks.max=0\n\
         database.password=hunter2\nvalue.converter=avro\ntopics=a\ntransforms=route\n\
         transforms.route.type=RegexRoutr\ntransforms.rout.regex=a\ntasks.max.enforce=false\n",
    );
    let says = [
        (2, "database.port = \"fivethousand\": must be a 32-bit integer"),
        (
            3,
            "slot.nmae: is no key of postgres-source; did you mean slot.name?",
        ),
        (4, "tasks.max = \"0\": must be between 1 and 1000"),
        (
            6,
            "value.converter = \"avro\": must be a converter of this version: json, string, bytes",
        ),
        (7, "topics: is for sinks, and postgres-source is a source"),
        (9, "transforms.route.type = \"RegexRoutr\": "),
        (
            10,
            "transforms.rout.regex: belongs to rout, which is not in transforms; did you mean route?",
        ),
        (11, "tasks.max.enforce: is not available in this version"),
    ];
    assert_eq!(errors.len(), says.len() + 1, "{errors:#?}");
    for ((line, says), error) in says.iter().zip(&errors) {
        assert!(
            error.contains(&format!("my.properties:{line}: {says}")),
            "{error}"
        );
    }
    assert!(
        errors[8].contains("database.hostname: is missing"),
        "{}",
        errors[8]
    );
}

#[test]
fn the_class_is_found_by_alias_and_an_unknown_one_names_the_nearest() {
    let config = check("connector.class = FileStreamSink\nfile=x\ntopics=a\n")
        .config
        .expect("valid");
    assert_eq!(config.class, "file-sink");
    one_error(
        "connector.class=postgres-sorce\n",
        1,
        "is no class of the loaded plugins; did you mean postgres-source?; installed are file-sink, postgres-source",
    );
    assert!(errors("tasks.max=1\n")[0].contains("connector.class: is missing"));
    // What needs no class is checked all the same.
    let without_class =
        errors("connector.class=postgres\ntasks.max=x\ntransforms=a\nkey.converter=avro\nfile=x\n");
    assert_eq!(without_class.len(), 4, "{without_class:#?}");
    let none: [ConnectorSpec; 0] = [];
    let (worker, providers) = (WorkerConfig::default(), Providers::system());
    let checked = Checker {
        classes: &none,
        worker: &worker,
        providers: &providers,
    }
    .check(&read(SINK));
    assert!(
        checked.problems[0].to_string().contains("no plugin is loaded"),
        "{}",
        checked.problems[0]
    );
}

#[test]
fn a_sink_needs_topics_in_exactly_one_way() {
    assert!(errors(SINK)[0].contains("a sink needs the topics to read"));
    one_error(&sink("topics=a\ntopics.regex=b\n"), 4, "keep one of the two");
    one_error(&sink("topics=a,b c\n"), 3, "no topic can have");
    one_error(
        &sink("topics.regex=a(\n"),
        3,
        "is no regular expression: unclosed group",
    );
    one_error(
        &sink("topics=a\nexactly.once.support=required\n"),
        4,
        "is for sources",
    );
}

#[test]
fn unknown_keys_warn_unless_they_are_mistyped() {
    let checked = check(&source("snapshot.fetch.size=10\ntasksMax=1\n"));
    let told: Vec<_> = checked.problems.iter().map(|p| (p.severity, p.line)).collect();
    assert_eq!(
        told,
        [(Severity::Warning, Some(4)), (Severity::Error, Some(5))],
        "{:?}",
        checked.problems
    );
}

#[test]
fn no_secret_stands_in_a_problem() {
    // A secret under a mistyped key, as a value of the wrong type, resolved, beside a reference at fault.
    let text = "connector.class=postgres-source\ndatabase.hostname=db\ndatabase.pasword=hunter2\n\
                database.port=${env:PORT}\nslot.name=${env:PASSWORD}\ndriver.token=hunter2${env:NOT_SET}\n";
    let all = check(text)
        .problems
        .iter()
        .map(|problem| format!("{problem} {problem:?}"))
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        !all.contains("hunter2") && !all.contains("five") && !all.contains("s3cr3t"),
        "{all}"
    );
    assert!(
        all.contains("database.port = \"${env:PORT}\": must be a 32-bit integer"),
        "{all}"
    );
    assert!(all.contains("NOT_SET, which is not set"), "{all}");
}

#[test]
fn a_key_whose_reference_leads_nowhere_is_reported_once() {
    let text = "connector.class=postgres-source\ndatabase.hostname=${env:NOT_SET}\ndatabase.password=x\n";
    one_error(
        text,
        2,
        "database.hostname: names the environment variable NOT_SET",
    );
    one_error("connector.class=${env:NOT_SET}\n", 1, "not set");
    one_error(&sink("topics=${env:NOT_SET}\n"), 3, "not set");
}

#[test]
fn two_spellings_of_one_key_are_refused() {
    one_error(
        &sink("path=/tmp/y\ntopics=a\n"),
        3,
        "path = \"/tmp/y\": means the same as file",
    );
}

#[test]
fn a_chain_is_built_of_what_was_checked() {
    let text = "transforms=route\ntransforms.route.type=RegexRouter\ntransforms.route.regex=a\n\
                transforms.route.replacement=b\n";
    let config = check(&source(text)).config.expect("valid");
    assert!(!config.chain().expect("a chain").is_empty());
    assert!(
        check(&source(""))
            .config
            .expect("valid")
            .chain()
            .expect("none")
            .is_empty()
    );
    // Every fault of a chain at once, and where it is.
    let faults = errors(&source(
        "transforms=route,mask\ntransforms.route.type=RegexRouter\ntransforms.route.regxe=a\ntransforms.mask.predicate=no\n",
    ));
    for says in [
        "transforms.route.regxe: is no key of RegexRouter; did you mean regex?",
        "transforms.route.regex: is missing",
        "transforms.mask.type: is missing",
    ] {
        assert!(
            faults.iter().any(|fault| fault.contains(says)),
            "{says}: {faults:#?}"
        );
    }
}

#[test]
fn what_is_done_about_failing_records() {
    let settings = |text: &str| check(&source(text)).config.expect("valid").errors;
    assert_eq!(
        settings(""),
        ErrorSettings::default(),
        "retried for ever, nothing tolerated"
    );
    assert_eq!(
        settings("errors.retry.timeout=0\n").retry_timeout,
        Some(Duration::ZERO)
    );
    assert_eq!(settings("errors.retry.timeout=-1\n").retry_timeout, None);
    let all = settings(
        "errors.tolerance=all\nerrors.log.enable=true\nerrors.log.include.messages=true\n\
         errors.deadletterqueue.topic.name=dead\nerrors.deadletterqueue.context.headers.enable=true\n\
         errors.deadletterqueue.topic.replication.factor=3\n",
    );
    assert!(all.tolerate && all.log && all.log_contents);
    let topic = all.dead_letter_topic.expect("a topic");
    assert_eq!((&*topic.name, topic.context_headers), ("dead", true));
}

#[test]
fn dead_letters_need_a_topic_of_their_own() {
    const KEY: &str = "errors.deadletterqueue.topic.name";
    let all = |rest: &str| sink(&format!("errors.tolerance=all\n{rest}\n"));
    for (text, says) in [
        (all(&format!("topics=a,dead\n{KEY}=dead")), "would then never end"),
        (
            all(&format!("topics.regex=dead.*\n{KEY}=dead-orders")),
            "would then never end",
        ),
        (
            all(&format!("topics=a\n{KEY}=connect-offsets")),
            "worker's own state",
        ),
        (all(&format!("topics=a\n{KEY}=a b")), "no topic can have"),
    ] {
        one_error(&text, 5, says);
    }
    let checked = check(&sink(&format!("topics=a\n{KEY}=dead\n")));
    assert!(checked.config.is_some());
    assert!(
        checked.problems[0]
            .to_string()
            .contains("no effect without errors.tolerance=all")
    );
    assert_eq!(check(&all(&format!("topics=a\n{KEY}=dead"))).problems, []);
}

#[test]
fn when_a_transaction_ends() {
    let linger = |text: &str| check(&source(text)).config.expect("valid").linger;
    assert_eq!(linger(""), Duration::ZERO);
    assert_eq!(
        linger("producer.override.linger.ms=20\n"),
        Duration::from_millis(20)
    );
    assert_eq!(
        linger("transaction.boundary=interval\ntransaction.boundary.interval.ms=250\n"),
        Duration::from_millis(250)
    );
    assert_eq!(
        linger("transaction.boundary=interval\n"),
        WorkerConfig::default().offset_flush_interval
    );
    one_error(
        &source("transaction.boundary=connector\n"),
        4,
        "defines no boundaries of its own",
    );
}

#[test]
fn what_is_done_in_another_way_is_said() {
    let checked = check(&source("topic.creation.default.replication.factor=3\n"));
    assert!(checked.config.is_some());
    assert!(
        checked.problems[0].to_string().contains("keeps one copy"),
        "{:?}",
        checked.problems
    );
    one_error(
        &source("exactly.once.support=required\n"),
        4,
        "does not keep its positions exactly",
    );
}

#[test]
fn settings_of_a_converter_apply_to_the_workers_too() {
    let config = check(&source("value.converter.schemas.enable=false\n"))
        .config
        .expect("valid");
    assert_eq!(config.value_converter.class, "json");
    assert_eq!(config.value_converter.settings["schemas.enable"], "false");
    one_error(
        &source("value.converter.schemas.enable=no\n"),
        4,
        "must be true or false",
    );
    one_error(
        &source("value.converter.schema.enable=false\n"),
        4,
        "did you mean value.converter.schemas.enable?",
    );
}

#[test]
fn what_a_plugin_finds_is_told_without_secrets() {
    let file = read(&source("database.port=6000\n"));
    let config = check(&source("database.port=6000\n")).config.expect("valid");
    let found = [
        ConfigProblem::new("database.port", "nothing listens for s3cr3t-of-env"),
        ConfigProblem::new("database.password", "was refused"),
        ConfigProblem::new("", "no route"),
    ];
    let texts: Vec<String> = config
        .problems(&classes()[0], &file, &found)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        texts[0].ends_with("4: database.port = \"6000\": nothing listens for ${env:PASSWORD}"),
        "{}",
        texts[0]
    );
    assert!(
        texts[1].ends_with("3: database.password: was refused"),
        "{}",
        texts[1]
    );
    assert!(texts[2].ends_with("my.properties: no route"), "{}", texts[2]);
}

#[test]
fn topics_are_created_by_rules_that_are_checked() {
    let config = check(&source(
        "topic.creation.groups=state\ntopic.creation.state.include=.*state\ntopic.creation.state.cleanup.policy=compact\n\
         topic.creation.default.partitions=4\ntopic.creation.default.retention.ms=1000\n",
    ))
    .config
    .expect("valid");
    let rules = config.encoder.topics;
    assert_eq!(rules.of("my-state").map(|new| new.partitions), Some(4));
    assert_eq!(
        rules.of("my-state").unwrap().settings["cleanup.policy"],
        "compact"
    );
    assert_eq!(rules.of("other").unwrap().settings["retention.ms"], "1000");

    one_error(
        &source("topic.creation.default.retention.mss=1\n"),
        4,
        "topic.creation.default.retention.mss = \"1\": retention.mss is no setting of a topic; near it are retention.ms,",
    );
    one_error(
        &source("topic.creation.default.partitions=x\n"),
        4,
        "must be a 32-bit integer",
    );
    one_error(
        &source("topic.creation.default.partitions=0\n"),
        4,
        "from 1 to 10000",
    );
    one_error(&source("topic.creation.a.include=x\n"), 4, "does not list");
    one_error(
        &sink("topics=a\ntopic.creation.default.retention.ms=1\n"),
        4,
        "is for sources",
    );
}

#[test]
fn partitioners_are_named_as_in_kafka_or_by_fields() {
    let of = |lines: &str| check(&source(lines)).config.expect(lines).encoder.partitioning;
    assert_eq!(of(""), Partitioning::Key);
    assert_eq!(
        of("producer.override.partitioner.class=org.apache.kafka.clients.producer.RoundRobinPartitioner\n"),
        Partitioning::RoundRobin
    );
    assert_eq!(
        of("producer.override.partitioner.class=sticky\n"),
        Partitioning::Sticky
    );
    assert_eq!(
        of("producer.override.partitioner.ignore.keys=true\n"),
        Partitioning::Sticky
    );
    let fields = ["key.id", "value.a.`b.c`"].map(|text| RecordField::parse(text).unwrap());
    assert_eq!(
        of("partitioner.fields=key.id, value.a.`b.c`\n"),
        Partitioning::Fields(fields.into())
    );
    one_error(&source("partitioner.fields=id\n"), 4, "begins with key or value");
    one_error(
        &source("producer.override.partitioner.class=my.Own\n"),
        4,
        "must be one of",
    );
    one_error(
        &source("partitioner.fields=key\nproducer.override.partitioner.class=sticky\n"),
        4,
        "keep one of the two",
    );
}

#[test]
fn overrides_of_clients_are_met_passed_over_or_refused() {
    assert_eq!(
        check(&source(
            "producer.override.acks=all\nproducer.override.batch.size=65536\n"
        ))
        .problems,
        []
    );
    let checked = check(&source("producer.override.retries=5\n"));
    assert!(checked.config.is_some() && checked.problems[0].to_string().contains("has no effect"));
    one_error(&source("producer.override.acks=1\n"), 4, "must be all");
    one_error(
        &sink("topics=a\nconsumer.override.group.id=x\n"),
        4,
        "given by the runtime",
    );
    one_error(
        &sink("topics=a\nconsumer.override.isolation.level=read_uncommitted\n"),
        4,
        "must be read_committed",
    );
}
