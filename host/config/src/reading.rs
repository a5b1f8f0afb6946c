//! One pass over a document: its inputs, and every problem it finds.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockgate_model::Secret;

use crate::document::Document;
use crate::environment::{Environment, reason};
use crate::issues::Issue;
use crate::substitution::{Piece, pieces};
use crate::value::Value;

pub(crate) struct Reading<'a> {
    pub document: Arc<Document>,
    environment: &'a dyn Environment,
    base_dir: &'a Path,
    pub issues: Vec<Issue>,
    /// These do not keep the configuration from being used.
    pub warnings: Vec<Issue>,
    pub notes: Vec<Issue>,
    /// Every secret that was read, for masking.
    pub secrets: Vec<Secret>,
    /// The values that may be read from files, of the sink that is being read.
    pub origins: Vec<ValueOrigin>,
    /// Every key that was read, with `*` for names that the operator chooses.
    pub known: BTreeSet<String>,
}

/// How a value is written that may be read from files.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValueOrigin {
    pub key: String,
    /// With the values of variables, and with references to files: what stays if these change.
    pub written: Secret,
    pub files: Vec<PathBuf>,
}

/// Which references a string may contain.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Allowed {
    /// `${env:…}`; the value is not a secret.
    Variables,
    /// `${env:…}` and `${file:…}`; the value is not a secret.
    Files,
    /// Both, and the value is a secret.
    Secrets,
}

