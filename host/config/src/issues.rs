//! All problems of a configuration at once, each with its place, the operator's line and a hint.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{
    AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};

use lockgate_model::{LINE_MAX, escape};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::document::Document;

/// One problem, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Bytes of the TOML text. Empty at 0 if something is missing from the file as a whole.
    pub span: Range<usize>,
    /// A sentence.
    pub message: String,
    /// A few words for the underlined text. May be empty.
    pub label: String,
    /// The way out.
    pub hint: String,
    /// A second place that matters, with a few words for it.
    pub also: Option<(Range<usize>, String)>,
    pub severity: Severity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Problem,
    /// It can be used, but is probably not what the operator meant.
    Warning,
    /// It may be just right; only `check` shows this.
    Note,
}

/// All problems of one file, in the order of the text.
#[derive(Clone)]
pub struct Issues {
    /// What is shown.
    document: Arc<Document>,
    /// What was read, if it was made of `document`. The spans of new issues are places in it.
    made: Arc<Document>,
    issues: Vec<Issue>,
}

// === impl Issue ===

impl Issue {
    pub fn new(
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        hint: impl Into<String>,
    ) -> Issue {
        Issue {
            span,
            message: message.into(),
            label: label.into(),
            hint: hint.into(),
            also: None,
            severity: Severity::Problem,
        }
    }

    /// An issue that does not keep the configuration from being used.
    pub fn warning(
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        hint: impl Into<String>,
    ) -> Issue {
        Issue {
            severity: Severity::Warning,
            ..Issue::new(span, message, label, hint)
        }
    }

    /// A remark on a configuration that may be just right.
    pub fn note(
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        hint: impl Into<String>,
    ) -> Issue {
        Issue {
            severity: Severity::Note,
            ..Issue::new(span, message, label, hint)
        }
    }

    pub fn also(mut self, span: Range<usize>, label: impl Into<String>) -> Issue {
        self.also = Some((span, label.into()));
        self
    }
}

// === impl Issues ===

impl Issues {
    /// The spans of the issues are places in `document`.
    pub(crate) fn new(document: Arc<Document>, issues: Vec<Issue>) -> Issues {
        let mut all = Issues {
            document: document.original(),
            made: document,
            issues: Vec::new(),
        };
        for mut issue in issues {
            issue.span = all.made.original_span(&issue.span);
            if let Some((span, _)) = &mut issue.also {
                *span = all.made.original_span(span);
            }
            all.issues.push(issue);
        }
        all.sorted()
    }

    /// Adds issues before the others. Their spans are places in the document that is shown.
    pub(crate) fn with_original(mut self, issues: impl IntoIterator<Item = Issue>) -> Issues {
        self.issues.splice(0..0, issues);
        self.sorted()
    }

    fn sorted(mut self) -> Issues {
        for issue in &mut self.issues {
            issue.span = self.document.clip(&issue.span);
        }
        self.issues
            .sort_by_key(|issue| (issue.span.start, issue.span.end));
        self.issues.dedup();
        self
    }

