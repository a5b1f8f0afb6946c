//! The status as text.

use lockgate_model::{Millis, utc};
use lockgate_service::{
    AskedBy, ConditionStatus, ConditionStatusKind, ConfigurationStatus, HostStatus, LockStatus,
    PipelineStatus as RunningPipeline, SourceStatus,
};

use super::report::{GapRow, Row, StatusView};

/// The longest wait between attempts that nobody asked for.
const OWN_WAIT: Millis = 30_000;
/// Gaps that are listed for each source.
const GAPS_SHOWN: usize = 10;
/// How long a host is not called well after events were lost, in milliseconds.
const LOST_SHOWN: Millis = 7 * 24 * 3_600_000;
/// A difference of the clocks that is worth a word, in milliseconds.
const SKEW_SHOWN: Millis = 1_000;

const PIPELINE: &str = "pipeline";
/// The figures of a pipeline.
const FIGURES: [&str; 6] = ["read", "delivered", "dropped", "dead", "waiting", "lag"];

pub(super) fn table(report: &StatusView, now: Millis) -> String {
    let mut text = head(report, now);
    for (name, source) in report.host.iter().flat_map(|host| &host.sources) {
        text += &sourced(name, source, now);
    }
    text += &gaps(&report.gaps, now);
    let names = report.pipelines.keys().map(|name| name.chars().count());
    let width = names.max().unwrap_or(0).max(PIPELINE.len());
    let registered = report.pipelines.values().filter(|row| row.registered);
    let figures = registered.map(figures).collect::<Vec<_>>();
    // No wider than they have to be: a terminal may have 80 columns.
    let widths: [usize; 6] = std::array::from_fn(|column| {
        let cells = figures.iter().map(|cells| cells[column].len());
        cells.max().unwrap_or(0).max(FIGURES[column].len())
    });
    let line = |name: &str, cells: &[String; 6]| {
        let mut line = format!("{name:width$}");
        for (cell, width) in cells.iter().zip(widths) {
            line += &format!("  {cell:>width$}");
        }
        line + "\n"
    };
    text += "\n";
    text += &line(PIPELINE, &FIGURES.map(str::to_owned));
    for (name, row) in &report.pipelines {
        if row.registered {
            text += &line(name, &self::figures(row));
            text += &remarks(row, now);
        } else if report.store_error.is_some() {
            let state = row.state.as_ref().map(|state| format!("{}; ", state.state));
            let state = state.unwrap_or_default();
            text += &format!("{name:width$}  {state}its figures cannot be read\n");
        } else {
            let state = row.state.as_ref().map(|state| state.state.to_string());
            let state = state.unwrap_or_else(|| "has never run".to_owned());
            text += &format!("{name:width$}  {state}; it has read nothing yet\n");
        }
        if let Some(state) = &row.state {
            if row.registered && !state.state.has_started() {
                text += &format!("  {}\n", state.state);
            }
            if let Some(until) = state.certificate_until {
                text += &match until - now {
                    left if left > 0 => {
                        format!("  the client certificate is valid for {}\n", span(left))
                    }
                    left => format!("  the client certificate expired {} ago\n", span(-left)),
                };
            }
            text += &conditions(state, now);
        }
    }
    if report.pipelines.is_empty() && report.host.is_none() {
        text += "no pipeline has run on this store\n";
    }
    text
}

/// The gaps that are open or lost, by source.
fn gaps(gaps: &[GapRow], now: Millis) -> String {
    let mut text = String::new();
    for of_source in gaps.chunk_by(|a, b| a.source == b.source) {
        let missing: Vec<&GapRow> = of_source.iter().filter(|gap| gap.state != "read").collect();
        if missing.is_empty() {
            continue;
        }
        let open = missing.iter().filter(|gap| gap.state == "open").count();
        text += &format!(
            "gaps of source {}: {open} open, {} lost; Teleport did not return these events\n",
            of_source[0].source,
            missing.len() - open
        );
        for gap in missing.iter().take(GAPS_SHOWN) {
            text += &format!(
                "  {}, {} from {} to {}: {} (for {}, {} attempts)\n",
                gap.state,
                gap.what,
                crate::commands::dlq::rfc3339(gap.from),
                crate::commands::dlq::rfc3339(gap.to),
                gap.error,
                span(now - gap.since),
                gap.attempts
            );
        }
        if missing.len() > GAPS_SHOWN {
            let more = missing.len() - GAPS_SHOWN;
            text += &format!("  {more} more: `lockgate status --json` lists all\n");
        }
    }
    text
}

