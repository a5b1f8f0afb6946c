//! The answer for people.

use lockgate_model::{LINE_MAX, escape};

use super::report::{
    Entry, Explanation, PipelineHistory, Replay, Request, Step, Surroundings, outcomes,
};

/// An answer in full.
pub(super) fn report(report: &Explanation, surroundings: &Surroundings<'_>) -> String {
    let mut text = String::new();
    for entry in &report.found {
        text += &of_entry(entry, surroundings);
    }
    if report.more {
        text += "There are more events with this id.\n\n";
    }
    if let Some(removed) = &report.removed {
        text += &format!(
            "entry {} of {}: retention has removed its event\n",
            removed.seq, removed.stream
        );
        for pipeline in &removed.pipelines {
            text += &format!("\n{}", of_pipeline(pipeline, surroundings));
        }
    } else if report.found.is_empty() {
        text += &coverage(report);
    }
    for unreadable in &report.unreadable {
        text += &format!("not searched, so the event may be there: {unreadable}\n");
    }
    text.trim_end().to_owned() + "\n"
}

/// The events of a session, a line each.
pub(super) fn list(report: &Explanation) -> String {
    let mut text = String::new();
    for entry in &report.found {
        let outcomes = outcomes(entry).into_iter();
        let outcomes: Vec<_> = outcomes
            .map(|(pipeline, outcome)| format!("{pipeline}: {outcome}"))
            .collect();
        text += &format!(
            "{}/{}  {}  index {}  {}  {}  {}\n",
            entry.stream,
            entry.seq,
            entry.time,
            entry.index,
            escape(&entry.event_type, LINE_MAX),
            escape(&entry.key, LINE_MAX),
            outcomes.join(", ")
        );
    }
    if report.more {
        text += "There are more; `--limit` lists them.\n";
    }
    for unreadable in &report.unreadable {
        text += &format!("not searched: {unreadable}\n");
    }
    text
}

fn of_entry(entry: &Entry, surroundings: &Surroundings<'_>) -> String {
    let mut text = format!("event {}\n", escape(&entry.key, LINE_MAX));
    let code = match entry.code.as_str() {
        "" => String::new(),
        code => format!(" ({})", escape(code, LINE_MAX)),
    };
    let place = match entry.block {
        Some((first, end)) => format!("in the block of entries {first} to {}", end - 1),
        None => "removed from the log by retention; a dead letter keeps the event".to_owned(),
    };
    let mut lines = vec![
        (
            "type",
            escape(&entry.event_type, LINE_MAX).into_owned() + &code,
        ),
        ("time", entry.time.clone()),
        ("read", entry.read_at.clone()),
        (
            "entry",
            format!("{} of {}, {place}", entry.seq, entry.stream),
        ),
        ("size", format!("{} bytes", entry.bytes)),
    ];
    if !entry.session.is_empty() {
        let session = escape(&entry.session, LINE_MAX);
        lines.push(("session", format!("{session}, index {}", entry.index)));
    }
    if entry.raw {
        let raw = "the event could not be turned into JSON";
        lines.push(("payload", raw.to_owned()));
    } else if let Some(payload) = &entry.payload {
        lines.push(("payload", payload.clone()));
    }
    for (name, value) in lines {
        text += &format!("  {name:8}{value}\n");
    }
    for pipeline in &entry.pipelines {
        text += &format!("\n{}", of_pipeline(pipeline, surroundings));
    }
    if entry.pipelines.is_empty() {
        text += "\nNo pipeline has ever read this stream.\n";
    }
    text + "\n"
}

fn of_pipeline(pipeline: &PipelineHistory, surroundings: &Surroundings<'_>) -> String {
    let name = &pipeline.pipeline;
    let mut text = format!("pipeline {name}: {}", pipeline.outcome);
    match (&pipeline.reason, pipeline.ahead) {
        (Some(reason), _) => text += &format!(" ({})", escape(reason, LINE_MAX)),
        (None, Some(0)) => text += ", the next in the queue",
        (None, Some(1)) => text += ", 1 waiting entry is before it",
        (None, Some(ahead)) => text += &format!(", {ahead} waiting entries are before it"),
        (None, None) => {}
    }
    text.push('\n');
    if let Some(at) = &pipeline.folded_at {
        text += &format!(
            "  the record of its outcome was folded into the daily tallies at {at}; `lockgate audit` \
             shows those\n"
        );
    }
    text += &waiting(pipeline, surroundings);
    for step in &pipeline.history {
        text += &of_step(step);
    }
    if let Some(letter) = &pipeline.dead_letter {
        text += &format!(
            "  dead letter {}, by {}: {}\n",
            letter.address,
            escape(&letter.cause, LINE_MAX),
            escape(&letter.reason, LINE_MAX)
        );
    }
    match (&pipeline.replay, &pipeline.not_replayed) {
        (Some(replay), _) => text += &of_replay(replay, pipeline),
        (None, Some(why)) => text += &format!("  the stages are not shown: {why}\n"),
        (None, None) => {}
    }
    text
}

