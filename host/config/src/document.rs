//! The text of a configuration, and excerpts of it without secrets.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Replaces text that must not be shown.
const MASK: &str = "***";

/// The TOML text, and the parts of it that must never be shown.
pub(crate) struct Document {
    /// The path as it was given.
    pub name: String,
    pub text: String,
    /// Sorted, without overlaps.
    hidden: Vec<Range<usize>>,
    /// What the text was made of.
    origin: Option<Origin>,
}

/// The document that another one was made of. Problems are shown there.
pub(crate) struct Origin {
    pub document: Arc<Document>,
    /// Parts of the made text, and the parts of the document that they come from.
    pub places: Vec<(Range<usize>, Range<usize>)>,
}

/// Some lines of a document, with masks, ready to be shown.
pub(crate) struct Excerpt {
    pub text: String,
    /// Number of its first line, from 1.
    pub first_line: usize,
    start: usize,
    /// The masks: the hidden range in the document, and the start of the mask in `text`.
    masks: Vec<(Range<usize>, usize)>,
}

impl Document {
    pub fn new(name: &str, text: &str, mut hidden: Vec<Range<usize>>) -> Document {
        hidden.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<usize>> = Vec::new();
        for range in hidden.into_iter().filter(|range| !range.is_empty()) {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Document {
            name: name.to_owned(),
            text: text.to_owned(),
            hidden: merged,
            origin: None,
        }
    }

    pub fn with_origin(self, origin: Origin) -> Document {
        Document {
            origin: Some(origin),
            ..self
        }
    }

    /// The document that people know.
    pub fn original(self: &Arc<Document>) -> Arc<Document> {
        let origin = self.origin.as_ref();
        origin.map_or_else(|| self.clone(), |origin| origin.document.clone())
    }

    /// The place in the original of a place here: the beginning if it comes from nowhere.
    pub fn original_span(&self, span: &Range<usize>) -> Range<usize> {
        let Some(origin) = &self.origin else {
            return span.clone();
        };
        let mut places = origin.places.iter();
        let place = places.find(|(made, _)| made.start <= span.start && span.start < made.end);
        place.map_or(0..0, |(_, origin)| origin.clone())
    }

    /// Whether a part of `span` must not be shown.
    pub fn hides(&self, span: &Range<usize>) -> bool {
        self.hidden
            .iter()
            .any(|hidden| hidden.start < span.end && span.start < hidden.end)
    }

    /// Line and column of a byte offset, both from 1; columns count characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.floor(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }

    /// `span` clamped to the text and to character boundaries, and cut at the end of its first
    /// line.
    pub fn clip(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.floor(span.start);
        let end = self.floor(span.end.max(start));
        match self.text[start..end].find('\n') {
            Some(newline) if newline > 0 => {
                start..start + self.text[start..start + newline].trim_end().len()
            }
            _ => start..end,
        }
    }

    /// The whole lines that `span` touches.
    pub fn excerpt(&self, span: &Range<usize>) -> Excerpt {
        let start = self.text[..span.start]
            .rfind('\n')
            .map_or(0, |newline| newline + 1);
        let end = self.text[span.end..]
            .find('\n')
            .map_or(self.text.len(), |newline| span.end + newline);
        let end = span.end.max(if self.text[..end].ends_with('\r') {
            end - 1
        } else {
            end
        });
        let mut excerpt = Excerpt {
            text: String::new(),
            first_line: self.position(start).0,
            start,
            masks: Vec::new(),
        };
        let mut at = start;
        for hidden in self
            .hidden
            .iter()
            .filter(|hidden| hidden.start < end && start < hidden.end)
        {
            let hidden = hidden.start.max(start)..hidden.end.min(end);
            excerpt.text.push_str(&self.text[at..hidden.start]);
            excerpt.masks.push((hidden.clone(), excerpt.text.len()));
            excerpt.text.push_str(MASK);
            at = hidden.end;
        }
        excerpt.text.push_str(&self.text[at..end]);
        excerpt
    }

    fn floor(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset.min(self.text.len()))
    }
}

impl Excerpt {
    /// The position of a span of the document in the excerpt. A span inside a mask becomes the
    /// whole mask.
    pub fn locate(&self, span: &Range<usize>) -> Range<usize> {
        self.map(span.start, true)..self.map(span.end, false).max(self.map(span.start, true))
    }

    /// The column, from 1, at which a span of the document starts in the excerpt.
    pub fn column(&self, span: &Range<usize>) -> usize {
        let before = &self.text[..self.locate(span).start];
        before[before.rfind('\n').map_or(0, |newline| newline + 1)..]
            .chars()
            .count()
            + 1
    }

    fn map(&self, offset: usize, is_start: bool) -> usize {
        let mut shown = offset - self.start;
        for (hidden, mask) in &self.masks {
            if offset >= hidden.end {
                shown = mask + MASK.len() + (offset - hidden.end);
            } else if offset > hidden.start {
                return if is_start { *mask } else { mask + MASK.len() };
            }
        }
        shown
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text may contain secrets.
        write!(f, "Document({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_text_is_masked_and_later_spans_still_point_at_their_words() {
        let text = "a = 1\nkey = \"hunter2\" # wörds\nb = 2\n";
        let secret = text.find("hunter2").unwrap();
        let hidden = secret..secret + 7;
        let document = Document::new("x.toml", text, vec![hidden]);
        let words = text.find("wörds").unwrap();
        let span = document.clip(&(words..text.len()));
        let excerpt = document.excerpt(&span);
        assert_eq!(excerpt.text, "key = \"***\" # wörds");
        assert_eq!(excerpt.first_line, 2);
        assert_eq!(&excerpt.text[excerpt.locate(&span)], "wörds");
        assert_eq!(
            &excerpt.text[excerpt.locate(&(secret + 1..secret + 3))],
            "***"
        );
        assert_eq!(document.position(words), (2, 19));
        assert!(document.hides(&(secret + 6..secret + 9)));
        assert!(!document.hides(&(0..5)));
    }
}
