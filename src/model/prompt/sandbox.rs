// SPDX-License-Identifier: MPL-2.0
//! Runs a chat template that nobody vouches for. A template is a program: it may nest deeper than a
//! stack, loop for ever, or double a text until memory is gone. Here it is bounded in its size and
//! depth before it is compiled, and in its steps and in what it makes while it runs.
//!
//! The bounds on what it makes sit where values are made and walked through: the instructions for
//! `+`, `~`, `*`, comparisons and literals are replaced by filters of ours, and every filter, method
//! and output weighs what it is given first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::machinery::{
    CodeGenerator, Instruction, Instructions, Token, eval, make_string_output, parse, tokenize,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

/// The longest template, in bytes; published ones have a tenth of it.
const MAX_SOURCE: usize = 128 << 10;
/// Tokens of one tag. An expression is nested no deeper than it is long.
const MAX_TAG: usize = 1000;
/// Branches of conditions, each of which is nested in the one before.
const MAX_BRANCHES: usize = 500;
/// Enough for what is left of both.
const STACK: usize = 64 << 20;
/// Instructions; rendering a published template takes a few hundred.
const FUEL: u64 = 20_000;
/// What may be made while it runs, in bytes or so; a prompt without its video is a page or two.
const BUDGET: usize = 256 << 10;
/// What a value weighs beside its text.
const ELEMENT: usize = 16;
/// The deepest value.
const MAX_DEPTH: usize = 32;
/// The widest indentation, padding or batch.
const MAX_WIDTH: i64 = 1000;

/// The names under which the replaced instructions are found, with what they do.
const OPERATORS: [(&str, &str); 10] = [
    ("__add", "a + b"),
    ("__mul", "a * b"),
    ("__concat", "a ~ b"),
    ("__eq", "a == b"),
    ("__ne", "a != b"),
    ("__lt", "a < b"),
    ("__lte", "a <= b"),
    ("__gt", "a > b"),
    ("__gte", "a >= b"),
    ("__in", "a in b"),
];

/// Builds a list of its arguments.
const LIST: &str = "__list";

/// minijinja's own filters that may make or walk through much.
const FILTERS: [&str; 46] = [
    "escape",
    "e",
    "lower",
    "upper",
    "title",
    "capitalize",
    "replace",
    "length",
    "count",
    "dictsort",
    "items",
    "reverse",
    "trim",
    "join",
    "split",
    "lines",
    "default",
    "d",
    "int",
    "float",
    "attr",
    "first",
    "last",
    "min",
    "max",
    "sort",
    "list",
    "string",
    "bool",
    "batch",
    "slice",
    "sum",
    "indent",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
    "map",
    "groupby",
    "unique",
    "chain",
    "zip",
    "pprint",
    "format",
    "tojson",
    "urlencode",
];

/// Tests that compare.
const TESTS: [&str; 16] = [
    "eq",
    "equalto",
    "==",
    "ne",
    "!=",
    "lt",
    "lessthan",
    "<",
    "le",
    "<=",
    "gt",
    "greaterthan",
    ">",
    "ge",
    ">=",
    "in",
];

/// Renders a template, or says why not.
pub(super) fn render(source: &str, context: &Value) -> Result<String, String> {
    if source.len() > MAX_SOURCE {
        let (bytes, most) = (source.len(), MAX_SOURCE);
        return Err(format!("it has {bytes} bytes; at most {most} are taken"));
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat template".into()).stack_size(STACK);
        let run = thread.spawn_scoped(scope, || run(source, context));
        let run = run.map_err(|e| format!("no thread to render it on: {e}"))?;
        run.join().unwrap_or_else(|_| Err("it cannot be rendered".into()))
    })
}

fn run(source: &str, context: &Value) -> Result<String, String> {
    let told = |e: Error| match e.kind() {
        ErrorKind::OutOfFuel => format!("it does not end within {FUEL} steps"),
        _ => format!("{e:#}"),
    };
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    let syntax = syntax.map_err(told)?;
    check_depth(source, &syntax)?;
    let template = parse(source, "template", syntax).map_err(told)?;
    let mut generator = CodeGenerator::new("template", source);
    generator.compile_stmt(&template);
    drop(template);
    let (mut instructions, mut blocks) = generator.finish();
    guard(&mut instructions);
    blocks.values_mut().for_each(guard);
    let environment = environment().map_err(told)?;
    let mut text = String::new();
    let mut output = make_string_output(&mut text);
    let context = context.clone();
    let none = AutoEscape::None;
    eval(&environment, &instructions, context, &blocks, &mut output, none).map_err(told)?;
    if text.len() > BUDGET {
        return Err(too_much().to_string());
    }
    Ok(text)
}

