//! Applies the rows. Each op is a few lines.

use std::borrow::Cow;

use serde_json::Value as Json;

use crate::document::{Document, Fault, NO_OBJECT};
use crate::keys::{Key, Name, Path};
use crate::lookup::Lookup;
use crate::parse::{address, base64, size, text_form, time, uri};
use crate::row::{Op, Row, Test};
use crate::rules::{Ready, Rules};
use crate::value::{Object, Value, part_of};

const ADDRESS: Key = Key::of("address");
const IP: Key = Key::of("ip");
const PORT: Key = Key::of("port");
const DOMAIN: Key = Key::of("domain");
const COLUMNS: Key = Key::of("columns");
const ROWS: Key = Key::of("rows");
const ORIGINAL: Key = Key::of("original");

/// Runs rows over one document.
pub struct Machine<'r, L> {
    pub rules: &'r Rules,
    pub lookup: &'r L,
}

impl<L: Lookup> Machine<'_, L> {
    /// Runs the rows from `start` to `end` whose fields exist. Stops at the first row that fails,
    /// and returns it.
    pub fn run(
        &self,
        document: &mut Document<'_>,
        action: Option<&str>,
        start: usize,
        end: usize,
    ) -> Result<(), (&'static Row, Fault)> {
        let mut from = start;
        while let Some(number) = document.active.next(from, end) {
            from = number + 1;
            let ready = self.rules.rows[number];
            self.apply(document, action, ready)
                .map_err(|fault| (ready.row, fault))?;
        }
        Ok(())
    }

    pub fn apply<'a>(
        &self,
        document: &mut Document<'a>,
        action: Option<&str>,
        ready: &'static Ready,
    ) -> Result<(), Fault> {
        for (test, path) in ready.row.only.iter().zip(&ready.only) {
            if !holds(document, action, test, path)? {
                return Ok(());
            }
        }
        let (from, to) = (&ready.from, &ready.to);
        match ready.row.op {
            // Q11: a failure of one field must not prevent the others.
            Op::Move if self.rules.corrected => {
                self.swallow(document.relocate(self.rules, from, to))
            }
            Op::Move => document.relocate(self.rules, from, to),
            Op::TryMove => self.swallow(document.relocate(self.rules, from, to)),
            Op::Claim => {
                let moved = document.relocate(self.rules, from, to);
                if moved.is_err() && !self.rules.corrected {
                    document.take(from);
                }
                Ok(())
            }
            Op::Delete => {
                document.take(from);
                Ok(())
            }
            Op::Set(constant) => document.put(self.rules, to, Value::text(constant)),
            Op::Add(constant) => document.add(self.rules, to, Value::text(constant), true),
            Op::AddText => match document.present(from)? {
                Some(value) => {
                    let text = text_form::rendered(value);
                    document.add(self.rules, to, Value::text(text), true)
                }
                None => Ok(()),
            },
            Op::Copy => match document.present(from)? {
                Some(value) => {
                    let text = text_form::rendered(value);
                    document.put(self.rules, to, Value::text(text))
                }
                None => Ok(()),
            },
            Op::Undot => self.undot(document, ready),
            Op::Address => self.swallow(self.address(document, from, to)),
            Op::HostPort => {
                let Some(text) = text_at(document, from) else {
                    return Ok(());
                };
                let Some((host, port)) = address::host_port(&text) else {
                    return Ok(());
                };
                let members = [
                    (DOMAIN, Some(Value::Text(part_of(&text, host)))),
                    (PORT, port.map(|_| port_of(&text))),
                ];
                self.swallow(self.members(document, to, members))
            }
            Op::Size => {
                let Some((columns, rows)) =
                    text_at(document, from).as_deref().and_then(size::parse)
                else {
                    return Ok(());
                };
                let (columns, rows) = (Value::number(columns), Value::number(rows));
                self.swallow(self.members(
                    document,
                    to,
                    [(COLUMNS, Some(columns)), (ROWS, Some(rows))],
                ))
            }
            Op::Time => match text_at(document, from).and_then(time::parse) {
                Some(time) => self.swallow(document.put(self.rules, to, Value::Text(time))),
                None => Ok(()),
            },
            Op::Timestamp => {
                let time = text_at(document, from)
                    .and_then(time::parse)
                    .ok_or("this is not a time")?;
                document.put(self.rules, to, Value::Text(time))
            }
            Op::Uri => {
                let Some(text) = text_at(document, from) else {
                    return Ok(());
                };
                let Some(parts) = uri::parse(&text) else {
                    return Ok(());
                };
                document.take(from);
                let mut object = Object::default();
                parts
                    .into_iter()
                    .for_each(|(name, value)| object.put_named(Name::of(name), value));
                object.put(ORIGINAL, Value::Text(text));
                document.put(self.rules, to, Value::Object(object))
            }
            Op::Json => {
                let Some(value) = document.at(from) else {
                    return Ok(());
                };
                let text = text_form::plain(value);
                match serde_json::from_str::<Json>(&text) {
                    Ok(parsed) => {
                        self.swallow(document.put(self.rules, to, Value::unfolded(&parsed, &text)))
                    }
                    Err(_) => Ok(()),
                }
            }
            Op::Base64 => {
                if let Some(decoded) = text_at(document, from).as_deref().and_then(base64::decode)
                    && let Some(place) = document.at(from)
                {
                    *place = Value::text(decoded);
                }
                Ok(())
            }
            Op::Int => convert(document, from, integer),
            Op::TryInt => self.swallow(convert(document, from, integer)),
            Op::Str => convert(document, from, |value| {
                Ok(Value::text(text_form::plain(value).into_owned()))
            }),
            Op::Label(names) => {
                let Some(value) = document.present(from)? else {
                    return Ok(());
                };
                match label(value, names) {
                    Some(name) => {
                        document.put(self.rules, to, Value::text(name))?;
                        document.take(from);
                        Ok(())
                    }
                    None => self.labelled_otherwise(document, from, to),
                }
            }
            Op::LabelList(names) => {
                let Some(value) = document.present(from)? else {
                    return Ok(());
                };
                match label(value, names) {
                    Some(name) => {
                        document.add(self.rules, to, Value::text(name), true)?;
                        document.take(from);
                        Ok(())
                    }
                    None => self.labelled_otherwise(document, from, to),
                }
            }
            Op::UserAgent => self.user_agent(document, to),
        }
    }

    fn swallow(&self, _: Result<(), Fault>) -> Result<(), Fault> {
        Ok(())
    }

    fn labelled_otherwise(
        &self,
        document: &mut Document<'_>,
        from: &Path,
        to: &Path,
    ) -> Result<(), Fault> {
        convert(document, from, |value| {
            Ok(Value::text(text_form::plain(value).into_owned()))
        })?;
        let moved = document.relocate(self.rules, from, to);
        if self.rules.corrected { Ok(()) } else { moved }
    }

    fn members<'a, const N: usize>(
        &self,
        document: &mut Document<'a>,
        parent: &Path,
        members: [(Key, Option<Value<'a>>); N],
    ) -> Result<(), Fault> {
        if document.at(parent).is_none() {
            document.put(self.rules, parent, Value::Object(Object::default()))?;
        }
        let object = document
            .at(parent)
            .and_then(Value::as_object)
            .ok_or(NO_OBJECT)?;
        for (name, value) in members {
            if let Some(value) = value {
                object.put(name, value);
            }
        }
        Ok(())
    }

    fn address(&self, document: &mut Document<'_>, from: &Path, to: &Path) -> Result<(), Fault> {
        let Some(text) = text_at(document, from) else {
            return Ok(());
        };
        let Some(found) = address::parse(&text, self.rules.corrected) else {
            return Ok(());
        };
        let name = if found.bracketed { IP } else { ADDRESS };
        let host = Value::Text(part_of(&text, found.host));
        self.members(
            document,
            to,
            [
                (name, Some(host)),
                (PORT, found.port.map(|_| port_of(&text))),
            ],
        )?;
        if self.rules.corrected {
            // Q9: leaves out the row that deletes the source even if it could not be parsed.
            document.take(from);
        }
        Ok(())
    }

    fn undot(&self, document: &mut Document<'_>, ready: &Ready) -> Result<(), Fault> {
        let path = &ready.from;
        let (Some(parent), Some(literal)) = (path.first(), ready.row.literal_key().map(Name::of))
        else {
            return Ok(());
        };
        let Name::Known(literal) = literal else {
            return Ok(());
        };
        if document.audit.get(literal).is_none() {
            return Ok(());
        }
        if document.at(path).is_none() {
            if document
                .audit
                .get(parent)
                .is_some_and(|parent| parent.as_object().is_none())
            {
                return Err(NO_OBJECT);
            }
            let Some(value) = document.audit.take(literal) else {
                return Ok(());
            };
            return document.put(self.rules, path, value);
        }
        let Some(mut value) = document.audit.take(literal) else {
            return Ok(());
        };
        match value.as_list() {
            Some(more) => {
                let more = std::mem::take(more);
                more.into_iter()
                    .try_for_each(|value| document.add(self.rules, path, value, false))
            }
            None => document.add(self.rules, path, value, false),
        }
    }

    fn user_agent(&self, document: &mut Document<'_>, to: &Path) -> Result<(), Fault> {
        let Some(value) = document.present(to)? else {
            return Ok(());
        };
        let original = value.as_text().ok_or("a user agent must be a text")?;
        let mut object = Object::default();
        if let Some(agent) = self.lookup.user_agent_of(&original) {
            if let Some(version) = agent.software.version {
                object.put_named("version".into(), Value::text(version));
            }
            object.put_named("name".into(), Value::text(agent.software.name));
            if let Some(os) = agent.os {
                let mut system = Object::default();
                if let Some(version) = os.version {
                    system.put_named("full".into(), Value::text(format!("{} {version}", os.name)));
                    system.put_named("version".into(), Value::text(version));
                }
                system.put_named("name".into(), Value::text(os.name));
                object.put_named("os".into(), Value::Object(system));
            }
            object.put_named(
                "device".into(),
                Value::Object(Object {
                    members: vec![("name".into(), Value::text(agent.device))],
                }),
            );
        }
        object.put_named("original".into(), Value::Text(original));
        document.put(self.rules, to, Value::Object(object))
    }
}

