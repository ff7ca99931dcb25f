//! Rules: short CEL expressions over the facts of one host, with bounds that hold for any text and any host.
//!
//! CEL has no loops but its macros. So that no rule can run long, give different answers on different machines, or grow a
//! value without bound, a rule that compiles obeys more than CEL's grammar:
//!
//! - its text has at most [`limits::RULE_TEXT_BYTES_MAX`] bytes and its tree [`limits::RULE_NODES_MAX`] nodes;
//! - macros (`exists`, `all`, `exists_one`, `filter`, `map`) run over a list fact such as `storage.network`, a `filter` of
//!   one, or a list of literals: never over an object (whose order is not defined), and never inside one another;
//! - `matches` stands outside macros, where it runs once.
//!
//! What is left costs at most nodes times entries of a fact list, and those are bounded by the descriptor's format.
use std::{collections::BTreeMap, fmt};

use cel::{
    Context, ExecutionError, IdedExpr, Program, Value as CelValue,
    common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue},
    objects::Key,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use thiserror::Error;

use crate::limits;

/// A rule as it was written. Its text is bounded; [`Rule::compile`] says whether it is a rule at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule(String);

/// Why a rule cannot be used, or gives no answer for a host.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum RuleError {
    /// The text is too long.
    #[error("a rule of {length} bytes is too long; at most {} are allowed", limits::RULE_TEXT_BYTES_MAX)]
    TooLong {
        /// Bytes found.
        length: usize,
    },
    /// Not an expression that is allowed.
    #[error("the rule `{rule}` cannot be used: {reason}")]
    Compile {
        /// Its text.
        rule: String,
        /// What is wrong.
        reason: String,
    },
    /// No answer for this host.
    #[error("the rule `{rule}` gives no answer for this host: {reason}")]
    Evaluate {
        /// Its text.
        rule: String,
        /// What is wrong.
        reason: String,
    },
}

impl Rule {
    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Compiles the rule and checks that it is bounded.
    ///
    /// # Errors
    /// Not CEL, or outside of what the module allows.
    pub fn compile(&self) -> Result<CompiledRule, RuleError> {
        let refuse = |reason: String| RuleError::Compile { rule: self.0.clone(), reason };
        let program = Program::compile(&self.0).map_err(|errors| {
            let first = errors.errors.first().map(|error| error.to_string()).unwrap_or_default();
            refuse(one_line(first.lines().next().unwrap_or("it is not CEL")))
        })?;
        let mut check = Check::default();
        check.expression(program.expression(), &[]).map_err(refuse)?;
        Ok(CompiledRule { text: self.0.clone(), program, ranges: check.ranges, facts: check.facts })
    }
}

impl TryFrom<String> for Rule {
    type Error = RuleError;
    fn try_from(text: String) -> Result<Self, RuleError> {
        let length = text.len();
        if length > limits::RULE_TEXT_BYTES_MAX { Err(RuleError::TooLong { length }) } else { Ok(Self(text)) }
    }
}

impl TryFrom<&str> for Rule {
    type Error = RuleError;
    fn try_from(text: &str) -> Result<Self, RuleError> {
        text.to_owned().try_into()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.0
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A TCP port: a number, or a rule that gives one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a port must be a number from 1 to 65535, or a rule in quotes that gives one")]
pub enum PortNumber {
    /// The number.
    Number(u16),
    /// A rule over facts and `plan.thresholds`.
    Rule(Rule),
}

/// A rule that is known to be CEL and bounded.
#[derive(Debug)]
pub struct CompiledRule {
    text: String,
    program: Program,
    ranges: Vec<Vec<String>>,
    facts: Vec<FactUse>,
}

/// A fact that a rule reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FactUse {
    path: Vec<String>,
    /// The member that is asked for in `"member" in path` or `path["member"]`.
    member: Option<String>,
}

/// What rules run over: the facts of one host, as JSON and as CEL sees them.
pub struct Facts {
    json: Value,
    context: Context<'static, 'static>,
}

impl Facts {
    /// Facts from a JSON object; each of its keys is a variable.
    pub fn new(json: Value) -> Self {
        let mut facts = Self { json: Value::Object(Map::new()), context: Context::default() };
        if let Value::Object(object) = json {
            for (name, value) in object {
                facts.set(&name, value);
            }
        }
        facts
    }

