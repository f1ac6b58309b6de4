//! Takes operations from the inbox and runs them one after the other, on the thread of the instance.
//!
//! While one runs, the inbox is watched: more operations queue up, a cancelled one is dropped, and a poll that waits is
//! dropped for the sake of any other operation and begun anew afterwards, without the host noticing.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::instance::{Message, Operation};
use super::panics::{Guarded, Panic, catch};
use super::perform::{Blueprint, User};
use super::reply::Reply;
use crate::abi::{Buf, Opcode, Status};
use crate::error::{Error, ErrorKind, Result};

/// How an instance's life ended.
pub(crate) struct Ended {
    /// When what is left of it must be gone.
    pub(crate) deadline: Instant,
    /// The answer owed for the destruction; none where the host let go without asking.
    pub(crate) reply: Option<Reply>,
    /// What the author's `stop` and `Drop` made of it.
    pub(crate) result: Result<()>,
}

struct Destroy {
    deadline: Instant,
    reply: Option<Reply>,
}

/// What became of an operation that ran.
enum Outcome {
    Done(Result<Buf>),
    Panicked(Panic),
    Cancelled,
    /// A poll made way for another operation.
    Interrupted,
    Destroyed,
}

pub(crate) struct Worker {
    inbox: Inbox,
    blueprint: Blueprint,
    /// Made with the first operation.
    user: Option<User>,
    /// Why nothing of the author's may run any more, after a panic.
    poisoned: Option<String>,
}

impl Worker {
    pub(crate) fn new(blueprint: Blueprint, inbox: UnboundedReceiver<Message>) -> Self {
        Self {
            inbox: Inbox {
                receiver: inbox,
                queue: VecDeque::new(),
                poll: None,
                destroy: None,
            },
            blueprint,
            user: None,
            poisoned: None,
        }
    }

    /// Runs until the host destroys the instance.
    pub(crate) async fn serve(mut self) -> Ended {
        while self.inbox.destroy.is_none() {
            if let Some(operation) = self.inbox.next() {
                self.run(operation).await;
            } else if self.inbox.destroy.is_none() {
                self.inbox.wait().await;
            }
        }
        self.end().await
    }

    async fn run(&mut self, operation: Operation) {
        let Operation {
            id,
            opcode: number,
            payload,
            reply,
        } = operation;
        let Some(opcode) = Opcode::from_u32(number) else {
            return reply.send(Status::Unsupported, Buf::EMPTY);
        };
        if let Some(reason) = &self.poisoned {
            return reply.error(&Error::new(
                ErrorKind::Panic,
                format!(
                    "cannot {}: the instance is poisoned since {reason}",
                    opcode.noun()
                ),
            ));
        }
        let user = match &mut self.user {
            Some(user) => user,
            none => match catch(|| self.blueprint.make()) {
                Ok(user) => none.insert(user),
                Err(panic) => return self.poison(&panic, "its constructor", reply),
            },
        };
        let future = Guarded::new(user.perform(opcode, payload.clone()));
        match self.inbox.drive(id, opcode == Opcode::Poll, future).await {
            Outcome::Done(Ok(answer)) => {
                if opcode == Opcode::Stop
                    && let Some(poll) = self.inbox.poll.take()
                {
                    poll.reply.cancelled();
                }
                reply.ok(answer);
            }
            Outcome::Done(Err(error)) => reply.error(&error),
            Outcome::Panicked(panic) => self.poison(&panic, opcode.noun(), reply),
            Outcome::Cancelled | Outcome::Destroyed => reply.cancelled(),
            Outcome::Interrupted => {
                self.inbox.poll = Some(Operation {
                    id,
                    opcode: number,
                    payload,
                    reply,
                });
            }
        }
    }

    fn poison(&mut self, panic: &Panic, doing: &str, reply: Reply) {
        let error = panic.error(doing);
        self.poisoned = Some(error.message.clone());
        reply.error(&error);
    }

