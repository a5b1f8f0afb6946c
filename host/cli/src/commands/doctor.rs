//! `lockgate doctor`: what is wrong around a configuration, and how to fix it.

use std::fmt::Write;

use lockgate_config::{Issues, Severity};
use lockgate_model::sentence;
use lockgate_observe::Masks;
use lockgate_service::{Finding, FindingState, Subject, diagnose};
use serde_json::{Value, json};

use crate::args::Doctor;
use crate::failure::Failure;
use crate::{print, setup};

pub(crate) fn run(command: &Doctor, masks: &Masks) -> Result<(), Failure> {
    let config = setup::load(&command.config, masks)?;
    let runtime = super::tokio_runtime()?;
    let findings = runtime.block_on(async {
        let report = setup::examine(&command.config, &config, masks).await?;
        let mut findings = of_configuration(&report);
        findings.extend(diagnose(&config, masks, command.recordings).await);
        Ok::<_, Failure>(findings)
    })?;
    let text = if command.json {
        format!("{}\n", object(&findings))
    } else {
        table(&findings)
    };
    print::data(&masks.mask(&text))?;
    match count(&findings, FindingState::Problem) {
        0 => Ok(()),
        1 => Err(Failure::failed("1 problem was found.")),
        problems => Err(Failure::failed(format!("{problems} problems were found."))),
    }
}

/// What `check` says of the file, its plugins and databases.
fn of_configuration(report: &Issues) -> Vec<Finding> {
    let finding = |what: &str, state, message: &str, fix: Option<String>| Finding {
        subject: Subject::Configuration,
        what: what.to_owned(),
        state,
        message: message.to_owned(),
        fix,
    };
    let issues = report.issues().iter();
    let mut findings: Vec<Finding> = issues
        .map(|issue| {
            let (line, column) = report.position(issue);
            let place = format!("{line}:{column}");
            let state = match issue.severity {
                Severity::Problem => FindingState::Problem,
                Severity::Warning => FindingState::Warning,
                Severity::Note => FindingState::Note,
            };
            let message = issue.message.trim_end_matches('.');
            let hint = Some(sentence(&issue.hint)).filter(|_| !issue.hint.is_empty());
            let fix = hint.map(|hint| hint.trim_end_matches('.').to_owned());
            finding(&place, state, message, fix)
        })
        .collect();
    if !report.has_problems() {
        let message = "the file can be used, and its plugins accept it";
        findings.insert(0, finding("file", FindingState::Ok, message, None));
    }
    findings
}

fn count(findings: &[Finding], state: FindingState) -> usize {
    let findings = findings.iter();
    findings.filter(|finding| finding.state == state).count()
}

fn object(findings: &[Finding]) -> Value {
    let row = |finding: &Finding| {
        let (subject, name) = match &finding.subject {
            Subject::Configuration => ("configuration", None),
            Subject::Source(name) => ("source", Some(name)),
            Subject::Store => ("store", None),
            Subject::Pipeline(name) => ("pipeline", Some(name)),
        };
        json!({
            "subject": subject,
            "name": name,
            "what": finding.what,
            "state": finding.state.name(),
            "message": finding.message,
            "fix": finding.fix,
        })
    };
    json!({
        "ok": count(findings, FindingState::Problem) == 0,
        "problems": count(findings, FindingState::Problem),
        "warnings": count(findings, FindingState::Warning),
        "findings": findings.iter().map(row).collect::<Vec<Value>>(),
    })
}

/// A paragraph for each subject, and a line for each finding, with another for its fix.
fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut subject = None;
    let width = findings.iter().map(|finding| finding.what.len()).max();
    let width = width.unwrap_or_default();
    for finding in findings {
        if subject != Some(&finding.subject) {
            let gap = if subject.is_some() { "\n" } else { "" };
            let title = match &finding.subject {
                Subject::Configuration => "configuration".to_owned(),
                Subject::Source(name) => format!("source `{name}`"),
                Subject::Store => "store".to_owned(),
                Subject::Pipeline(name) => format!("pipeline `{name}`"),
            };
            let _ = writeln!(text, "{gap}{title}");
            subject = Some(&finding.subject);
        }
        let (state, what) = (finding.state.name(), &finding.what);
        let _ = writeln!(text, "  {state:<7}  {what:<width$}  {}", finding.message);
        if let Some(fix) = &finding.fix {
            let _ = writeln!(text, "  {:<7}  {:<width$}  fix: {fix}", "", "");
        }
    }
    let counted = |state: FindingState| {
        let (count, name) = (count(findings, state), state.name());
        match count {
            1 => format!("1 {name}"),
            count => format!("{count} {name}s"),
        }
    };
    let (problems, warnings) = (
        counted(FindingState::Problem),
        counted(FindingState::Warning),
    );
    let _ = writeln!(text, "\n{problems}, {warnings}");
    text
}