    /// Adds or replaces a variable.
    pub fn set(&mut self, name: &str, value: Value) {
        self.context.add_variable_from_value(name, to_cel(&value));
        if let Value::Object(object) = &mut self.json {
            object.insert(name.to_owned(), value);
        }
    }

    /// The fact at `path`, such as `["host", "cpu_count"]`.
    pub fn at<P: AsRef<str>>(&self, path: &[P]) -> Option<&Value> {
        path.iter().try_fold(&self.json, |value, name| value.get(name.as_ref()))
    }
}

impl CompiledRule {
    /// The rule's value for this host.
    ///
    /// # Errors
    /// An absent fact, values of kinds that do not go together, an overflow, or a macro over what is not a list.
    pub fn evaluate(&self, facts: &Facts) -> Result<Value, RuleError> {
        let fail = |reason: String| RuleError::Evaluate { rule: self.text.clone(), reason };
        for range in &self.ranges {
            if !facts.at(range).is_some_and(Value::is_array) {
                return Err(fail(format!("{} is not a list, so that no macro can run over it", range.join("."))));
            }
        }
        let value = self.program.execute(&facts.context).map_err(|error| fail(reason_of(&error)))?;
        let mut budget = limits::RULE_RESULT_BYTES_MAX;
        to_json(&value, &mut budget).map_err(|reason| fail(reason.to_owned()))
    }

    /// The rule's answer for this host, where it must be true or false.
    ///
    /// # Errors
    /// As [`CompiledRule::evaluate`], or any other value.
    pub fn holds(&self, facts: &Facts) -> Result<bool, RuleError> {
        self.evaluate(facts)?.as_bool().ok_or_else(|| RuleError::Evaluate {
            rule: self.text.clone(),
            reason: "it must be true or false".to_owned(),
        })
    }

    /// The facts that the rule reads, with their values, for explanations: `host.cpu_count = 2`.
    pub fn facts_read(&self, facts: &Facts) -> String {
        let texts: Vec<String> = self.facts.iter().map(|used| used.describe(facts)).collect();
        cut(texts.join(", "), 400)
    }
}

impl FactUse {
    fn describe(&self, facts: &Facts) -> String {
        let path = self.path.join(".");
        let value = facts.at(&self.path);
        match (&self.member, value) {
            (_, None) => format!("{path} is unknown"),
            (Some(member), Some(Value::Array(list))) => {
                let there = list.iter().any(|entry| entry.as_str() == Some(member));
                format!("{path} {} {member:?}", if there { "has" } else { "has no" })
            }
            (Some(member), Some(value)) => match value.get(member) {
                Some(entry) => format!("{path}[{member:?}] = {}", cut(entry.to_string(), 120)),
                None => format!("{path} has no {member:?}"),
            },
            (None, Some(value)) => format!("{path} = {}", cut(value.to_string(), 160)),
        }
    }
}

/// Walks a tree once: counts it, checks the macros, and notes what is read.
#[derive(Default)]
struct Check {
    nodes: usize,
    ranges: Vec<Vec<String>>,
    facts: Vec<FactUse>,
}

/// `bound` are the variables of the macros around an expression; it is empty outside of macros.
type Bound<'a> = [&'a str];