fn holds(
    document: &mut Document<'_>,
    action: Option<&str>,
    test: &Test,
    path: &Path,
) -> Result<bool, Fault> {
    const NO_ACTION: Fault = "a test needs an action, but there is none";
    Ok(match *test {
        Test::Always => true,
        Test::Has(_) => document.present(path)?.is_some(),
        Test::No(_) => document.present(path)?.is_none(),
        Test::IsText(_) => document
            .present(path)?
            .is_some_and(|value| value.as_text().is_some()),
        Test::Empty(_) => document
            .present(path)?
            .and_then(Value::as_object)
            .is_some_and(|object| object.members.is_empty()),
        Test::Is(_, plain) => document
            .present(path)?
            .is_some_and(|value| value.as_plain() == Some(plain)),
        Test::Number(_, number) => {
            document.present(path)?.and_then(|value| value.as_number()) == Some(number as f64)
        }
        Test::Says(_, text) => document
            .present(path)?
            .and_then(|value| value.as_text())
            .is_some_and(|said| said == text),
        Test::Action(name) => action == Some(name),
        Test::ActionStarts(start) => action.ok_or(NO_ACTION)?.starts_with(start),
        Test::ActionEnds(end) => action.ok_or(NO_ACTION)?.ends_with(end),
        Test::ActionContains(part) => action.ok_or(NO_ACTION)?.contains(part),
    })
}