    /// The end: the author's `stop` where it is owed, then everything is dropped, all within the runtime.
    async fn end(mut self) -> Ended {
        let Destroy { deadline, reply } = self.inbox.destroy.take().unwrap_or(Destroy {
            deadline: Instant::now(),
            reply: None,
        });
        // What still waits is answered: cancelled.
        drop(self.inbox);

        let mut result = Ok(());
        if let Some(mut user) = self.user.take() {
            if user.is_started() && self.poisoned.is_none() {
                result = stop(&mut user, deadline).await;
            }
            if let Err(panic) = catch(|| drop(user)) {
                result = Err(panic.error("its Drop"));
            }
        }
        Ended {
            deadline,
            reply,
            result,
        }
    }
}

async fn stop(user: &mut User, deadline: Instant) -> Result<()> {
    let opcode = user.stop_opcode();
    let mut stop = Guarded::new(user.perform(opcode, Bytes::new()));
    match tokio::time::timeout_at(deadline, &mut stop).await {
        Ok(Ok(result)) => result.map(|_| ()),
        Ok(Err(panic)) => Err(panic.error("stop")),
        Err(_) => {
            stop.discard().map_err(|panic| panic.error("stop"))?;
            Err(Error::fatal(
                "stop did not return before the deadline and was dropped",
            ))
        }
    }
}

struct Inbox {
    receiver: UnboundedReceiver<Message>,
    queue: VecDeque<Operation>,
    /// The poll that waits aside: there is at most one.
    poll: Option<Operation>,
    destroy: Option<Destroy>,
}

impl Inbox {
    /// What to run next: polls only when there is nothing else.
    fn next(&mut self) -> Option<Operation> {
        // Takes in what has arrived meanwhile, so that a poll does not begin only to be interrupted.
        while self.destroy.is_none()
            && let Ok(message) = self.receiver.try_recv()
        {
            self.take(message);
        }
        if self.destroy.is_some() {
            return None;
        }
        self.queue.pop_front().or_else(|| self.poll.take())
    }

    /// Waits for a message.
    async fn wait(&mut self) {
        match self.receiver.recv().await {
            Some(message) => self.take(message),
            None => self.abandoned(),
        }
    }

    /// The host has let go of the instance without destroying it.
    fn abandoned(&mut self) {
        self.destroy.get_or_insert(Destroy {
            deadline: Instant::now(),
            reply: None,
        });
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit(operation) if operation.opcode == Opcode::Poll as u32 => {
                if self.poll.is_some() {
                    operation
                        .reply
                        .error(&Error::fatal("the host polls again while a poll is in flight"));
                } else {
                    self.poll = Some(operation);
                }
            }
            Message::Submit(operation) => self.queue.push_back(operation),
            Message::Cancel(id) => {
                if self.poll.as_ref().is_some_and(|poll| poll.id == id) {
                    self.poll = None;
                }
                // Dropped, an operation is answered: cancelled.
                self.queue.retain(|operation| operation.id != id);
            }
            Message::Destroy { deadline, reply } => {
                self.destroy = Some(Destroy {
                    // A deadline beyond what a clock can tell is as good as a long one.
                    deadline: Instant::now() + deadline.min(Duration::from_hours(1)),
                    reply: Some(reply),
                });
            }
        }
    }

    /// Runs the operation `id` while watching for messages.
    async fn drive(&mut self, id: u64, is_poll: bool, mut future: Guarded<'_, Result<Buf>>) -> Outcome {
        let reason = loop {
            tokio::select! {
                biased;
                message = self.receiver.recv() => match message {
                    Some(Message::Cancel(cancelled)) if cancelled == id => break Outcome::Cancelled,
                    Some(message) => self.take(message),
                    None => self.abandoned(),
                },
                result = &mut future => {
                    return match result {
                        Ok(result) => Outcome::Done(result),
                        Err(panic) => Outcome::Panicked(panic),
                    };
                }
            }
            if self.destroy.is_some() {
                break Outcome::Destroyed;
            }
            if is_poll && !self.queue.is_empty() {
                break Outcome::Interrupted;
            }
        };
        match future.discard() {
            Ok(()) => reason,
            Err(panic) => Outcome::Panicked(panic),
        }
    }
}