    /// Path of the file, as it was given.
    pub fn name(&self) -> &str {
        &self.document.name
    }

    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }

    pub fn is_empty(&self) -> bool {
        self.issues.is_empty()
    }

    /// Whether anything in it keeps the configuration from being used.
    pub fn has_problems(&self) -> bool {
        self.counts(Severity::Problem) > 0
    }

    /// The number of its warnings and notes in words, such as `, 2 warnings`.
    pub fn remarks(&self) -> String {
        let mut text = String::new();
        for (severity, what) in [(Severity::Warning, "warning"), (Severity::Note, "note")] {
            match self.counts(severity) {
                0 => {}
                1 => text += &format!(", 1 {what}"),
                count => text += &format!(", {count} {what}s"),
            }
        }
        text
    }

    fn counts(&self, severity: Severity) -> usize {
        let of_it = self
            .issues
            .iter()
            .filter(|issue| issue.severity == severity);
        of_it.count()
    }

    /// Line and column of an issue, both from 1; columns count characters.
    pub fn position(&self, issue: &Issue) -> (usize, usize) {
        self.document.position(issue.span.start)
    }

    /// The pipeline in whose tables an issue is.
    pub fn pipeline(&self, issue: &Issue) -> Option<String> {
        let (root, _) = DeTable::parse_recoverable(&self.document.text);
        let pipelines = root.get_ref().get("pipelines")?.get_ref().as_table()?;
        let mut named = pipelines.iter();
        let (name, _) = named.find(|(name, pipeline)| {
            name.span().contains(&issue.span.start) || holds(pipeline, issue.span.start)
        })?;
        Some(name.get_ref().to_string())
    }

    pub fn push(&mut self, issue: Issue) {
        let issues = std::mem::take(&mut self.issues);
        *self = Issues::new(self.made.clone(), vec![issue]).with_original(issues);
    }

    /// Adds a problem that a plugin reported. `span`: from `locate` of the stage or sink, for the
    /// path in the plugin's report. `reporter`: the plugin with its version, such as
    /// `builtin:filter 0.1.0`.
    pub fn plugin_issue(
        &mut self,
        span: Range<usize>,
        reporter: &str,
        message: &str,
        help: Option<&str>,
    ) {
        let hint = help.map_or_else(
            || {
                let name = reporter.strip_prefix("builtin:").map(|rest| {
                    let (name, _version) = rest.split_once(' ').unwrap_or((rest, ""));
                    name
                });
                match name {
                    Some(name) => format!("`lockgate plugin help {name}` shows its options"),
                    None => format!("see the documentation of `{reporter}`"),
                }
            },
            |help| escape(help, LINE_MAX).into(),
        );
        self.push(Issue::new(
            span,
            escape(message, LINE_MAX),
            format!("reported by {reporter}"),
            hint,
        ));
    }

    /// The report as text: the issues with a blank line between them, and a last line that counts
    /// them. `styled`: with ANSI colours, which carry no meaning of their own.
    pub fn render(&self, styled: bool) -> String {
        let renderer = if styled {
            Renderer::styled()
        } else {
            Renderer::plain()
        }
        .decor_style(DecorStyle::Unicode);
        let mut text = String::new();
        for issue in &self.issues {
            text.push_str(self.render_issue(&renderer, issue).trim_end());
            text.push_str("\n\n");
        }
        let problems = match self.counts(Severity::Problem) {
            0 => String::new(),
            1 => ", 1 problem".to_owned(),
            count => format!(", {count} problems"),
        };
        let counts = problems + &self.remarks();
        let name = normalize_untrusted_str(&self.document.name);
        text.push_str(&format!("{} in {name}\n", counts.trim_start_matches(", ")));
        text
    }

    fn render_issue(&self, renderer: &Renderer, issue: &Issue) -> String {
        let document = &*self.document;
        let level = match issue.severity {
            Severity::Problem => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let title = level.primary_title(&issue.message);
        let hint = Group::with_title(
            Level::HELP
                .with_name("hint")
                .secondary_title(normalize_untrusted_str(&issue.hint)),
        );
        if issue.span.is_empty() && issue.span.start == 0 {
            return renderer.render(&[
                title.element(Origin::path(&document.name).line(1).char_column(1)),
                hint,
            ]);
        }
        let span = document.clip(&issue.span);
        let also = issue
            .also
            .as_ref()
            .map(|(span, label)| (document.clip(span), label));
        let (start, end) = also
            .iter()
            .fold((span.start, span.end), |(start, end), (also, _)| {
                (start.min(also.start), end.max(also.end))
            });
        let excerpt = document.excerpt(&(start..end));
        let label = (!issue.label.is_empty()).then_some(issue.label.as_str());
        let mut snippet = Snippet::source(&excerpt.text)
            .line_start(excerpt.first_line)
            .path(&document.name)
            .annotation(
                AnnotationKind::Primary
                    .span(excerpt.locate(&span))
                    .label(label),
            );
        if let Some((span, label)) = &also {
            snippet = snippet.annotation(
                AnnotationKind::Context
                    .span(excerpt.locate(span))
                    .label(label.as_str()),
            );
        }
        let text = renderer.render(&[title.element(snippet), hint]);
        // The renderer counts the column in the shown text. After a mask, that is not the column in
        // the file.
        let (line, column) = document.position(span.start);
        let shown = excerpt.column(&span);
        let place = |column: usize| format!("{}:{line}:{column}", document.name);
        if shown == column {
            text
        } else {
            text.replacen(&place(shown), &place(column), 1)
        }
    }
}

/// Whether a byte of the text belongs to a value. Tables with headers may lie apart.
fn holds(value: &Spanned<DeValue<'_>>, at: usize) -> bool {
    value.span().contains(&at)
        || match value.get_ref() {
            DeValue::Table(table) => table
                .iter()
                .any(|(key, value)| key.span().contains(&at) || holds(value, at)),
            DeValue::Array(values) => values.iter().any(|value| holds(value, at)),
            _ => false,
        }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Issues {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issue_belongs_to_the_pipeline_whose_tables_it_is_in() {
        let text = "[store]\npath = 's'\n[pipelines.siem]\nin-flight = 0\n\
                    [pipelines.archive.sink]\nurl = 'x'\n[limits]\nmemory = 1\n\
                    [[pipelines.siem.stage]]\nwith = { skip = [2] }\n";
        let document = Document::new("x.toml", text, Vec::new());
        let issues = Issues::new(Arc::new(document), Vec::new());
        for (at, pipeline) in [
            ("path", None),
            ("siem]", Some("siem")),
            ("in-flight", Some("siem")),
            ("0", Some("siem")),
            ("url", Some("archive")),
            ("'x'", Some("archive")),
            ("memory", None),
            ("skip", Some("siem")),
            ("2", Some("siem")),
        ] {
            let start = text.find(at).unwrap();
            let issue = Issue::new(start..start + 1, "", "", "");
            assert_eq!(issues.pipeline(&issue).as_deref(), pipeline, "{at}");
        }
    }
}
