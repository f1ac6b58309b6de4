//! The transforms of a connector, in order, each with its predicate; built from the connector's flat configuration.

mod keys;

use tidewater_plugin_api::{Config, ConfigDef, ConfigMap, ConfigProblem};

pub use self::keys::{definition, owns};

use self::keys::{Alias, PREDICATES, TRANSFORMS, aliases, of_every_predicate, of_every_transform};
use crate::class::{PredicateClass, TransformClass, find_predicate, find_transform};
use crate::fault::{Fault, Stage, TransformError};
use crate::nearest::suggestion;
use crate::predicate::Predicate;
use crate::record::{Record, Side};
use crate::settings::Settings;
use crate::transform::{Transform, Verdict};

/// A chain of transforms. It belongs to one task: what it works out for schemas and topics it keeps.
#[derive(Default)]
pub struct Chain {
    links: Vec<Link>,
}

/// One transform, and the records it is for.
struct Link {
    stage: Stage,
    transform: Box<dyn Transform>,
    condition: Option<Condition>,
}

struct Condition {
    stage: Stage,
    predicate: Box<dyn Predicate>,
    negate: bool,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.links.iter().map(|link| &link.stage))
            .finish()
    }
}

impl Chain {
    /// The chain that a connector's configuration describes under `transforms` and `predicates`; keys of other parts are
    /// left alone. Every fault is reported at once, under the whole name of its key.
    ///
    /// ```
    /// use tidewater_transforms::{Chain, Datum, Record};
    ///
    /// let config = [
    ///     ("transforms", "route"),
    ///     ("transforms.route.type", "org.apache.kafka.connect.transforms.RegexRouter"),
    ///     ("transforms.route.regex", "public\\.(.*)"),
    ///     ("transforms.route.replacement", "shop-$1"),
    /// ];
    /// let config = config.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    /// let mut chain = Chain::new(&config).expect("a good configuration");
    /// let record = Record::new("public.orders", Datum::null());
    /// let routed = chain.apply(record)?.expect("not filtered");
    /// assert_eq!(&*routed.topic, "shop-orders");
    /// # Ok::<(), tidewater_transforms::TransformError>(())
    /// ```
    pub fn new(config: &ConfigMap) -> Result<Self, Vec<ConfigProblem>> {
        let mut builder = Builder {
            config,
            problems: Vec::new(),
            used: Vec::new(),
        };
        let links = builder.links();
        if builder.problems.is_empty() {
            Ok(Self { links })
        } else {
            Err(builder.problems)
        }
    }

    /// Whether there is no transform, so that records need not be looked at.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// What becomes of `record`: a record, or nothing where a transform drops it. After an error the record is gone; who
    /// needs it as it was keeps the frame or the bytes it came from, which are not touched.
    pub fn apply(&mut self, mut record: Record) -> Result<Option<Record>, TransformError> {
        for link in &mut self.links {
            if let Some(condition) = &mut link.condition {
                let met = condition
                    .predicate
                    .test(&record)
                    .map_err(|fault| error(&condition.stage, &record, fault))?;
                if met == condition.negate {
                    continue;
                }
            }
            let topic = record.topic.clone();
            match link.transform.apply(&mut record) {
                Ok(Verdict::Keep) => {}
                Ok(Verdict::Drop) => return Ok(None),
                Err(fault) => {
                    record.topic = topic;
                    return Err(error(&link.stage, &record, fault));
                }
            }
        }
        Ok(Some(record))
    }
}

fn error(stage: &Stage, record: &Record, fault: Fault) -> TransformError {
    TransformError {
        stage: stage.clone(),
        topic: (*record.topic).to_owned(),
        fault: Box::new(fault),
    }
}

/// Something is wrong, and has been noted as a problem.
struct Told;

/// The building of a chain.
struct Builder<'a> {
    config: &'a ConfigMap,
    problems: Vec<ConfigProblem>,
    /// The predicates that transforms name.
    used: Vec<String>,
}

