//! The template engine with our rules: strict, bounded, and with whitespace as configuration files want it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior, Value};

use super::functions::{self, Names, Scene};
use super::needs::Needs;
use super::sight::Sight;
use super::{errors, filters, marks};

/// What one rendering may cost: so many instructions and comparisons, and 64 bytes of values for each. There is room
/// for ten fields of 20,000 endpoints, which a test holds, and an end to a loop within a loop.
const FUEL: u64 = 10_000_000;
/// The longest file.
pub(crate) const LONGEST: usize = 16 * 1024 * 1024;

/// A template: its text, what it is called in errors, and what its table gives it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Source {
    /// Its file, or the built-in's name.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: Arc<str>,
    /// `[render.with]`.
    pub(crate) with: Arc<toml::Table>,
}

/// What came of a rendering.
#[derive(Clone, Debug)]
pub(crate) struct Rendered {
    /// The file's text; what is wrong with the template; or that an answer is not there yet.
    pub(crate) text: Result<String, Fault>,
    /// What was called, also by one that failed.
    pub(crate) needs: Needs,
}

/// Why there is no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The template is wrong.
    Wrong(String),
    /// Something that it called has not been read yet.
    Unread,
}

/// Renders a template by what there is to be seen.
pub(crate) fn render(source: &Source, sight: &Sight, environment: &BTreeMap<String, String>) -> Rendered {
    let with = Value::from_pairs(source.with.iter().map(|(key, value)| (key.clone(), of_toml(value))));
    let scene = Scene::new(sight, environment, with);
    let mut engine = engine();
    functions::add(&mut engine, &scene);
    let written = written(&engine, source, &scene);
    let (needs, is_unread) = scene.noted();
    let text = match written {
        _ if is_unread => Err(Fault::Unread),
        Ok(text) => Ok(marks::bare(&text).into_owned()),
        Err(error) => Err(Fault::Wrong(errors::told(&error, &source.name, &source.text))),
    };
    Rendered { text, needs }
}

/// What is wrong with a template's grammar.
pub(crate) fn check(source: &Source) -> Result<(), String> {
    let engine = engine();
    let read = engine.template_from_named_str(&source.name, &source.text);
    read.map(|_| ()).map_err(|error| errors::told(&error, &source.name, &source.text))
}

/// An argument of a command: a template of these values alone.
pub(crate) fn argument(text: &str, values: &[(&str, &str)]) -> Result<String, String> {
    let values = Value::from_pairs(values.iter().copied());
    engine().render_named_str(text, text, values).map_err(|error| errors::told(&error, text, text))
}

fn engine() -> Environment<'static> {
    let mut engine = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    engine.set_syntax(syntax.expect("the usual delimiters do not collide"));
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_auto_escape_callback(|_| AutoEscape::None);
    engine.set_fuel(Some(FUEL));
    engine.set_debug(true);
    filters::add(&mut engine);
    engine
}

fn written(engine: &Environment<'_>, source: &Source, scene: &Arc<Scene>) -> Result<String, Error> {
    let template = engine.template_from_named_str(&source.name, &source.text)?;
    let mut text = Bounded(Vec::new());
    template.render_captured_to(Value::from_object(Names(Arc::clone(scene))), &mut text)?;
    Ok(String::from_utf8_lossy(&text.0).into_owned())
}

/// Takes so much and no more.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST {
            return Err(io::Error::other(format!("the file is longer than {LONGEST} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn of_toml(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(truth) => (*truth).into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(items) => items.iter().map(of_toml).collect(),
        toml::Value::Table(table) => Value::from_pairs(table.iter().map(|(key, value)| (key.clone(), of_toml(value)))),
    }
}