fn text_at<'a>(document: &mut Document<'a>, path: &Path) -> Option<Cow<'a, str>> {
    document.at(path)?.as_text()
}

/// The digits after the last colon, which have been parsed as a port.
fn port_of<'a>(text: &Cow<'a, str>) -> Value<'a> {
    Value::Raw(part_of(
        text,
        text.rsplit_once(':').map_or("", |(_, digits)| digits),
    ))
}

/// The name of a number, if it has one.
fn label(value: &Value<'_>, names: &[(i64, &'static str)]) -> Option<&'static str> {
    let number = value.as_number()?;
    names
        .iter()
        .find(|(known, _)| *known as f64 == number)
        .map(|(_, name)| *name)
}

/// Converts a value in place. A list is converted element by element, completely or not at all.
fn convert<'a>(
    document: &mut Document<'a>,
    path: &Path,
    convert: impl Fn(&mut Value<'a>) -> Result<Value<'a>, Fault>,
) -> Result<(), Fault> {
    let Some(place) = document.at(path).filter(|value| !value.is_null()) else {
        return Ok(());
    };
    *place = match place.as_list() {
        Some(list) => Value::List(list.iter_mut().map(convert).collect::<Result<_, _>>()?),
        None => convert(place)?,
    };
    Ok(())
}

fn integer<'a>(value: &mut Value<'a>) -> Result<Value<'a>, Fault> {
    text_form::plain(value)
        .parse::<i64>()
        .map(Value::number)
        .map_err(|_| "this is not a whole number")
}