impl Check {
    fn expression(&mut self, expression: &IdedExpr, bound: &Bound<'_>) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > limits::RULE_NODES_MAX {
            return Err(format!("it has more than {} parts; split it", limits::RULE_NODES_MAX));
        }
        if let Some(path) = path_of(&expression.expr) {
            self.note(path, None, bound);
            return Ok(());
        }
        match &expression.expr {
            Expr::Unspecified => Err("it has an empty part".to_owned()),
            Expr::Ident(_) | Expr::Literal(_) => Ok(()),
            Expr::Select(select) => self.expression(&select.operand, bound),
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.expression(element, bound)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| self.entry(&entry.expr, bound)),
            Expr::Struct(_) => Err("it makes a message, which rules have none of".to_owned()),
            Expr::Call(call) => self.call(call, bound),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, bound),
        }
    }

    fn entry(&mut self, entry: &EntryExpr, bound: &Bound<'_>) -> Result<(), String> {
        match entry {
            EntryExpr::StructField(field) => self.expression(&field.value, bound),
            EntryExpr::MapEntry(entry) => {
                self.expression(&entry.key, bound)?;
                self.expression(&entry.value, bound)
            }
        }
    }

    fn call(&mut self, call: &CallExpr, bound: &Bound<'_>) -> Result<(), String> {
        if call.func_name == "matches" && !bound.is_empty() {
            return Err("`matches` is not allowed inside a macro; use ==, startsWith, endsWith or contains".to_owned());
        }
        // `"member" in path` and `path["member"]` read one member, and explanations should show that one only.
        if let [first, second] = call.args.as_slice() {
            let (member, container) = if call.func_name == "@in" { (first, second) } else { (second, first) };
            let is_lookup = matches!(call.func_name.as_str(), "@in" | "_[_]");
            if let (true, Some(member), Some(path)) = (is_lookup, text_of(&member.expr), path_of(&container.expr)) {
                self.nodes += 2;
                self.note(path, Some(member), bound);
                return Ok(());
            }
        }
        if let Some(target) = &call.target {
            self.expression(target, bound)?;
        }
        call.args.iter().try_for_each(|argument| self.expression(argument, bound))
    }

    fn comprehension(&mut self, macro_call: &ComprehensionExpr, bound: &Bound<'_>) -> Result<(), String> {
        if !bound.is_empty() {
            return Err("it has a macro inside a macro; use `in`, or two rules".to_owned());
        }
        self.range(&macro_call.iter_range)?;
        let mut inside = vec![macro_call.iter_var.as_str(), macro_call.accu_var.as_str()];
        inside.extend(macro_call.iter_var2.as_deref());
        for part in [&macro_call.accu_init, &macro_call.loop_cond, &macro_call.loop_step, &macro_call.result] {
            self.expression(part, &inside)?;
        }
        Ok(())
    }

    fn range(&mut self, range: &IdedExpr) -> Result<(), String> {
        if let Some(path) = path_of(&range.expr) {
            self.nodes += 1;
            self.note(path.clone(), None, &[]);
            self.ranges.push(path);
            return Ok(());
        }
        match &range.expr {
            Expr::List(list) if list.elements.iter().all(|element| matches!(element.expr, Expr::Literal(_))) => Ok(()),
            Expr::Comprehension(filter) if is_filter(filter) => self.comprehension(filter, &[]),
            _ => Err("a macro runs over a list fact such as storage.network, or over a filter of one".to_owned()),
        }
    }

    fn note(&mut self, path: Vec<String>, member: Option<String>, bound: &Bound<'_>) {
        let used = FactUse { path, member };
        if !bound.contains(&used.path[0].as_str()) && !self.facts.contains(&used) {
            self.facts.push(used);
        }
    }
}

/// `filter` keeps entries as they are, so that what it gives is never larger than what it takes: its step adds the
/// loop's own variable to the result.
fn is_filter(comprehension: &ComprehensionExpr) -> bool {
    let Expr::Call(step) = &comprehension.loop_step.expr else { return false };
    let Some(Expr::Call(add)) = step.args.get(1).map(|argument| &argument.expr) else { return false };
    let Some(Expr::List(list)) = add.args.get(1).map(|argument| &argument.expr) else { return false };
    matches!(&list.elements[..], [element] if matches!(&element.expr, Expr::Ident(name) if *name == comprehension.iter_var))
}

/// `a.b.c` as its names. A presence test (`has(a.b)`) reads the same fact.
fn path_of(expression: &Expr) -> Option<Vec<String>> {
    match expression {
        Expr::Ident(name) => Some(vec![name.trim_start_matches('.').to_owned()]),
        Expr::Select(select) => {
            let mut path = path_of(&select.operand.expr)?;
            path.push(select.field.clone());
            Some(path)
        }
        _ => None,
    }
}

fn text_of(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
        _ => None,
    }
}

/// Numbers that fit become CEL's `int`, so that rules can calculate with them and literals.
fn to_cel(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => CelValue::Int(number),
            (None, Some(number)) => CelValue::UInt(number),
            (None, None) => CelValue::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => CelValue::from(text.as_str()),
        Value::Array(list) => CelValue::from(list.iter().map(to_cel).collect::<Vec<_>>()),
        Value::Object(object) => CelValue::from(
            object
                .iter()
                .map(|(key, value)| (key.as_str(), to_cel(value)))
                .collect::<std::collections::HashMap<_, _>>(),
        ),
    }
}