/// Refuses what is nested deeper than it can be parsed. What the tokens are is the parser's to say.
fn check_depth(source: &str, syntax: &SyntaxConfig) -> Result<(), String> {
    let (mut tag, mut branches) = (0, 0);
    let mut at_start = false;
    for token in tokenize(source, false, syntax.clone()) {
        let Ok((token, _)) = token else { return Ok(()) };
        tag += 1;
        match token {
            Token::BlockStart | Token::VariableStart | Token::TemplateData(_) => tag = 0,
            Token::Ident("elif") if at_start => branches += 1,
            _ => {}
        }
        at_start = matches!(token, Token::BlockStart);
        if tag > MAX_TAG || branches > MAX_BRANCHES {
            return Err(format!(
                "it is nested too deep; at most {MAX_TAG} words in a tag and {MAX_BRANCHES} `elif` \
                 are taken"
            ));
        }
    }
    Ok(())
}

/// Replaces the instructions that make or walk through values by filters that weigh them. Both take
/// as much from the stack and leave one value there.
fn guard(instructions: &mut Instructions) {
    for at in 0.. {
        let Some(instruction) = instructions.get_mut(at) else { return };
        let (name, arguments) = match instruction {
            Instruction::Add => ("__add", Some(2)),
            Instruction::Mul => ("__mul", Some(2)),
            Instruction::StringConcat => ("__concat", Some(2)),
            Instruction::Eq => ("__eq", Some(2)),
            Instruction::Ne => ("__ne", Some(2)),
            Instruction::Lt => ("__lt", Some(2)),
            Instruction::Lte => ("__lte", Some(2)),
            Instruction::Gt => ("__gt", Some(2)),
            Instruction::Gte => ("__gte", Some(2)),
            Instruction::In => ("__in", Some(2)),
            Instruction::BuildList(None) => (LIST, None),
            Instruction::BuildList(Some(n)) => match u16::try_from(*n) {
                Ok(n) => (LIST, Some(n)),
                Err(_) => continue,
            },
            _ => continue,
        };
        // The last number is where a filter is kept once it is found: nowhere.
        *instruction = Instruction::ApplyFilter(name, arguments, u8::MAX);
    }
}

/// How much may still be made.
#[derive(Clone)]
struct Purse(Arc<AtomicUsize>);

impl Purse {
    fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(BUDGET)))
    }

    fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Pays for so many bytes.
    fn pay(&self, bytes: usize) -> Result<(), Error> {
        let left = self.left().checked_sub(bytes).ok_or_else(too_much)?;
        self.0.store(left, Ordering::Relaxed);
        Ok(())
    }

    /// Refuses values that are larger than what may still be made, and says how large they are.
    fn weigh(&self, values: &[Value]) -> Result<usize, Error> {
        let most = self.left();
        values.iter().try_fold(0, |sum, value| weight(value, most, sum, 0))
    }
}

fn too_much() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("it makes more than {BUDGET} bytes of text"))
}

/// `sum` and what a value weighs, or an error as soon as that is more than `most`.
fn weight(value: &Value, most: usize, sum: usize, depth: usize) -> Result<usize, Error> {
    if depth > MAX_DEPTH {
        return Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deep"));
    }
    let mut sum = sum.saturating_add(ELEMENT);
    match value.kind() {
        ValueKind::String | ValueKind::Bytes => sum = sum.saturating_add(length(value)),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            let is_map = value.kind() == ValueKind::Map;
            for item in value.try_iter()? {
                sum = weight(&item, most, sum, depth + 1)?;
                if is_map {
                    sum = weight(&value.get_item(&item)?, most, sum, depth + 1)?;
                }
            }
        }
        _ => {}
    }
    if sum > most { Err(too_much()) } else { Ok(sum) }
}

/// Bytes of a text.
fn length(value: &Value) -> usize {
    value.as_str().map(str::len).or_else(|| value.as_bytes().map(<[u8]>::len)).unwrap_or(0)
}

