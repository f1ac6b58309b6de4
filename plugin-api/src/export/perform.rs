//! What each opcode means for the author's connector or task.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame_pool::FramePool;
use super::{Class, Make};
use crate::abi::{Buf, Opcode};
use crate::config::{Config, ConfigMap};
use crate::config_def::{ConfigDef, ConfigProblem};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Frame, FrameBuilder, SchemaCache};
use crate::payload::{AlterOffsets, Create, Role, SinkStart, SourceStart};
use crate::sink::{SinkConnector, SinkTask, SinkTaskContext};
use crate::source::{SourceConnector, SourceTask, SourceTaskContext};

/// How long to wait before a source that had nothing is polled again; doubled each time, up to the second.
const LEAST_PAUSE: Duration = Duration::from_millis(1);
const GREATEST_PAUSE: Duration = Duration::from_millis(100);

/// What an instance is to become. It is made on its own thread, where the author's constructor may use the runtime.
#[derive(Clone)]
pub(crate) struct Blueprint {
    make: Make,
    config: &'static ConfigDef,
    create: Create,
}

impl Blueprint {
    pub(crate) fn new(class: &'static Class, create: Create) -> Self {
        Self {
            make: class.make,
            config: &class.spec.config,
            create,
        }
    }

    /// Makes the author's object: runs the author's code.
    pub(crate) fn make(&self) -> User {
        let part = match (self.make, self.create.role) {
            (Make::Source { connector, .. }, Role::Connector) => Part::SourceConnector(connector()),
            (Make::Source { task, .. }, Role::Task) => Part::SourceTask {
                task: task(),
                batch: FrameBuilder::new(),
                pool: FramePool::default(),
            },
            (Make::Sink { connector, .. }, Role::Connector) => Part::SinkConnector(connector()),
            (Make::Sink { task, .. }, Role::Task) => Part::SinkTask {
                task: task(),
                schemas: SchemaCache::default(),
            },
        };
        User {
            part,
            blueprint: self.clone(),
            started: false,
        }
    }

    fn configure(&self, map: ConfigMap) -> Result<Config, Vec<ConfigProblem>> {
        Config::new(self.config.clone(), map)
    }

    fn configured(&self, map: ConfigMap) -> Result<Config> {
        self.configure(map).map_err(|problems| {
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Error::config(all.join("; "))
        })
    }
}

/// The author's object, and what the SDK keeps beside it.
pub(crate) struct User {
    part: Part,
    blueprint: Blueprint,
    /// Whether it has been started and not been stopped.
    started: bool,
}

enum Part {
    SourceConnector(Box<dyn SourceConnector>),
    SinkConnector(Box<dyn SinkConnector>),
    SourceTask {
        task: Box<dyn SourceTask>,
        /// Outlives a poll that is dropped: what was pushed stands in the next.
        batch: FrameBuilder,
        pool: FramePool,
    },
    SinkTask {
        task: Box<dyn SinkTask>,
        schemas: SchemaCache,
    },
}

impl User {
    /// Whether `stop` is owed.
    pub(crate) fn is_started(&self) -> bool {
        self.started
    }