impl Builder<'_> {
    fn links(&mut self) -> Vec<Link> {
        let transforms = self.aliases(TRANSFORMS);
        let predicates = self.aliases(PREDICATES);
        let mut links = Vec::new();
        for alias in &transforms {
            links.extend(self.link(alias, &predicates));
        }
        for alias in &predicates {
            // One that a transform uses is checked with it.
            if !self.used.contains(&alias.name) {
                self.predicate(alias);
            }
        }
        self.strays(TRANSFORMS, &transforms);
        self.strays(PREDICATES, &predicates);
        links
    }

    fn problem(&mut self, key: impl Into<String>, message: impl Into<String>) {
        let key = key.into();
        let value = self.config.get(&key).cloned();
        self.problems.push(ConfigProblem {
            key,
            value,
            message: message.into(),
        });
    }

    /// The names under `list`.
    fn aliases(&mut self, list: &'static str) -> Vec<Alias> {
        let mut found: Vec<Alias> = Vec::new();
        for alias in aliases(self.config, list) {
            if found.contains(&alias) {
                self.problem(list, format!("names {} twice; names are unique", alias.name));
            } else {
                found.push(alias);
            }
        }
        found
    }

    /// Keys of things that are not in the list.
    fn strays(&mut self, list: &'static str, known: &[Alias]) {
        let config = self.config;
        let names = || known.iter().map(|alias| alias.name.as_str());
        for key in config.keys() {
            let Some(rest) = key.strip_prefix(list).and_then(|rest| rest.strip_prefix('.')) else {
                continue;
            };
            if known.iter().any(|alias| alias.key_of(key).is_some()) {
                continue;
            }
            let name = rest.split('.').next().unwrap_or(rest);
            let near = suggestion(name, names());
            self.problems.push(ConfigProblem::new(
                key,
                format!("belongs to {name}, which is not in {list}{near}; add it there, or remove the key"),
            ));
        }
    }

    fn link(&mut self, alias: &Alias, predicates: &[Alias]) -> Option<Link> {
        let class_key = alias.key("type");
        let name = self.class_name(alias, "transforms: Cast$Value, RegexRouter, …")?;
        let (class, side) = match find_transform(&name) {
            Ok(found) => found,
            Err(message) => {
                self.problem(class_key, message);
                return None;
            }
        };
        let settings = self.settings(alias, class.config(), &of_every_transform(), class.name);
        let condition = self.condition(alias, predicates);
        let transform = self.built(alias, settings, |settings| class.build(settings, side))?;
        Some(Link {
            stage: Stage::Transform {
                name: alias.name.clone(),
                class: class_label(class, side),
            },
            transform,
            condition: condition.ok()?,
        })
    }

    /// The predicate of a transform, if it has one.
    fn condition(&mut self, alias: &Alias, predicates: &[Alias]) -> Result<Option<Condition>, Told> {
        let (predicate_key, negate_key) = (alias.key("predicate"), alias.key("negate"));
        let given = |key: &String| self.config.get(key).map(|text| text.trim()).unwrap_or_default();
        let (name, negate) = (given(&predicate_key).to_owned(), given(&negate_key).to_owned());
        if name.is_empty() {
            if negate.eq_ignore_ascii_case("true") {
                self.problem(
                    negate_key,
                    format!("has no effect without {predicate_key}; set it too"),
                );
                return Err(Told);
            }
            return Ok(None);
        }
        self.used.push(name.clone());
        let Some(predicate) = predicates.iter().find(|known| known.name == name) else {
            let near = suggestion(&name, predicates.iter().map(|known| known.name.as_str()));
            self.problem(
                predicate_key,
                format!("is not in {PREDICATES}{near}; add it there"),
            );
            return Err(Told);
        };
        let (stage, predicate) = self.predicate(predicate).ok_or(Told)?;
        Ok(Some(Condition {
            stage,
            predicate,
            negate: negate.eq_ignore_ascii_case("true"),
        }))
    }

    fn predicate(&mut self, alias: &Alias) -> Option<(Stage, Box<dyn Predicate>)> {
        // Two transforms may use it: its faults are told once.
        let told = self.problems.len();
        let name = self.class_name(alias, "predicates: TopicNameMatches, …");
        let found = name.and_then(|name| match find_predicate(&name) {
            Ok(class) => self.predicate_of(alias, class),
            Err(message) => {
                self.problem(alias.key("type"), message);
                None
            }
        });
        let mut new = self.problems.split_off(told);
        new.retain(|problem| !self.problems.contains(problem));
        self.problems.append(&mut new);
        found
    }

    fn predicate_of(&mut self, alias: &Alias, class: &PredicateClass) -> Option<(Stage, Box<dyn Predicate>)> {
        let settings = self.settings(alias, class.config(), &of_every_predicate(), class.name);
        let predicate = self.built(alias, settings, class.build)?;
        let stage = Stage::Predicate {
            name: alias.name.clone(),
            class: class.name.to_owned(),
        };
        Some((stage, predicate))
    }

    fn class_name(&mut self, alias: &Alias, examples: &str) -> Option<String> {
        let key = alias.key("type");
        match self.config.get(&key).map(|name| name.trim()) {
            Some(name) if !name.is_empty() => Some(name.to_owned()),
            _ => {
                self.problem(key, format!("is missing; it says which class of {examples}"));
                None
            }
        }
    }

    /// The configuration of one transform or predicate, checked; none where it is wrong.
    fn settings(
        &mut self,
        alias: &Alias,
        def: ConfigDef,
        of_every: &ConfigDef,
        class: &str,
    ) -> Option<Settings> {
        let before = self.problems.len();
        let mut own = ConfigMap::new();
        let mut common = ConfigMap::new();
        for (key, value) in self.config {
            let Some(name) = alias.key_of(key) else { continue };
            if def.find(name).is_some() {
                own.insert(name.to_owned(), value.clone());
            } else if of_every.find(name).is_some() {
                common.insert(name.to_owned(), value.clone());
            } else {
                let names = def.keys.iter().chain(&of_every.keys);
                let names: Vec<&str> = names.map(|known| known.name.as_str()).collect();
                let near = suggestion(name, names.iter().copied());
                // Its value is not shown: nobody knows what it is.
                self.problems.push(ConfigProblem::new(
                    key,
                    format!("is no key of {class}{near}; its keys are {}", names.join(", ")),
                ));
            }
        }
        for known in &def.keys {
            let spellings = std::iter::once(&known.name).chain(&known.aliases);
            let given: Vec<&String> = spellings.filter(|name| own.contains_key(*name)).collect();
            if let [first, second, ..] = given.as_slice() {
                let message = format!("means the same as {first}, which is given too; keep one of them");
                self.problem(alias.key(second), message);
            }
        }
        for problem in of_every.check(&common) {
            self.tell(alias, problem);
        }
        match Config::new(def, own) {
            Ok(config) if self.problems.len() == before => Some(Settings::new(config)),
            Ok(_) => None,
            Err(problems) => {
                for problem in problems {
                    self.tell(alias, problem);
                }
                None
            }
        }
    }

    fn built<T>(
        &mut self,
        alias: &Alias,
        settings: Option<Settings>,
        build: impl FnOnce(&mut Settings) -> Option<T>,
    ) -> Option<T> {
        let mut settings = settings?;
        let built = build(&mut settings);
        if settings.problems.is_empty() {
            return built;
        }
        for problem in settings.problems {
            self.tell(alias, problem);
        }
        None
    }

    /// Takes over a problem, under the whole name of its key.
    fn tell(&mut self, alias: &Alias, problem: ConfigProblem) {
        self.problems.push(ConfigProblem {
            key: alias.key(&problem.key),
            ..problem
        });
    }
}

fn class_label(class: &TransformClass, side: Option<Side>) -> String {
    match side {
        Some(Side::Key) => format!("{}$Key", class.name),
        Some(Side::Value) => format!("{}$Value", class.name),
        None => class.name.to_owned(),
    }
}