impl<'a> Reading<'a> {
    pub fn new(
        document: Arc<Document>,
        environment: &'a dyn Environment,
        base_dir: &'a Path,
    ) -> Reading<'a> {
        Reading {
            document,
            environment,
            base_dir,
            issues: Vec::new(),
            warnings: Vec::new(),
            notes: Vec::new(),
            secrets: Vec::new(),
            origins: Vec::new(),
            known: BTreeSet::new(),
        }
    }

    pub fn issue(&mut self, issue: Issue) {
        self.issues.push(issue);
    }

    /// The span to underline for a problem with `value`: the value, or its key if the value must
    /// not be shown.
    pub fn place(&self, value: &Value<'_>) -> Range<usize> {
        if self.document.hides(&value.span()) {
            value.key_span.clone()
        } else {
            value.span()
        }
    }

    /// Where relative paths begin.
    pub fn base_dir(&self) -> &Path {
        self.base_dir
    }

    /// Paths are relative to the directory of the configuration.
    pub fn absolute(&self, path: &str) -> PathBuf {
        self.base_dir.join(path)
    }

    /// `text`, the content of `value`, with its references replaced.
    pub fn resolve(&mut self, value: &Value<'_>, text: &str, allowed: Allowed) -> Option<String> {
        let mut resolved = String::new();
        let mut written = String::new();
        let mut files = Vec::new();
        let mut whole = true;
        for piece in pieces(text) {
            let substitute = match piece {
                Piece::Text(text) => {
                    resolved.push_str(text);
                    written.push_str(text);
                    continue;
                }
                Piece::Unknown(reference) => self.unknown_reference(value, reference),
                Piece::Variable(name) => {
                    let substitute = self.variable(value, name);
                    written.extend(substitute.as_deref());
                    substitute
                }
                Piece::File(path) if allowed == Allowed::Variables => {
                    self.misplaced_file(value, path)
                }
                Piece::File(path) => {
                    let file = self.absolute(path);
                    written.push_str(&format!("${{file:{}}}", file.display()));
                    files.push(file);
                    self.file(value, path)
                }
            };
            match substitute {
                Some(substitute) => {
                    resolved.push_str(&substitute);
                    if allowed == Allowed::Secrets {
                        self.secrets.push(Secret::new(substitute));
                    }
                }
                None => whole = false,
            }
        }
        if allowed != Allowed::Variables {
            self.origins.push(ValueOrigin {
                key: value.path.clone(),
                written: Secret::new(written),
                files,
            });
        }
        whole.then_some(resolved)
    }

    /// A variable that other programs read too, if it is set.
    pub fn foreign_variable(&self, name: &str) -> Option<String> {
        let text = self.environment.variable(name).ok()?;
        (!text.is_empty()).then_some(text)
    }

    fn variable(&mut self, value: &Value<'_>, name: &str) -> Option<String> {
        let (message, label, hint) = match self.environment.variable(name) {
            Ok(text) if !text.is_empty() => return Some(text),
            Ok(_) => (
                format!("The environment variable `{name}` is empty."),
                "empty",
                format!("give `{name}` a value"),
            ),
            Err(std::env::VarError::NotPresent) => (
                format!("The environment variable `{name}` is not set."),
                "not set",
                format!("set `{name}` for this process; `$${{` stands for a literal `${{`"),
            ),
            Err(std::env::VarError::NotUnicode(_)) => (
                format!("The environment variable `{name}` is not UTF-8."),
                "not UTF-8",
                format!("give `{name}` a value in UTF-8"),
            ),
        };
        let span = self.reference_span(value, &format!("${{env:{name}}}"));
        self.issue(Issue::new(span, message, label, hint));
        None
    }

    fn file(&mut self, value: &Value<'_>, path: &str) -> Option<String> {
        let (message, label, hint) = match self
            .environment
            .read_file(&self.absolute(path))
            .map(String::from_utf8)
        {
            Ok(Ok(mut text)) => {
                // Editors and `echo` end a file with a newline that is not part of the secret.
                if text.ends_with('\n') {
                    text.truncate(text.len() - if text.ends_with("\r\n") { 2 } else { 1 });
                }
                if !text.is_empty() {
                    return Some(text);
                }
                (
                    format!("The file `{path}` is empty."),
                    "empty",
                    "write the value to it".to_owned(),
                )
            }
            Ok(Err(_)) => (
                format!("The file `{path}` is not UTF-8."),
                "not UTF-8",
                "the value must be UTF-8 text".to_owned(),
            ),
            Err(error) => {
                let hint = if Path::new(path).is_absolute() {
                    "create the file, or correct its path".to_owned()
                } else {
                    "create the file, or correct its path, which is relative to the directory of \
                     this configuration"
                        .to_owned()
                };
                (
                    format!("The file `{path}` cannot be read: {}.", reason(&error)),
                    "cannot be read",
                    hint,
                )
            }
        };
        let span = self.reference_span(value, &format!("${{file:{path}}}"));
        self.issue(Issue::new(span, message, label, hint));
        None
    }

    fn misplaced_file(&mut self, value: &Value<'_>, path: &str) -> Option<String> {
        let span = self.reference_span(value, &format!("${{file:{path}}}"));
        let message = format!("`{}` does not accept `${{file:PATH}}`.", value.path);
        let hint = "write the value itself, or `${env:NAME}`; `${file:PATH}` is for a sink's \
                    `url`, `headers` and `auth`";
        self.issue(Issue::new(span, message, "not here", hint));
        None
    }

    fn unknown_reference(&mut self, value: &Value<'_>, reference: &str) -> Option<String> {
        let span = self.reference_span(value, reference);
        let message = format!(
            "`{}` has a `${{` that starts neither `${{env:NAME}}` nor `${{file:PATH}}`.",
            value.path
        );
        self.issue(Issue::new(
            span,
            message,
            "",
            "NAME consists of letters, digits and `_`; `$${` stands for a literal `${`",
        ));
        None
    }

    /// The span of `reference` in the text of `value`; the span of the value if the reference is
    /// not found or must not be shown.
    pub fn reference_span(&self, value: &Value<'_>, reference: &str) -> Range<usize> {
        let span = value.span();
        let found = self
            .document
            .text
            .get(span.clone())
            .and_then(|raw| raw.find(reference));
        let found = found.map(|at| span.start + at..span.start + at + reference.len());
        found
            .filter(|found| !self.document.hides(found))
            .unwrap_or_else(|| self.place(value))
    }
}
