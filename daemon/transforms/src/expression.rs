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
/// How deep an expression may nest. Parser and evaluation are recursive, and a stack that runs over ends the process.
const MAX_DEPTH: usize = 32;
/// Stack that the evaluation of one level takes at most; unoptimized code takes much more.
const LEVEL_STACK: usize = if cfg!(debug_assertions) {
    128 << 10
} else {
    32 << 10
};
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
    /// What an evaluation may take of the stack; where less is left, it gets one of its own.
    stack: usize,
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
        if brackets(text) > MAX_DEPTH {
            return Err(too_deep());
        }
        let env = Arc::new(Env::stdlib());
        let program = compile(&env, text)?;
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
        let stack = (depth(program.expression()) + 4) * LEVEL_STACK;
        Ok(Self {
            program,
            env,
            key,
            stack,
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
            stacker::maybe_grow(self.stack, self.stack, || self.program.execute(&context))
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

/// Compiles `text` on a stack of its own: the parser's is used up by little, and one that runs over ends the process.
fn compile(env: &Arc<Env>, text: &str) -> Result<Program, String> {
    /// For every text of [`MAX_LENGTH`] that nests [`MAX_DEPTH`] deep, many times over; only what is used takes memory.
    const STACK: usize = 256 << 20;
    let (env, text) = (env.clone(), text.to_owned());
    let work = move || match env.compile(&text) {
        // Dropping what is too deep is recursive too, so it ends here.
        // A loop and its parts are several levels of what people wrote as one.
        Ok(program) if depth(program.expression()) > 2 * MAX_DEPTH => Err(too_deep()),
        Ok(program) => Ok(program),
        Err(errors) => {
            let errors = errors.to_string();
            let first = errors.lines().find(|line| !line.trim().is_empty());
            let first = first.unwrap_or_default().trim_start_matches("ERROR: ");
            Err(format!("is no expression of CEL: {first}"))
        }
    };
    std::thread::Builder::new()
        .name("cel-parser".into())
        .stack_size(STACK)
        .spawn(work)
        .map_err(|error| format!("cannot be compiled: no thread for it: {error}"))?
        .join()
        .unwrap_or_else(|_| Err("is no expression of CEL".into()))
}

fn too_deep() -> String {
    format!("nests more than {MAX_DEPTH} deep; take it apart")
}

/// How deep brackets nest, those in strings among them, and how many prefixes of one letter and conditions follow one another:
/// what a parser descends for, seen before it does.
fn brackets(text: &str) -> usize {
    let (mut depth, mut deepest, mut run, mut longest) = (0_usize, 0, 0, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        match byte {
            b'!' | b'-' => run += 1,
            b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => run = 0,
        }
        deepest = deepest.max(depth);
        longest = longest.max(run);
    }
    let conditions = text.bytes().filter(|byte| *byte == b'?').count();
    deepest.max(longest).max(conditions)
}

/// How deep `expression` nests. It is walked by a list, since it may be deeper than calls can go.
fn depth(expression: &IdedExpr) -> usize {
    let mut open = vec![(expression, 1)];
    let mut deepest = 0;
    while let Some((part, depth)) = open.pop() {
        deepest = deepest.max(depth);
        parts(part, &mut |inner| open.push((inner, depth + 1)));
    }
    deepest
}

/// How deep loops nest in `expression`.
fn loops(expression: &IdedExpr) -> usize {
    let mut deepest = 0;
    parts(expression, &mut |part| deepest = deepest.max(loops(part)));
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
    parts(expression, &mut |part| own |= is_own(part, name));
    own
}

/// The parts that `expression` is directly made of.
fn parts<'a>(expression: &'a IdedExpr, visit: &mut dyn FnMut(&'a IdedExpr)) {
    match &expression.expr {
        Expr::Call(call) => {
            for part in call.target.iter().map(|target| &**target).chain(&call.args) {
                visit(part);
            }
        }
        Expr::Comprehension(inner) => {
            let parts = [
                &inner.iter_range,
                &inner.accu_init,
                &inner.loop_cond,
                &inner.loop_step,
                &inner.result,
            ];
            for part in parts {
                visit(part);
            }
        }
        Expr::List(list) => {
            for part in &list.elements {
                visit(part);
            }
        }
        Expr::Select(select) => visit(&select.operand),
        Expr::Map(map) => entries(map.entries.iter().map(|entry| &entry.expr), visit),
        Expr::Struct(fields) => entries(fields.entries.iter().map(|entry| &entry.expr), visit),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
    }
}

fn entries<'a>(entries: impl Iterator<Item = &'a EntryExpr>, visit: &mut dyn FnMut(&'a IdedExpr)) {
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