    /// Does what `opcode` says. Everything the author wrote runs in here.
    pub(crate) async fn perform(&mut self, opcode: Opcode, payload: Bytes) -> Result<Buf> {
        let starting = matches!(
            opcode,
            Opcode::Validate
                | Opcode::AlterOffsets
                | Opcode::ConnectorStart
                | Opcode::SourceStart
                | Opcode::SinkStart
        );
        if !starting && !self.started {
            return Err(Error::fatal(format!(
                "cannot {}: it has not been started, or has been stopped",
                opcode.noun()
            )));
        }
        let Self {
            part,
            blueprint,
            started,
        } = self;
        match part {
            Part::SourceConnector(connector) => {
                perform_connector!(connector, blueprint, started, opcode, payload)
            }
            Part::SinkConnector(connector) => {
                perform_connector!(connector, blueprint, started, opcode, payload)
            }
            Part::SourceTask { task, batch, pool } => match opcode {
                Opcode::SourceStart => {
                    let start: SourceStart = decode(&payload)?;
                    let context = SourceTaskContext {
                        connector: blueprint.create.connector.clone(),
                        task: blueprint.create.task.unwrap_or_default(),
                        generation: start.generation,
                        config: blueprint.configured(start.config)?,
                        positions: start.positions,
                    };
                    task.start(context).await?;
                    *started = true;
                    Ok(Buf::EMPTY)
                }
                Opcode::Poll => {
                    pool.supply(batch);
                    poll(&mut **task, batch).await?;
                    Ok(pool.finish(batch))
                }
                Opcode::Commit => {
                    let positions: Vec<_> = decode(&payload)?;
                    task.commit(&positions).await?;
                    Ok(Buf::EMPTY)
                }
                Opcode::Metrics => encode(&task.metrics()),
                Opcode::Stop => {
                    *started = false;
                    task.stop().await?;
                    Ok(Buf::EMPTY)
                }
                _ => Err(wrong_part(opcode)),
            },
            Part::SinkTask { task, schemas } => match opcode {
                Opcode::SinkStart => {
                    let start: SinkStart = decode(&payload)?;
                    let context = SinkTaskContext {
                        connector: blueprint.create.connector.clone(),
                        task: blueprint.create.task.unwrap_or_default(),
                        generation: start.generation,
                        config: blueprint.configured(start.config)?,
                    };
                    task.start(context).await?;
                    *started = true;
                    Ok(Buf::EMPTY)
                }
                Opcode::Open => {
                    let partitions: Vec<_> = decode(&payload)?;
                    encode(&task.open(&partitions).await?)
                }
                Opcode::Put => {
                    let frame = Frame::parse(payload, schemas)
                        .map_err(|error| Error::fatal(format!("the host sent a {error}")))?;
                    encode(&task.put(&frame).await?)
                }
                Opcode::Flush => {
                    task.flush().await?;
                    Ok(Buf::EMPTY)
                }
                Opcode::Close => {
                    let partitions: Vec<_> = decode(&payload)?;
                    task.close(&partitions).await?;
                    Ok(Buf::EMPTY)
                }
                Opcode::Metrics => encode(&task.metrics()),
                Opcode::Stop => {
                    *started = false;
                    task.stop().await?;
                    Ok(Buf::EMPTY)
                }
                _ => Err(wrong_part(opcode)),
            },
        }
    }

    /// The opcode that stops this half.
    pub(crate) fn stop_opcode(&self) -> Opcode {
        match self.part {
            Part::SourceConnector(_) | Part::SinkConnector(_) => Opcode::ConnectorStop,
            Part::SourceTask { .. } | Part::SinkTask { .. } => Opcode::Stop,
        }
    }
}

/// The two connector traits are the same but for their name, so this is written once.
macro_rules! perform_connector {
    ($connector:ident, $blueprint:ident, $started:ident, $opcode:ident, $payload:ident) => {
        match $opcode {
            Opcode::Validate => match $blueprint.configure(decode(&$payload)?) {
                Ok(config) => encode(&$connector.validate(&config).await),
                Err(problems) => encode(&problems),
            },
            Opcode::ConnectorStart => {
                let config = $blueprint.configured(decode(&$payload)?)?;
                $connector.start(&config).await?;
                *$started = true;
                Ok(Buf::EMPTY)
            }
            Opcode::TaskConfigs => {
                let max_tasks: usize = decode(&$payload)?;
                encode(&$connector.task_configs(max_tasks).await?)
            }
            Opcode::AlterOffsets => {
                let alter: AlterOffsets<_> = decode(&$payload)?;
                let config = $blueprint.configured(alter.config)?;
                let name = &$blueprint.create.connector;
                encode(&$connector.alter_offsets(name, &config, &alter.offsets).await?)
            }
            Opcode::ConnectorStop => {
                *$started = false;
                $connector.stop().await?;
                Ok(Buf::EMPTY)
            }
            _ => Err(wrong_part($opcode)),
        }
    };
}
use perform_connector;

/// Polls until there is something. A source that returns nothing, again and again, must not keep the core busy.
async fn poll(task: &mut dyn SourceTask, batch: &mut FrameBuilder) -> Result<()> {
    let mut pause = LEAST_PAUSE;
    loop {
        task.poll(batch).await?;
        if !batch.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(GREATEST_PAUSE);
    }
}

fn wrong_part(opcode: Opcode) -> Error {
    Error::fatal(format!(
        "the host asked for {opcode:?}, which is not for this half of the connector"
    ))
}

fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T> {
    serde_json::from_slice(payload).map_err(|error| {
        Error::from_source(
            ErrorKind::Fatal,
            "the host sent a payload that is not understood",
            &error,
        )
    })
}

fn encode<T: Serialize>(answer: &T) -> Result<Buf> {
    serde_json::to_vec(answer)
        .map(Buf::from)
        .map_err(|error| Error::from_source(ErrorKind::Fatal, "cannot send the answer", &error))
}
