//! Conditions and topics as expressions of CEL, the Common Expression Language. It has no loops but those over the elements of
//! a list or map, so an evaluation ends; how deep these may nest, and how long an expression may be, is bounded here.

mod record_value;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr};
use cel::{Context, Env, ExecutionError, IdedExpr, Program, Value};

use self::record_value::Variables;
use crate::fault::Fault;
use crate::record::{Record, Side};

/// Longer than a condition that people still read.
const MAX_LENGTH: usize = 8192;
/// An expression may look at each element of each list in each list, which is linear in a record, and no further.
const MAX_LOOPS: usize = 3;

const VARIABLES: [&str; 8] = [
    "topic",
    "partition",
    "timestamp",
    "key",
    "value",
    "header",
    "keySchema",
    "valueSchema",
];

/// An expression over a record, compiled once.
pub(crate) struct Expression {
    program: Program,
    env: Arc<Env>,
    key: &'static str,
    reads_key: bool,
    reads_value: bool,
    reads_headers: bool,
}

impl Expression {
    /// The expression under the configuration key `key`; the error says what is wrong with it.
    pub(crate) fn new(text: &str, key: &'static str) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("is longer than {MAX_LENGTH} bytes; split it"));
        }
        let env = Env::stdlib();
        let compiled = catch_unwind(AssertUnwindSafe(|| env.compile(text)));
        let program = match compiled {
            Ok(Ok(program)) => program,
            Ok(Err(errors)) => {
                let first = errors.to_string();
                let first = first
                    .lines()
                    .find(|line| !line.trim().is_empty())
                    .unwrap_or_default();
                return Err(format!(
                    "is no expression of CEL: {}",
                    first.trim_start_matches("ERROR: ")
                ));
            }
            Err(_) => return Err("is no expression of CEL".into()),
        };
        if loops(program.expression()) > MAX_LOOPS {
            return Err(format!(
                "nests all, exists, map or filter more than {MAX_LOOPS} deep; take it apart"
            ));
        }
        let references = program.references();
        // Names that begin with @ or _ are those of loops.
        let unknown = references
            .variables()
            .into_iter()
            .find(|name| !VARIABLES.contains(name) && !is_own(program.expression(), name))
            .map(ToOwned::to_owned);
        let reads = |name: &str| references.has_variable(name);
        let (reads_key, reads_value, reads_headers) = (reads("key"), reads("value"), reads("header"));
        drop(references);
        if let Some(name) = unknown {
            return Err(format!(
                "reads {name:?}, which is not there; a record has {}{}",
                VARIABLES.join(", "),
                crate::nearest::suggestion(&name, VARIABLES)
            ));
        }
        Ok(Self {
            program,
            env: Arc::new(env),
            key,
            reads_key,
            reads_value,
            reads_headers,
        })
    }

    /// What the expression is for `record`, of which only what it names is decoded.
    pub(crate) fn evaluate(&self, record: &mut Record) -> Result<Value, Fault> {
        if self.reads_key {
            record.key.value().map_err(Fault::decode(Side::Key))?;
        }
        if self.reads_value {
            record.value.value().map_err(Fault::decode(Side::Value))?;
        }
        if self.reads_headers {
            for header in &mut record.headers {
                header.value.value().map_err(Fault::decode(Side::Value))?;
            }
        }
        let variables = Variables(record);
        let evaluated = catch_unwind(AssertUnwindSafe(|| {
            let mut context = Context::with_env(self.env.clone());
            context.set_variable_resolver(&variables);
            self.program.execute(&context)
        }));
        match evaluated {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.fault(told(&error))),
            Err(_) => Err(self.fault("the evaluation broke down".into())),
        }
    }

    fn fault(&self, reason: String) -> Fault {
        Fault::Evaluation {
            key: self.key,
            reason,
            advice: "ask with has(…) for what is not in every record, and limit the transform with topic.regex or a predicate"
                .into(),
        }
    }

    /// The fault that the result is of the wrong type.
    pub(crate) fn wrong_result(&self, found: &Value, expected: &str) -> Fault {
        Fault::Evaluation {
            key: self.key,
            reason: format!("the result is of type {}, expected {expected}", found.type_of()),
            advice: "mend the expression".into(),
        }
    }
}

/// The error without what the record holds, which some of its forms carry.
fn told(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(_)
        | ExecutionError::NoSuchOverload(_)
        | ExecutionError::UndeclaredReference(_)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::InvalidArgumentCount { .. }
        | ExecutionError::MissingArgumentOrTarget => error.to_string(),
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("a {} does not compare with a {}", left.type_of(), right.type_of())
        }
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => format!(
            "the operator {operator} does not take a {} and a {}",
            left.type_of(),
            right.type_of()
        ),
        ExecutionError::FunctionError { function, .. } => format!("the function {function} fails"),
        ExecutionError::DivisionByZero(_) => "a division by zero".into(),
        ExecutionError::RemainderByZero(_) => "a remainder by zero".into(),
        ExecutionError::Overflow(operator, ..) => format!("the operator {operator} overflows"),
        ExecutionError::IndexOutOfBounds(_) => "a list has no element of that number".into(),
        ExecutionError::UnsupportedTargetType { target } => {
            format!("a function does not take a {}", target.type_of())
        }
        ExecutionError::NotSupportedAsMethod { method, target } => {
            format!("{method} is no function of a {}", target.type_of())
        }
        _ => "a value is not of the type that is asked for".into(),
    }
}

/// How deep loops nest in `expression`; its own depth is bounded by the parser.
fn loops(expression: &IdedExpr) -> usize {
    let mut deepest = 0;
    each_part(expression, &mut |part| deepest = deepest.max(loops(part)));
    deepest + usize::from(matches!(expression.expr, Expr::Comprehension(_)))
}

/// Whether a loop in `expression` makes the variable `name`.
fn is_own(expression: &IdedExpr, name: &str) -> bool {
    let mut own = match &expression.expr {
        Expr::Comprehension(inner) => {
            inner.iter_var == name
                || inner.accu_var == name
                || inner.iter_var2.as_ref().is_some_and(|variable| variable == name)
        }
        _ => false,
    };
    each_part(expression, &mut |part| own |= is_own(part, name));
    own
}

fn each_part(expression: &IdedExpr, visit: &mut dyn FnMut(&IdedExpr)) {
    match &expression.expr {
        Expr::Call(call) => call
            .target
            .iter()
            .map(|target| &**target)
            .chain(&call.args)
            .for_each(visit),
        Expr::Comprehension(inner) => [
            &inner.iter_range,
            &inner.accu_init,
            &inner.loop_cond,
            &inner.loop_step,
            &inner.result,
        ]
        .into_iter()
        .for_each(visit),
        Expr::List(list) => list.elements.iter().for_each(visit),
        Expr::Select(select) => visit(&select.operand),
        Expr::Map(map) => entries(map.entries.iter().map(|entry| &entry.expr), visit),
        Expr::Struct(fields) => entries(fields.entries.iter().map(|entry| &entry.expr), visit),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
    }
}

fn entries<'a>(entries: impl Iterator<Item = &'a EntryExpr>, visit: &mut dyn FnMut(&IdedExpr)) {
    for entry in entries {
        match entry {
            EntryExpr::StructField(field) => visit(&field.value),
            EntryExpr::MapEntry(entry) => {
                visit(&entry.key);
                visit(&entry.value);
            }
        }
    }
}