/// What a filter or a method makes of its arguments, where that may be much more than they are.
fn product(name: &str, arguments: &[Value]) -> Result<usize, Error> {
    let text = |at: usize| arguments.get(at).and_then(Value::as_str).unwrap_or_default();
    let number = |at: usize| arguments.get(at).and_then(Value::as_i64).unwrap_or(0);
    let refuse = |reason: String| Err(Error::new(ErrorKind::InvalidOperation, reason));
    Ok(match name {
        "replace" => {
            let found = if text(1).is_empty() {
                text(0).len() + 1
            } else {
                text(0).matches(text(1)).count()
            };
            found.saturating_mul(text(2).len())
        }
        "join" => {
            // The method is the separator's, the filter the list's.
            let (list, between) = match arguments.first().map(Value::kind) {
                Some(ValueKind::String) if arguments.len() == 2 && text(1).is_empty() => (1, 0),
                _ => (0, 1),
            };
            let items = arguments.get(list).and_then(Value::len).unwrap_or(0);
            items.saturating_mul(text(between).len())
        }
        "__mul" => {
            let items = |at: usize| arguments.get(at).and_then(Value::len);
            let times = |at: usize| usize::try_from(number(at)).unwrap_or(0);
            let first = items(0).map_or(0, |n| n.saturating_mul(times(1)));
            first.max(items(1).map_or(0, |n| n.saturating_mul(times(0)))).saturating_mul(ELEMENT)
        }
        "indent" => {
            let width = usize::try_from(number(1).clamp(0, MAX_WIDTH)).unwrap_or(0);
            if number(1) > MAX_WIDTH {
                return refuse(format!("`{name}` by more than {MAX_WIDTH}"));
            }
            text(0).lines().count().saturating_mul(width)
        }
        "batch" | "slice" | "tojson" | "center" | "ljust" | "rjust" | "zfill" => {
            let most = arguments.iter().skip(1).filter_map(widest).max().unwrap_or(0);
            if most > MAX_WIDTH {
                return refuse(format!("`{name}` by more than {MAX_WIDTH}"));
            }
            0
        }
        "format" if text(0).split(|c: char| !c.is_ascii_digit()).any(|width| width.len() > 3) => {
            return refuse("`format` with a width of more than 999".into());
        }
        "map" if ["replace", "join", "indent", "format", "batch", "slice"].contains(&text(1)) => {
            return refuse(format!("`map` with `{}`", text(1)));
        }
        _ => 0,
    })
}

/// The largest number of an argument, which may be a set of named ones.
fn widest(argument: &Value) -> Option<i64> {
    if argument.kind() != ValueKind::Map {
        return argument.as_i64();
    }
    let names = argument.try_iter().ok()?;
    names.filter_map(|name| argument.get_item(&name).ok()?.as_i64()).max()
}

/// Arguments with the named ones behind them, if there are any, as the template gave them.
fn all(mut arguments: Vec<Value>, named: Kwargs) -> Vec<Value> {
    if named.args().next().is_some() {
        arguments.push(Value::from(named));
    }
    arguments
}

/// Jinja as transformers sets it up, with bounds.
fn environment() -> Result<Environment<'static>, Error> {
    let own = Arc::new(Environment::new());
    let purse = Purse::new();
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(50);
    for name in FILTERS {
        let (own, purse) = (own.clone(), purse.clone());
        environment.add_filter(name, move |Rest(arguments): Rest<Value>, named: Kwargs| {
            let arguments = all(arguments, named);
            purse.weigh(&arguments)?;
            purse.pay(product(name, &arguments)?)?;
            let made = own.empty_state().apply_filter(name, &arguments)?;
            purse.pay(purse.weigh(std::slice::from_ref(&made))?)?;
            Ok::<Value, Error>(made)
        });
    }
    for (name, expression) in OPERATORS {
        let (own, purse) = (own.clone(), purse.clone());
        environment.add_filter(name, move |Rest(arguments): Rest<Value>| {
            let given = purse.weigh(&arguments)?;
            let [a, b] = <[Value; 2]>::try_from(arguments).map_err(|_| too_much())?;
            let made = product(name, &[a.clone(), b.clone()])?;
            purse.pay(made)?;
            if matches!(name, "__add" | "__concat") {
                purse.pay(given)?;
            }
            own.compile_expression(expression)?.eval(minijinja::context! { a, b })
        });
    }
    for name in TESTS {
        let (own, purse) = (own.clone(), purse.clone());
        environment.add_test(name, move |Rest(arguments): Rest<Value>| {
            purse.weigh(&arguments)?;
            own.empty_state().perform_test(name, &arguments)
        });
    }
    let payer = purse.clone();
    environment.add_filter(LIST, move |Rest(items): Rest<Value>| {
        payer.pay(payer.weigh(&items)?)?;
        Ok::<Value, Error>(Value::from(items))
    });
    let payer = purse.clone();
    environment.set_unknown_method_callback(move |state, value, method, arguments| {
        let all: Vec<Value> = std::iter::once(value).chain(arguments).cloned().collect();
        payer.weigh(&all)?;
        payer.pay(product(method, &all)?)?;
        let made =
            minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments)?;
        payer.pay(payer.weigh(std::slice::from_ref(&made))?)?;
        Ok(made)
    });
    let payer = purse.clone();
    environment.set_formatter(move |output, state, value| {
        payer.pay(payer.weigh(std::slice::from_ref(value))?)?;
        minijinja::escape_formatter(output, state, value)
    });
    environment.add_function("range", move |Rest(arguments): Rest<Value>| {
        let given = minijinja::context! { arguments };
        let made = own.compile_expression("range(*arguments)")?.eval(given)?;
        purse.pay(purse.weigh(std::slice::from_ref(&made))?)?;
        Ok::<Value, Error>(made)
    });
    environment.add_function("raise_exception", |message: String| -> Result<(), Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    Ok(environment)
}
