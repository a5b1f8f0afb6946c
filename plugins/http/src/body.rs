//! Bodies: documents, each in an object of the operator's if wanted, and all in an envelope.

use lockgate_plugin::template::{Field, Piece, Template};
use lockgate_plugin::{ConfigIssue, Document, Part};
use serde_json::Value;

/// What the operator wants around each document: JSON with placeholders.
#[derive(Debug)]
pub struct Wrapping {
    pieces: Vec<Piece>,
    /// Nothing but the document.
    is_plain: bool,
}

/// What the operator wants around all documents of a body.
#[derive(Debug, Default)]
pub struct Envelope {
    before: String,
    after: String,
}

/// Why a text cannot be used.
pub struct Problem {
    message: String,
    help: &'static str,
}

/// The placeholders of a wrapping, by their positions in [`OWN`].
const OWN: [&str; 2] = ["document", "document-text"];
const DOCUMENT: usize = 0;
const DOCUMENT_TEXT: usize = 1;

const WRAPPING_HELP: &str = "such as '{\"event\": {document}, \"time\": {time}}'";
const ENVELOPE_HELP: &str = "such as '{\"events\": {documents}}'";

// === impl Wrapping ===

impl Default for Wrapping {
    fn default() -> Wrapping {
        Wrapping {
            pieces: vec![Piece::Own(DOCUMENT, String::new())],
            is_plain: true,
        }
    }
}

impl Wrapping {
    pub fn parse(text: &str) -> Result<Wrapping, Problem> {
        let problem = |message: String| Problem {
            message,
            help: WRAPPING_HELP,
        };
        if text.contains(['\n', '\r']) {
            return Err(problem("`document` must be one line.".into()));
        }
        let template = Template::with(text, &OWN);
        let template = template.map_err(|error| problem(format!("`document`: {error}.")))?;
        let pieces = template.pieces().to_vec();
        let documents = pieces.iter().filter(|it| matches!(it, Piece::Own(..)));
        if documents.count() != 1 {
            let message = "`document` needs `{document}` or `{document-text}`, once.";
            return Err(problem(message.into()));
        }
        let sample: String = pieces.iter().map(sample).collect();
        if let Err(error) = serde_json::from_str::<Value>(&sample) {
            return Err(problem(format!(
                "`document` is not JSON once its placeholders are replaced by values, with the \
                 quotes of texts: `{sample}`: {error}."
            )));
        }
        Ok(Wrapping {
            is_plain: pieces == [Piece::Own(DOCUMENT, String::new())],
            pieces,
        })
    }

    pub fn object(&self, documents: &[Document], index: u32) -> Vec<Part> {
        let mut parts = vec![];
        self.write(&mut parts, documents, index);
        parts
    }

    pub fn array(&self, documents: &[Document], carries: &[u32]) -> Vec<Part> {
        let mut parts = vec![Part::Text("[".into())];
        self.join(&mut parts, documents, carries, ",");
        text(&mut parts, "]");
        parts
    }

    pub fn lines(&self, documents: &[Document], carries: &[u32]) -> Vec<Part> {
        let mut parts = vec![];
        self.join(&mut parts, documents, carries, "\n");
        text(&mut parts, "\n");
        parts
    }

    fn join(
        &self,
        parts: &mut Vec<Part>,
        documents: &[Document],
        carries: &[u32],
        separator: &str,
    ) {
        if self.is_plain {
            parts.push(Part::joined(carries, separator));
            return;
        }
        for (at, &index) in carries.iter().enumerate() {
            if at > 0 {
                text(parts, separator);
            }
            self.write(parts, documents, index);
        }
    }

    fn write(&self, parts: &mut Vec<Part>, documents: &[Document], index: u32) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(written) => text(parts, written),
                Piece::Field(field) => {
                    let mut value = String::new();
                    field.write_json(&mut value, &documents[index as usize]);
                    text(parts, &value);
                }
                Piece::Own(DOCUMENT_TEXT, _) => parts.push(Part::DocumentAsString(index)),
                Piece::Own(..) => parts.push(Part::Document(index)),
            }
        }
    }
}

/// Appends a text to a body.
fn text(parts: &mut Vec<Part>, added: &str) {
    match parts.last_mut() {
        Some(Part::Text(text)) => text.push_str(added),
        _ => parts.push(Part::Text(added.into())),
    }
}

/// A value that a placeholder may have.
fn sample(piece: &Piece) -> &str {
    match piece {
        Piece::Text(text) => text,
        Piece::Field(Field::Index | Field::Millis | Field::Seconds) => "1",
        Piece::Own(DOCUMENT, _) => "{}",
        Piece::Field(_) | Piece::Own(..) => "\"text\"",
    }
}

// === impl Envelope ===

impl Envelope {
    pub fn parse(text: &str) -> Result<Envelope, Problem> {
        let problem = |message: String| Problem {
            message,
            help: ENVELOPE_HELP,
        };
        let Some((before, after)) = text.split_once("{documents}") else {
            return Err(problem("`envelope` has no `{documents}`.".into()));
        };
        let sample = format!("{before}[]{after}");
        if let Err(error) = serde_json::from_str::<Value>(&sample) {
            return Err(problem(format!(
                "`envelope` is not JSON once `{{documents}}` is a list: {error}."
            )));
        }
        Ok(Envelope {
            before: before.into(),
            after: after.into(),
        })
    }

    pub fn around(&self, mut parts: Vec<Part>) -> Vec<Part> {
        if !self.before.is_empty() {
            parts.insert(0, Part::Text(self.before.clone()));
        }
        if !self.after.is_empty() {
            text(&mut parts, &self.after);
        }
        parts
    }
}

// === impl Problem ===

impl Problem {
    pub fn issue(self, key: &str) -> ConfigIssue {
        ConfigIssue::new(key, self.message).help(self.help)
    }
}