/// It is open, or was lost not long ago.
fn is_recent(gap: &GapRow, now: Millis) -> bool {
    match gap.state {
        "open" => true,
        "lost" => gap.ended_at.is_none_or(|at| now - at < LOST_SHOWN),
        _ => false,
    }
}

/// Lines on the host as a whole.
fn head(report: &StatusView, now: Millis) -> String {
    let Some(host) = &report.host else {
        return "not running; the figures are those of the store, and what waits at Teleport is not \
                known\n"
            .to_owned();
    };
    let (pid, version) = (host.pid, &host.version);
    let mut text = if report.silent {
        format!(
            "not answering: process {pid}, version {version}; the state below is {} old\n",
            span(now - host.updated_at)
        )
    } else {
        let since = span(now - host.started_at);
        format!("running: process {pid}, version {version}, for {since}\n")
    };
    let is_whole = !report.gaps.iter().any(|gap| is_recent(gap, now));
    let gives_up = host.pipelines.values().any(|pipeline| {
        let at = pipeline.given_up_at;
        at.is_some_and(|at| now - at < LOST_SHOWN)
    });
    let is_refused = host
        .configuration
        .as_ref()
        .is_some_and(|configuration| configuration.refused.is_some());
    let is_connecting = host.sources.values().any(SourceStatus::is_connecting);
    let of_sources = host.sources.values().map(|source| &source.conditions);
    let of_pipelines = host.pipelines.values().map(|pipeline| &pipeline.conditions);
    let mut conditions = of_sources.chain(of_pipelines);
    let has_conditions = host.store_log.is_some()
        || host.admin_listener.is_some()
        || report.store_error.is_some()
        || conditions.any(|conditions| !conditions.is_empty());
    text += match (report.ready, is_whole) {
        (true, true) if gives_up => {
            "ready, but events were given up because a pipeline had reached its `lag-limit`\n"
        }
        (true, true) if is_refused => {
            "ready, but the configuration file had problems and is not in force: see below\n"
        }
        (true, true) if has_conditions => "ready, but not everything works: see below\n",
        (true, true) if is_connecting => "ready, but a source is still connecting: see below\n",
        (true, true) => "ready: everything works\n",
        (true, false) => {
            "ready, but a part of Teleport's log could not be read: see the gaps below\n"
        }
        (false, _) => "NOT READY\n",
    };
    text += &health(host, now);
    if let Some(error) = &report.store_error {
        text += &format!("the figures cannot be read: {error}\n");
    }
    text
}

fn health(host: &HostStatus, now: Millis) -> String {
    let mut text = String::new();
    if let Some(since) = host.stopping_since {
        text += &format!("it is stopping (for {})\n", span(now - since));
    }
    if let Some(store) = &host.store {
        text += &format!(
            "waiting for the store: {} (for {}",
            store.message,
            span(now - store.since)
        );
        if let Some(at) = store.next_attempt.filter(|&at| at > now) {
            text += &format!(", next attempt in {}", span(at - now));
        }
        text += ")\n";
    }
    if let Some(listener) = &host.admin_listener {
        text += &format!("{} (for {}", listener.message, span(now - listener.since));
        if let Some(at) = listener.next_attempt.filter(|&at| at > now) {
            text += &format!(", next attempt in {}", span(at - now));
        }
        text += ")\n";
    }
    if let Some(log) = &host.store_log {
        text += &format!(
            "the store's log has {} MiB and grows, because another program reads from `store.db` \
             (for {}): end it, or let it read a copy\n",
            log.bytes >> 20,
            span(now - log.since)
        );
    }
    if let Some(configuration) = &host.configuration {
        text += &configuration_lines(configuration, now);
    }
    text
}

/// What an operator should know about the configuration file.
fn configuration_lines(configuration: &ConfigurationStatus, now: Millis) -> String {
    let mut text = String::new();
    if let Some(since) = configuration.reloading_since {
        let waits_for = match &configuration.reloading_waits_for {
            Some(what) => format!(", waiting for {what}"),
            None => String::new(),
        };
        text += &format!(
            "loading the configuration (for {}){waits_for}\n",
            span(now - since)
        );
    }
    if let Some(refused) = &configuration.refused {
        // A host of an earlier version does not say when it read it last.
        let read_at = refused.read_at.max(refused.since);
        text += &format!(
            "the configuration file had problems when it was loaded at {}, {} ago, and is not in \
             force; the host runs with that of {} ago\n",
            utc(read_at),
            span(now - read_at),
            span(now - configuration.loaded_at)
        );
        for problem in &refused.problems {
            text += &format!("  {problem}\n");
        }
        text += "once they are solved, `lockgate reload` loads it\n";
    }
    if !configuration.needs_restart.is_empty() {
        text += &format!(
            "needs a restart: {} in the configuration file changed, and the host runs with the \
             value before\n",
            configuration.needs_restart.join(", ")
        );
    }
    text
}