/// What an entry without an outcome waits for.
fn waiting(pipeline: &PipelineHistory, surroundings: &Surroundings<'_>) -> String {
    let is_waiting = matches!(pipeline.outcome, "waiting" | "waiting again" | "never ran");
    let mut text = String::new();
    if pipeline.configured == Some(false) {
        text += "  the configuration no longer has this pipeline";
        text += match is_waiting {
            true => ": nothing of it is delivered, and retention removes what waits\n",
            false => "\n",
        };
        return text;
    }
    if !is_waiting {
        return text;
    }
    if !pipeline.reads_stream {
        text += "  the pipeline is not configured to read this stream any more: retention removes \
                 what waits\n";
    } else if surroundings.host.is_none() {
        text += "  no host is running: `lockgate start` goes on with it\n";
    }
    for condition in &pipeline.conditions {
        text += &format!(
            "  {} {}: {}\n",
            condition.kind.name(),
            condition.subject,
            condition.message
        );
    }
    text
}

fn of_step(step: &Step) -> String {
    let mut text = format!("  {}  {}", step.at, step.change);
    if let Some(reason) = &step.reason {
        text += &format!(": {}", escape(reason, LINE_MAX));
    }
    if !step.batch.is_empty() {
        text += &format!(
            " (batch {}, generation {})",
            escape(&step.batch, LINE_MAX),
            step.generation
        );
    }
    text.push('\n');
    let is_known = step
        .requests
        .iter()
        .all(|request| request.is_known_to_carry_it);
    if !is_known {
        text += "    one of these requests of its batch carried it; the release that made the \
                 commit did not note which:\n";
    }
    for request in &step.requests {
        text += &of_request(request);
    }
    text
}

fn of_request(request: &Request) -> String {
    let words = [&request.method, &request.endpoint, &request.path];
    let words: Vec<_> = words
        .iter()
        .filter(|word| !word.is_empty())
        .map(|word| escape(word, LINE_MAX))
        .collect();
    let count = |number: u64, noun: &str| match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    };
    let mut answer = match request.status {
        0 => "no answer".to_owned(),
        status => format!("answered {status}"),
    };
    if !request.answer.is_empty() {
        answer += &format!(": {}", escape(&request.answer, LINE_MAX));
    }
    format!(
        "    {}: {}, {}, {}; {answer}\n",
        if words.is_empty() {
            "request".to_owned()
        } else {
            words.join(" ")
        },
        count(request.documents.into(), "document"),
        count(request.bytes, "byte"),
        count(request.attempts.into(), "attempt"),
    )
}

fn of_replay(replay: &Replay, pipeline: &PipelineHistory) -> String {
    let mut text = "  passed again through the configured components".to_owned();
    text += match replay.same_generation {
        Some(true) => ", the ones that processed it:\n",
        Some(false) => ". A different generation processed it:\n",
        None if matches!(pipeline.outcome, "waiting" | "never ran") => {
            ", which have not processed it yet:\n"
        }
        // The commit that says so was folded.
        None => ". Which ones processed it is no longer recorded:\n",
    };
    for stage in &replay.stages {
        let result = match (stage.result, &stage.reason) {
            ("passed", _) => passed(stage),
            (result, Some(reason)) => format!("{result}: {}", escape(reason, LINE_MAX)),
            (result, None) => result.to_owned(),
        };
        text += &format!("    {}, {}: {result}\n", stage.label, short(&stage.digest));
        if let Some(then) = &stage.digest_then {
            text += &format!("      it was {} then\n", short(then));
        }
        if stage.with_differs {
            text += "      its table in the configuration was different then\n";
        }
        if stage.uses_state {
            text += "      it keeps state; this result is from its present state\n";
        }
        for document in &stage.documents {
            if let Some(payload) = &document.payload {
                text += &format!("      {}\n", payload);
            }
        }
    }
    text
}

/// `sha256:` and the first digits.
fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

fn passed(stage: &super::report::ReplayStage) -> String {
    match stage.documents.as_slice() {
        [document] if !document.changed => "passed as it is".to_owned(),
        [document] => format!("1 document of {} bytes", document.bytes),
        documents => {
            let bytes: usize = documents.iter().map(|document| document.bytes).sum();
            format!("{} documents of {bytes} bytes", documents.len())
        }
    }
}

/// The events that the store covers, for one that is not there.
fn coverage(report: &Explanation) -> String {
    let mut text = "not in the store, which has:\n".to_owned();
    for stream in &report.streams {
        let kept = stream.next_seq - stream.oldest_seq;
        text += &format!("  {}: {kept} events", stream.stream);
        if let (Some(from), Some(to)) = (&stream.from, &stream.to) {
            text += &format!(" with times from {from} to {to}");
        }
        if let (Some(from), Some(to)) = (&stream.read_from, &stream.read_to) {
            text += &format!(", read from {from} to {to}");
        }
        text.push('\n');
        if stream.removed > 0 {
            text += &format!(
                "    retention has removed {} older ones: if this event was read before, it is one \
                 of them\n",
                stream.removed
            );
        }
        if let Some(types) = &stream.types {
            text += &format!(
                "    the source reads only these types: {}; others are never read\n",
                types.join(", ")
            );
        }
    }
    if report.streams.is_empty() {
        text += "  no events: nothing was ever read\n";
    }
    text
}
