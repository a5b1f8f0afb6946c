//! One window of time, read page by page.

use std::collections::HashSet;
use std::time::Duration;

use lockgate_backoff::Backoff;
use lockgate_model::{Day, FeedKind, Millis};

use super::page::{Query, Refusal, fetch};
use super::time_order::TimeOrder;
use super::{FAR, GAP, PLACE, Poller, millis, step, usual_window, window_end};
use crate::proto::auditlog::EventsUnstructured;
use crate::time::{of_proto, time};
use crate::{Closed, Intake};

/// Pages without a new event or a later time before the server is considered to repeat itself.
const STALE_MAX: u32 = 16;
/// The largest page that Teleport allows.
const PAGE_MAX: i32 = 10_000;
/// Successful pages before a lowered page size is raised again.
const STEADY: u32 = 4;

/// The purpose of reading a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// The log, for the first time but for an overlap. `is_tail`: no later event is known.
    Log { is_tail: bool },
    /// Late events, or the events of a gap. The cursor does not move, and what cannot be read does
    /// not become a gap: it did when it was read for the first time.
    Sweep,
}

/// A window that was read.
#[derive(Debug)]
pub(super) struct Read {
    /// New events.
    pub(super) fresh: u64,
    /// The server sent no events at all.
    pub(super) is_empty: bool,
    /// The last millisecond that was read.
    pub(super) to: Millis,
    /// The time up to which it has been read, if it was not read to its end.
    pub(super) reached: Millis,
    /// Why the window was not read to its end: only of several days, or in a sweep.
    pub(super) refusal: Option<Refusal>,
    /// The wait before the next attempt, if the log is not read past what the server refuses.
    pub(super) wait: Option<Duration>,
    /// Time and hash of what a sweep found.
    pub(super) late: Vec<(Millis, u64)>,
    /// The server repeated itself, so some may be missing.
    pub(super) is_doubtful: bool,
}

/// Reads one window.
pub(super) struct Window<'a, I> {
    poller: &'a mut Poller<I>,
    aim: Aim,
    query: Query,
    /// Where the window begins.
    first: Millis,
    order: TimeOrder,
    /// The window is larger than a day.
    is_grown: bool,
    late: Vec<(Millis, u64)>,
    /// New events so far.
    fresh: u64,
    /// The last page came with a key although it had fewer events than requested.
    has_more: bool,
    /// Keys that were followed among events of the same time.
    keys: HashSet<String>,
    /// Pages in a row that brought nothing new.
    stale: u32,
    /// The time from which the window was last restarted without a key. An empty page from there on
    /// is the end.
    restarted: Option<Millis>,
    /// The last refusal, and how often it was repeated.
    refusal: Option<(Refusal, u32)>,
    /// Successful pages in a row since the page size was lowered.
    steady: u32,
    /// Where the end of the window was moved, because it could not be read further: from and to.
    narrowed: Option<(Millis, Millis)>,
    is_doubtful: bool,
    backoff: Backoff,
}

/// The next step after a page.
enum Next {
    Page,
    End,
    Refused(Refusal),
    Wait(Duration),
}