/// The lines of a source.
fn sourced(name: &str, source: &SourceStatus, now: Millis) -> String {
    let mut text = format!("source {name}: {}\n", source.state);
    let mut line = |line: String| text += &format!("  {line}\n");
    let reader = &source.reader;
    match reader.route.as_deref() {
        Some("proxy") => line("through Teleport's proxy, by TLS routing".to_owned()),
        Some("proxy-upgrade") => {
            line("through Teleport's proxy, by TLS routing in a connection upgrade".to_owned())
        }
        Some("ssh-tunnel") => line("through Teleport's proxy, by an SSH tunnel".to_owned()),
        // At the Auth Service's own address, as `addr` says.
        _ => {}
    }
    match (source.unknown_since, source.behind_seconds) {
        (Some(since), _) => line(format!(
            "what waits at Teleport is unknown since {}",
            moment(since, now)
        )),
        (None, Some(behind)) if behind > 0.0 => line(format!(
            "behind Teleport's newest event by {}",
            seconds(behind)
        )),
        _ => {}
    }
    let read = reader.audit_events + reader.session_events;
    let mut counts = vec![format!("{read} events read")];
    for (count, what) in [
        (reader.session_events, "of recordings"),
        (reader.filtered, "filtered"),
        (reader.own_accesses, "of them on our own downloads"),
        (reader.duplicates, "read before"),
        (reader.late, "late"),
        (reader.unreadable, "not readable as JSON"),
    ] {
        if count > 0 {
            counts.push(format!("{count} {what}"));
        }
    }
    line(counts.join(", "));
    if let Some(from) = reader.reads_from {
        line(format!(
            "reading from {} on: older events are left out (`start-time` was not set)",
            utc(from)
        ));
    }
    if reader.recordings_pending + reader.recordings_done + reader.recordings_lost > 0 {
        line(format!(
            "recordings: {} downloaded, {} pending, {} given up",
            reader.recordings_done, reader.recordings_pending, reader.recordings_lost
        ));
    }
    if let Some(locks) = &reader.locks {
        line(locked(locks, now));
    }
    if let Some(skew) = reader.skew_ms.filter(|skew| skew.abs() >= SKEW_SHOWN) {
        let side = if skew > 0 { "ahead" } else { "behind" };
        line(format!("Teleport's clock is {} {side}", span(skew.abs())));
    }
    if let Some(until) = reader.credentials_until {
        line(match (reader.credentials_from, until - now) {
            (Some(from), _) if now < from => format!(
                "the credentials are not valid before {}, by the clock of this machine",
                utc(from)
            ),
            (_, left) if left > 0 => format!("the credentials are valid for {}", span(left)),
            (_, left) => format!("the credentials expired {} ago", span(-left)),
        });
    }
    if let Some(report) = &source.last_report {
        let (count, ago) = (source.reports, span(now - report.at));
        let reports = if count == 1 { "report" } else { "reports" };
        line(format!(
            "{count} {reports}, the last {ago} ago: {}",
            report.message
        ));
    }
    if !source.ready && !source.conditions.is_empty() {
        line("not ready, for the reasons below".to_owned());
    }
    for condition in &source.conditions {
        text += &described(condition, now);
    }
    text
}