/// The value as JSON, whose objects are sorted, within `budget` bytes.
fn to_json(value: &CelValue, budget: &mut usize) -> Result<Value, &'static str> {
    let text_bytes = if let CelValue::String(text) = value { text.len() } else { 0 };
    *budget = budget.checked_sub(8 + text_bytes).ok_or("its value is too large")?;
    Ok(match value {
        CelValue::Null => Value::Null,
        CelValue::Bool(value) => Value::Bool(*value),
        CelValue::Int(number) => Value::from(*number),
        CelValue::UInt(number) => Value::from(*number),
        CelValue::Float(number) => Value::Number(Number::from_f64(*number).ok_or("its value is not a number")?),
        CelValue::String(text) => Value::String(text.to_string()),
        CelValue::List(list) => {
            Value::Array(list.iter().map(|entry| to_json(entry, budget)).collect::<Result<_, _>>()?)
        }
        CelValue::Map(map) => {
            let mut ordered = BTreeMap::new();
            for (key, entry) in map.map.iter() {
                let Key::String(key) = key else { return Err("its value is a map whose keys are not texts") };
                ordered.insert(key, entry);
            }
            let mut object = Map::new();
            for (key, entry) in ordered {
                *budget = budget.checked_sub(key.len()).ok_or("its value is too large")?;
                object.insert(key.to_string(), to_json(entry, budget)?);
            }
            Value::Object(object)
        }
        _ => return Err("its value is neither a truth value, a number, a text, a list nor a map"),
    })
}

/// Why a program gave no value, in the same words on every machine: the library's own words show a map in the order of
/// its hash table, which differs from run to run.
fn reason_of(error: &ExecutionError) -> String {
    use ExecutionError as E;
    let reason = match error {
        E::UnsupportedBinaryOperator(operator, left, right) => {
            format!("`{operator}` is not defined for {} and {}", shown(left), shown(right))
        }
        E::Overflow(operator, left, right) => {
            format!("`{operator}` of {} and {} is out of range", shown(left), shown(right))
        }
        E::ValuesNotComparable(left, right) => format!("{} cannot be compared with {}", shown(left), shown(right)),
        E::UnsupportedIndex(index, of) => format!("{} has no element {}", shown(of), shown(index)),
        E::NotSupportedAsMethod { method, target } => format!("{} has no method `{method}`", shown(target)),
        E::UnsupportedTargetType { target } => format!("{} is not what the function works on", shown(target)),
        E::UnexpectedType { want, .. } => format!("a value is not of the type {want}"),
        E::UnsupportedKeyType(key) => format!("{} cannot be a key", shown(key)),
        E::DuplicateKey(key) => format!("the key {} stands twice", shown(key)),
        E::IndexOutOfBounds(index) => format!("the index {} is out of bounds", shown(index)),
        E::DivisionByZero(dividend) => format!("{} is divided by zero", shown(dividend)),
        E::RemainderByZero(dividend) => format!("{} is divided by zero for its remainder", shown(dividend)),
        E::InvalidArgumentCount { .. }
        | E::NoSuchKey(_)
        | E::NoSuchOverload(_)
        | E::UndeclaredReference(_)
        | E::MissingArgumentOrTarget
        | E::FunctionError { .. } => error.to_string(),
        _ => "it cannot be calculated".to_owned(),
    };
    one_line(&reason)
}

/// A value in a reason: itself where it is one, its kind where it holds others.
fn shown(value: &CelValue) -> String {
    match value {
        CelValue::Null => "null".to_owned(),
        CelValue::Bool(value) => value.to_string(),
        CelValue::Int(number) => number.to_string(),
        CelValue::UInt(number) => format!("{number}u"),
        CelValue::Float(number) => format!("{number:?}"),
        CelValue::String(text) => cut(format!("{text:?}"), 60),
        CelValue::List(list) => format!("a list of {}", list.len()),
        CelValue::Map(map) => format!("a map of {}", map.map.len()),
        other => format!("a {}", other.type_of()),
    }
}

fn one_line(text: &str) -> String {
    cut(text.split_whitespace().collect::<Vec<_>>().join(" "), 200)
}

/// Cuts a text for people at a character, and shows that it was cut.
pub(crate) fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let mut end = bytes;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