impl<'a, I: Intake> Window<'a, I> {
    pub(super) fn new(
        poller: &'a mut Poller<I>,
        from: Millis,
        to: Millis,
        aim: Aim,
    ) -> Window<'a, I> {
        let page_size = match aim {
            // Smaller pages were tried before.
            Aim::Log { .. } if poller.standstill.is_at(from) => 1,
            _ => poller.source.settings.limits.page.max(1),
        };
        let backoff = poller.source.backoff();
        Window {
            aim,
            first: from,
            is_grown: to - from > Day::MILLIS + millis(poller.source.settings.limits.reread),
            late: Vec::new(),
            query: Query {
                from,
                to,
                page_size,
                gives_up: aim == Aim::Sweep,
                is_aside: poller.is_aside,
                ..Query::default()
            },
            order: TimeOrder::default(),
            fresh: 0,
            has_more: false,
            keys: HashSet::new(),
            stale: 0,
            restarted: None,
            refusal: None,
            steady: 0,
            narrowed: None,
            is_doubtful: false,
            backoff,
            poller,
        }
    }

    /// Reads the window to its end.
    pub(super) async fn read(mut self) -> Result<Read, Closed> {
        let (refusal, wait) = loop {
            let next = match fetch(&self.poller.source, &self.query).await {
                Ok(page) => self.take(page).await?,
                Err(refusal) => self.refused(refusal).await?,
            };
            match next {
                Next::Page => {}
                Next::End => break (None, None),
                Next::Refused(refusal) => break (Some(refusal), None),
                Next::Wait(wait) => break (None, Some(wait)),
            }
        };
        Ok(Read {
            fresh: self.fresh,
            is_empty: self.order.latest().is_none(),
            reached: match self.order.is_kept() {
                true => self.here(),
                false => self.first,
            },
            to: self.query.to,
            refusal,
            wait,
            late: self.late,
            is_doubtful: self.is_doubtful,
        })
    }

    async fn take(&mut self, page: EventsUnstructured) -> Result<Next, Closed> {
        self.refusal = None;
        self.backoff.reset();
        self.raise_page_size();
        let before = (self.fresh, self.order.latest());
        let horizon = self.poller.horizon();
        for event in &page.items {
            if self.order.note(of_proto(event.time.as_ref()), horizon) {
                self.report_disorder();
            }
            let poller = &mut *self.poller;
            if poller.collector.push(event, Some(&mut poller.seen)) {
                self.fresh += 1;
                if self.poller.collector.is_full() {
                    self.store().await?;
                }
            }
        }
        if !self.poller.collector.is_empty() {
            self.store().await?;
        }
        self.note_added();
        let is_stale = before == (self.fresh, self.order.latest());
        self.stale = if is_stale { self.stale + 1 } else { 0 };

        match (page.last_key, page.items.is_empty()) {
            (key, true) if key.is_empty() => self.handle_silence().await,
            (key, false) if key.is_empty() => Ok(Next::End),
            (key, _) => self.next_page(key, page.items.len()).await,
        }
    }

    async fn store(&mut self) -> Result<(), Closed> {
        if self.aim == Aim::Sweep {
            let poller = &mut *self.poller;
            return poller.source.store(&mut poller.collector, Vec::new()).await;
        }
        let position = self.position();
        self.poller.store(position).await
    }

    /// Takes note of the times of the page's new events.
    fn note_added(&mut self) {
        let poller = &mut *self.poller;
        let added = poller.seen.take_added();
        if self.aim == Aim::Sweep {
            self.late.extend(added);
            return;
        }
        let mut times: Vec<Millis> = added.iter().map(|&(time, _)| time).collect();
        times.sort_unstable();
        let clock = poller.source.settings.clock.clone();
        // The median if the log is ahead of this clock: a few events in the future show nothing.
        let now = clock.now();
        let median = times.get(times.len() / 2).copied();
        let past = times.iter().rev().find(|&&time| time <= now).copied();
        let latest = median.filter(|&time| time > now).or(past);
        poller.latest = poller.latest.max(latest);
        poller.shown = poller
            .shown
            .max(self.order.credible().unwrap_or(poller.shown));
        poller.horizon.note(&*clock, times);
    }

    /// Continues with the next page. It begins at the time where this one ended and repeats the
    /// events of that time: events with equal times may be in another order in the next answer, so
    /// some would be missing after a key. The key is followed only if all events have the same
    /// time, and only after larger pages have been tried.
    async fn next_page(&mut self, key: String, events: usize) -> Result<Next, Closed> {
        let here = self.here();
        self.has_more = (events as i32) < self.query.page_size;
        if self.is_grown {
            // The log is not as quiet here as it was before.
            let size = usual_window(&self.poller.source.settings.limits);
            self.query.to = window_end(here, size, self.query.to + 1) - 1;
        }
        if here > self.query.from && self.order.is_kept() {
            self.poller.seen.forget_before(here);
            self.query.page_size = self.query.page_size.min(self.page());
            self.query.from = here;
            self.query.key.clear();
            self.keys.clear();
            self.stale = 0;
            return Ok(Next::Page);
        }
        let is_full = self.query.key.is_empty() && events as i32 >= self.query.page_size;
        if is_full && self.query.page_size < self.page() && self.query.to > here {
            // The page size was lowered for a refusal. All events of this millisecond are needed in
            // one page: the refusal may be of later ones.
            self.query.to = here;
            self.query.page_size = self.page();
            return Ok(Next::Page);
        }
        if is_full
            && self.order.is_kept()
            && (self.page()..PAGE_MAX).contains(&self.query.page_size)
        {
            self.query.page_size = self.query.page_size.saturating_mul(4).min(PAGE_MAX);
            return Ok(Next::Page);
        }
        if self.stale >= STALE_MAX || !self.keys.insert(key.clone()) {
            return self.handle_repetition().await;
        }
        self.query.key = key;
        Ok(Next::Page)
    }

    /// The time before which everything has been read, as far as the order of the events shows it.
    fn position(&self) -> Millis {
        let until = self.poller.until;
        match self.order.credible() {
            Some(credible) if self.order.is_kept() => until.max(credible.min(self.query.to)),
            _ => until,
        }
    }

    /// The current time of the reader in this window.
    fn here(&self) -> Millis {
        self.order.latest().map_or(self.query.from, |latest| {
            latest.clamp(self.query.from, self.query.to)
        })
    }

    /// Restarts the search from a time, without a key.
    fn restart(&mut self, from: Millis) -> Next {
        if from > self.query.to {
            return Next::End;
        }
        self.query.from = from;
        self.query.key.clear();
        self.keys.clear();
        self.stale = 0;
        self.restarted = Some(from);
        Next::Page
    }

    /// Restarts the search after a gap, or after events that were reported as missing. They are not
    /// requested again.
    fn step_to(&mut self, from: Millis) -> Next {
        self.poller.floor = self.poller.floor.max(from);
        self.restart(from)
    }

    /// Handles an empty page without a key: the end, a key that the server lost, or an event that
    /// does not fit into a page.
    async fn handle_silence(&mut self) -> Result<Next, Closed> {
        let here = self.here();
        let after_key = !self.query.key.is_empty();
        if after_key && (self.restarted != Some(here) || self.query.page_size < PAGE_MAX) {
            // With a larger page, no key may be needed.
            self.query.page_size = self.query.page_size.saturating_mul(4).min(PAGE_MAX);
            return Ok(self.restart(here));
        }
        let (from, to) = (self.query.from, self.query.to);
        if self.aim == Aim::Sweep {
            self.is_doubtful |= after_key;
            return Ok(Next::End);
        }
        // Usually, the log ends here.
        if !after_key
            && self.restarted.is_none()
            && self.aim == (Aim::Log { is_tail: true })
            && let Ok(None) = step::newest(&self.poller.source, &self.query).await
        {
            return Ok(Next::End);
        }
        if !after_key
            && self.restarted.is_none()
            && self.order.latest().is_none()
            && step::seems_empty(&self.poller.source, from, to).await
        {
            return Ok(Next::End);
        }
        let silent_from = if after_key { here } else { from - 1 };
        match step::past_silence(&self.poller.source, silent_from, to).await {
            None => {
                // The last page was not full, so the next event did not fit, and no event after it
                // can be found.
                if after_key && self.has_more {
                    self.record_missing("unsent", here, (here, here), &too_large(here))
                        .await?;
                }
                Ok(Next::End)
            }
            Some(next) if next == from && self.query.page_size == 1 => Ok(Next::End),
            Some(next) => {
                // An event found with a page of one may not fit into a larger page.
                self.query.page_size = 1;
                self.steady = 0;
                if next == silent_from + 1 {
                    return Ok(self.restart(next));
                }
                let gap = (silent_from + 1, next - 1);
                self.record_missing("unsent", silent_from, gap, &too_large(silent_from))
                    .await?;
                Ok(self.step_to(next))
            }
        }
    }

    /// Handles a server that sends the same page again and again. The first time, the search
    /// restarts at the current time; the second time, one millisecond later.
    async fn handle_repetition(&mut self) -> Result<Next, Closed> {
        let here = self.here();
        if self.restarted != Some(here) {
            tracing::warn!(at = %time(here), "Teleport sends the same page again; restarting the \
                                              search");
            return Ok(self.restart(here));
        }
        if self.aim == Aim::Sweep {
            self.is_doubtful = true;
            return Ok(Next::End);
        }
        let error = "it keeps sending the same page of events of that millisecond";
        self.record_missing("repeated", here, (here, here), error)
            .await?;
        Ok(self.step_to(here + 1))
    }

    /// Puts events that may be missing on the books. `at` identifies the gap.
    async fn record_missing(
        &self,
        kind: &str,
        at: Millis,
        span: (Millis, Millis),
        error: &str,
    ) -> Result<(), Closed> {
        let source = &self.poller.source;
        let key = format!("{GAP}{kind}/{}", time(at));
        if source
            .gaps
            .of(&key)
            .is_some_and(|known| (known.from, known.to) == span)
        {
            return Ok(());
        }
        let gap = source.gap(
            key,
            FeedKind::Audit,
            span,
            "events".to_owned(),
            error.to_owned(),
        );
        source.note_gap(gap).await
    }

    /// Handles a refusal: retries, then requests smaller pages and shorter windows. What is left is
    /// the smallest part that the server does not return. After a while it becomes a gap, and
    /// reading goes on after it.
    async fn refused(&mut self, refusal: Refusal) -> Result<Next, Closed> {
        if self.is_grown || self.aim == Aim::Sweep {
            return Ok(Next::Refused(refusal));
        }
        let times = match &self.refusal {
            Some((last, times)) if *last == refusal => times + 1,
            _ => 1,
        };
        let problem = refusal.at(self.here());
        self.refusal = Some((refusal, times));
        let source = self.poller.source.clone();
        let here = self.here();
        let is_known = self.poller.standstill.is_at(here);
        if let Some(end) = source.end_of_gap(here) {
            // It is on the books already.
            self.query.page_size = self.page();
            return Ok(self.step_to(end + 1));
        }
        if !is_known {
            source.status.set_failure(PLACE, problem.clone());
        }
        if times < source.settings.limits.page_attempts && !is_known {
            source.pause(&mut self.backoff).await;
            return Ok(Next::Page);
        }
        self.steady = 0;
        if self.query.page_size > 1 {
            self.query.page_size /= 2;
            return Ok(Next::Page);
        }
        if let Some(to) = step::readable(&source, here, self.query.to, self.page()).await
            && self.narrowed.replace((here, to)) != Some((here, to))
        {
            self.query.to = to;
            self.query.from = here;
            self.query.key.clear();
            self.query.page_size = self.page();
            self.keys.clear();
            self.stale = 0;
            return Ok(Next::Page);
        }
        if let Some(wait) = self.poller.patience(here, &problem).await? {
            return Ok(Next::Wait(wait));
        }
        let Some(next) = self.past(here).await else {
            let then = "nothing shows that Teleport can return what comes after it";
            return Ok(Next::Wait(self.poller.wait_at(here, &problem, then, None)));
        };
        let Err(refusal) = fetch(&source, &self.query).await else {
            // The server answers again: the log is not damaged.
            return Ok(Next::Page);
        };
        let error = format!(
            "it {refusal}. A `types` list without the type of a damaged event \
             may help"
        );
        self.record_missing("refused", here, (here, next - 1), &error)
            .await?;
        self.query.page_size = self.page();
        Ok(self.step_to(next))
    }

    /// The time from which reading can go on after what is refused from `here` on. `None` if
    /// nothing shows that only a part of the log is at fault: the server must answer for later
    /// times, up to now or, since our clock may be behind, with a later event.
    async fn past(&self, here: Millis) -> Option<Millis> {
        let source = &self.poller.source;
        if let Some(next) = step::past_refusal(source, here, self.poller.local()).await {
            return Some(next);
        }
        let next = step::past_refusal(source, here, here + FAR).await?;
        let later = Query {
            from: next,
            to: next + FAR,
            any_type: true,
            ..Query::default()
        };
        let newest = step::newest(source, &later).await;
        matches!(newest, Ok(Some(_))).then_some(next)
    }

    /// The page size to request normally.
    fn page(&self) -> i32 {
        self.poller.source.settings.limits.page.max(1)
    }

    fn raise_page_size(&mut self) {
        let page = self.page();
        if self.query.page_size < page {
            self.steady += 1;
            if self.steady >= STEADY {
                self.steady = 0;
                self.query.page_size = (self.query.page_size * 2).min(page);
            }
        }
    }

    fn report_disorder(&self) {
        tracing::error!(
            from = %time(self.query.from),
            to = %time(self.query.to),
            "Teleport's events are not ordered by time although the oldest were requested first; \
             the position in this window is saved only at its end"
        );
        self.poller
            .source
            .status
            .update(|status| status.backwards += 1);
    }
}

fn too_large(after: Millis) -> String {
    format!(
        "it did not send the next event after {}, which is probably larger than a page (1 MiB)",
        time(after)
    )
}