/// The failed logins of a source, and what became of the locks.
fn locked(locks: &LockStatus, now: Millis) -> String {
    let mut parts = vec![format!("{} failed logins", locks.failed_logins)];
    let ago = locks.made_at.map_or(String::new(), |at| {
        format!(" (the last {} ago)", span(now - at))
    });
    parts.push(format!("{} locks made{ago}", locks.made));
    for (count, what) in [
        (locks.kept, "in force already"),
        (locks.pending, "to be made"),
        (locks.given_up, "given up"),
        (
            locks.too_late,
            "not made because the failed logins were read too late",
        ),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    if locks.unnamed > 0 {
        parts.push(format!(
            "{} failed logins whose user cannot be locked (the name is missing, longer than 255 \
             bytes, or has control characters)",
            locks.unnamed
        ));
    }
    if locks.forgotten_users > 0 {
        parts.push(format!(
            "the failed logins of {} users forgotten, because there were too many users",
            locks.forgotten_users
        ));
    }
    if let Some(why) = &locks.last_given_up {
        parts.push(format!("given up last: {why}"));
    }
    format!("locks: {}", parts.join(", "))
}

/// In the order of [`FIGURES`].
fn figures(row: &Row) -> [String; 6] {
    let counts = [row.read, row.delivered, row.dropped, row.dead, row.waiting];
    let [read, delivered, dropped, dead, waiting] = counts.map(|count| count.to_string());
    [read, delivered, dropped, dead, waiting, lag(row)]
}

fn lag(row: &Row) -> String {
    match row.lag_seconds {
        _ if row.configured == Some(false) => "-".to_owned(),
        Some(known) if row.lag_known => seconds(known),
        Some(known) => format!("> {}", seconds(known)),
        None if row.lag_known => "none".to_owned(),
        None => "unknown".to_owned(),
    }
}

/// Lines on a pipeline that do not depend on a running host.
fn remarks(row: &Row, now: Millis) -> String {
    let mut text = String::new();
    if !row.lag_known
        && let Some(since) = row.lag_unknown_since
    {
        let sources = row.lag_unknown_sources.join("`, `");
        text += &format!(
            "  lag unknown since {}: it is not known what waits at Teleport for `{sources}`\n",
            moment(since, now)
        );
    }
    if !row.balanced {
        text += "  the books do not balance: read is not delivered + dropped + dead + waiting. \
                 Please report this as a bug\n";
    }
    if row.expired > 0 {
        text += &format!(
            "  expired: {} of the dead are no longer kept\n",
            row.expired
        );
    }
    if row.removed_unfinished > 0 {
        text += &format!(
            "  {} of the dropped were removed by retention before this pipeline had finished \
             them\n",
            row.removed_unfinished
        );
    }
    if row.given_up > 0 {
        text += &format!(
            "  {} of the dropped were given up, because this pipeline had reached its \
             `lag-limit`\n",
            row.given_up
        );
    }
    if row.configured == Some(false) {
        text += "  no longer configured: nothing of it is delivered, and retention removes what \
                 waits\n";
    } else if row.abandoned > 0 {
        text += &format!(
            "  {} of the waiting are in streams that this pipeline is not configured to read any \
             more: retention removes them\n",
            row.abandoned
        );
    }
    text
}

/// The conditions of a pipeline, a line each.
fn conditions(state: &RunningPipeline, now: Millis) -> String {
    let mut text = String::new();
    if !state.ready && !state.conditions.is_empty() {
        text += "  not ready, for the reasons below\n";
    }
    for condition in &state.conditions {
        text += &described(condition, now);
    }
    text
}

fn described(condition: &ConditionStatus, now: Millis) -> String {
    let kind = condition.kind.name();
    let subject = match condition.subject.as_str() {
        same if same == kind => String::new(),
        subject => format!(" {subject}"),
    };
    let (message, since) = (&condition.message, span(now - condition.since));
    let mut text = format!("  {kind}{subject}: {message} (for {since}");
    if let Some(at) = condition.next_attempt.filter(|&at| at > now) {
        text += &format!(", next attempt in {}", span(at - now));
        if let Some(who) = asked_by(condition, at - now) {
            text += &format!(", as {who}; a restart of the host tries at once");
        }
    }
    text + ")\n"
}

/// Who asked for a wait that is longer than the host's own.
fn asked_by(condition: &ConditionStatus, wait: Millis) -> Option<&'static str> {
    match condition.kind {
        _ if wait <= OWN_WAIT => None,
        ConditionStatusKind::Plugin => Some("the component asked"),
        _ => match condition.asked_by? {
            AskedBy::Receiver => Some("the receiver asked with `Retry-After`"),
            AskedBy::Sink => Some("the sink asked"),
            AskedBy::Unknown => None,
        },
    }
}

/// `2026-01-05T07:42:03Z (12s ago)`.
fn moment(at: Millis, now: Millis) -> String {
    let time = jiff::Timestamp::from_millisecond(at / 1000 * 1000);
    let time = time.map_or_else(|_| format!("{at} ms"), |time| time.to_string());
    format!("{time} ({} ago)", span(now - at))
}

fn seconds(seconds: f64) -> String {
    span((seconds * 1000.0) as Millis)
}

/// `830ms`, `12s`, `3m 5s`, `2h 10m`, `4d 3h`.
fn span(millis: Millis) -> String {
    let seconds = millis.max(0) / 1000;
    match seconds {
        0 => format!("{}ms", millis.max(0)),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests;
