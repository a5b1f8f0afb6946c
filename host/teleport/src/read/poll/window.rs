use std::collections::HashSet;

use lockgate_backoff::Backoff;
use lockgate_model::{Day, Millis};

use super::order::Order;
use super::page::{Query, Refusal, ask};
use super::{PLACE, Poller, step};
use crate::connect::{of_proto, time};
use crate::proto::auditlog::EventsUnstructured;
use crate::{Closed, Intake};

/// Pages without a new event and without progress in time before a server is taken to go in
/// circles.
const STALE_MAX: u32 = 16;
/// The largest page that Teleport allows.
const PAGE_MAX: i32 = 10_000;
/// Pages that succeed before a limit that had to be lowered is raised again.
const STEADY: u32 = 4;

/// One window, while it is read.
pub(super) struct Window<'a, I> {
    poller: &'a mut Poller<I>,
    query: Query,
    order: Order,
    /// New events so far.
    fresh: u64,
    /// The last page came with a key although it had fewer events than asked for.
    has_more: bool,
    /// Keys that were followed within one time, and for how long that has brought nothing.
    keys: HashSet<String>,
    stale: u32,
    /// Where the window was begun again without a key: what it says of its end from there is
    /// believed.
    restarted: Option<Millis>,
    /// The last refusal, and how often it came.
    refusal: Option<(Refusal, u32)>,
    steady: u32,
    backoff: Backoff,
    /// Where nothing that the server says shows that the fault lies in the log.
    hold: Backoff,
}

/// What comes after a page.
enum Next {
    Page,
    End,
}

impl<'a, I: Intake> Window<'a, I> {
    pub(super) fn new(poller: &'a mut Poller<I>, from: Millis, to: Millis) -> Window<'a, I> {
        let limit = poller.context.settings.limits.page.max(1);
        let backoff = poller.context.backoff();
        let hold = Backoff::new(
            poller.context.settings.limits.backoff.0,
            poller.context.settings.limits.hold,
        );
        Window {
            query: Query {
                from,
                to,
                limit,
                ..Query::default()
            },
            order: Order::default(),
            fresh: 0,
            has_more: false,
            keys: HashSet::new(),
            stale: 0,
            restarted: None,
            refusal: None,
            steady: 0,
            backoff,
            hold,
            poller,
        }
    }

    /// Reads it to its end; how many of its events were new.
    pub(super) async fn read(mut self) -> Result<u64, Closed> {
        loop {
            let next = match ask(&self.poller.context, &self.query).await {
                Ok(page) => self.take(page).await?,
                Err(refusal) => self.refused(refusal).await,
            };
            if let Next::End = next {
                return Ok(self.fresh);
            }
        }
    }

    async fn take(&mut self, page: EventsUnstructured) -> Result<Next, Closed> {
        self.refusal = None;
        self.backoff.reset();
        self.hold.reset();
        self.raise_limit();
        let before = (self.fresh, self.order.latest());
        for event in &page.items {
            if self.order.note(of_proto(event.time.as_ref())) {
                self.complain();
            }
            let poller = &mut *self.poller;
            if poller.collector.push(event, Some(&mut poller.seen)) {
                self.fresh += 1;
                if self.poller.collector.is_full() {
                    let position = self.position();
                    self.poller.store(position).await?;
                }
            }
        }
        if !self.poller.collector.is_empty() {
            let position = self.position();
            self.poller.store(position).await?;
        }
        let is_stale = before == (self.fresh, self.order.latest());
        self.stale = if is_stale { self.stale + 1 } else { 0 };

        match (page.last_key, page.items.is_empty()) {
            (key, true) if key.is_empty() => Ok(self.silent().await),
            (key, false) if key.is_empty() => Ok(Next::End),
            (key, _) => Ok(self.turn(key, page.items.len())),
        }
    }

    /// The next page. It begins at the time where this one ended, and so repeats the events of that
    /// time: ties may stand otherwise in the next answer, and after a key some of them would be
    /// missing. Only within one time is the key followed, and first more is asked for at once.
    fn turn(&mut self, key: String, events: usize) -> Next {
        let here = self.here();
        self.has_more = (events as i32) < self.query.limit;
        if here > self.query.from && self.order.is_kept() {
            self.query.limit = self.query.limit.min(self.page());
            self.query.from = here;
            self.query.key.clear();
            self.keys.clear();
            self.stale = 0;
            return Next::Page;
        }
        let is_full = self.query.key.is_empty() && events as i32 >= self.query.limit;
        if is_full && self.order.is_kept() && (self.page()..PAGE_MAX).contains(&self.query.limit) {
            self.query.limit = self.query.limit.saturating_mul(4).min(PAGE_MAX);
            return Next::Page;
        }
        if self.stale >= STALE_MAX || !self.keys.insert(key.clone()) {
            return self.circling();
        }
        self.query.key = key;
        Next::Page
    }

    /// Everything before it was read, as far as the order of what came allows to say so.
    fn position(&self) -> Millis {
        let until = self.poller.until;
        match self.order.latest() {
            Some(latest) if self.order.is_kept() => until.max(latest.min(self.query.to)),
            _ => until,
        }
    }

    /// Where reading stands in this window.
    fn here(&self) -> Millis {
        self.order.latest().map_or(self.query.from, |latest| {
            latest.clamp(self.query.from, self.query.to)
        })
    }

    /// Begins again from a time, without a key.
    fn restart(&mut self, from: Millis) -> Next {
        if from > self.query.to {
            self.poller.until = self.poller.until.max(from);
            return Next::End;
        }
        self.query.from = from;
        self.query.key.clear();
        self.keys.clear();
        self.stale = 0;
        self.restarted = Some(from);
        Next::Page
    }

    /// Begins again after something that was reported as missing; it is not asked for any more.
    fn step_to(&mut self, from: Millis) -> Next {
        self.poller.floor = self.poller.floor.max(from);
        self.restart(from)
    }

    /// An empty page without a key: the end; or a key that the server lost; or an event that does
    /// not fit into a page.
    async fn silent(&mut self) -> Next {
        let here = self.here();
        let after_key = !self.query.key.is_empty();
        if after_key && (self.restarted != Some(here) || self.query.limit < PAGE_MAX) {
            // More at once may do without a key.
            self.query.limit = self.query.limit.saturating_mul(4).min(PAGE_MAX);
            return self.restart(here);
        }
        let (from, to) = (self.query.from, self.query.to);
        // A short window without an event is what the end of the log looks like, and the next one
        // overlaps it.
        let overlap = self.poller.context.settings.limits.overlap.as_millis() as Millis;
        if !after_key && self.restarted.is_none() && to - from <= 2 * overlap {
            return Next::End;
        }
        let silent_from = if after_key { here } else { from - 1 };
        match step::past_silence(&self.poller.context, silent_from, to).await {
            None => {
                // A page that was not full ended where something did not fit, and nothing after it
                // can be had.
                if after_key && self.has_more && self.poller.unsent.replace(here) != Some(here) {
                    self.poller.context.board.report(format!(
                        "Teleport did not send what stands in its log next after {}, probably an event larger than a page (1 MiB): it is \
                         missing",
                        time(here)
                    ));
                }
                Next::End
            }
            Some(next) if next == from && self.query.limit == 1 => Next::End,
            Some(next) => {
                // What was found with a limit of one may not come with a higher one.
                self.query.limit = 1;
                self.steady = 0;
                if next == silent_from + 1 {
                    return self.restart(next);
                }
                self.poller.context.board.report(format!(
                    "Teleport did not send what stands in its log between {} and {}, probably an event larger than a page (1 MiB): it is \
                     missing, reading goes on after it",
                    time(silent_from + 1),
                    time(next - 1)
                ));
                self.step_to(next)
            }
        }
    }

    /// The server goes in circles. The first time the window is begun again where it stands; the
    /// second time one millisecond later.
    fn circling(&mut self) -> Next {
        let here = self.here();
        if self.restarted != Some(here) {
            tracing::warn!(at = %time(here), "Teleport sends the same page again; restarting the search");
            return self.restart(here);
        }
        self.poller.context.board.report(format!(
            "Teleport keeps sending the same page of events at {}; continuing after that millisecond, and events in it may be \
             missing",
            time(here)
        ));
        self.step_to(here + 1)
    }

    /// The server cannot answer. After some attempts: fewer events at once, then past the place it
    /// cannot answer for.
    async fn refused(&mut self, refusal: Refusal) -> Next {
        let times = match &self.refusal {
            Some((last, times)) if *last == refusal => times + 1,
            _ => 1,
        };
        let Refusal { code, message } = refusal.clone();
        self.refusal = Some((refusal, times));
        let context = self.poller.context.clone();
        context.board.trouble(
            PLACE,
            format!(
                "Teleport answered with an error at {}: {code:?} `{message}`",
                time(self.here())
            ),
        );
        if times < context.settings.limits.page_attempts {
            context.pause(&mut self.backoff).await;
            return Next::Page;
        }
        self.steady = 0;
        if self.query.limit > 1 {
            self.query.limit /= 2;
            return Next::Page;
        }
        let here = self.here();
        let midnight = Day(Day::of(self.query.to).0.saturating_add(1)).start();
        let lag = context.settings.limits.lag.as_millis() as Millis;
        let end = (midnight - 1).min(context.now() - lag).max(self.query.to);
        // Step over a fault in the log only: the server must answer for other times.
        let next = match step::past_refusal(&context, here, end).await {
            Some(next) => next,
            None if end == midnight - 1
                && step::answers(&context, midnight, midnight + 1).await =>
            {
                midnight
            }
            None => {
                tokio::time::sleep(self.hold.next(context.settings.clock.chance())).await;
                return Next::Page;
            }
        };
        let Err(Refusal { code, message }) = ask(&context, &self.query).await else {
            // The server answers again: the log is not damaged.
            return Next::Page;
        };
        context.board.report(format!(
            "Teleport cannot return the events from {} to {} ({code:?} `{message}`). They are missing; reading continues after them. A \
             `types` list without the type of the damaged event may help",
            time(here),
            time(next - 1)
        ));
        self.query.limit = self.page();
        self.step_to(next)
    }

    /// Events asked for at once where nothing speaks against it.
    fn page(&self) -> i32 {
        self.poller.context.settings.limits.page.max(1)
    }

    fn raise_limit(&mut self) {
        let page = self.page();
        if self.query.limit < page {
            self.steady += 1;
            if self.steady >= STEADY {
                self.steady = 0;
                self.query.limit = (self.query.limit * 2).min(page);
            }
        }
    }

    fn complain(&self) {
        tracing::error!(
            from = %time(self.query.from),
            to = %time(self.query.to),
            "Teleport's events are not ordered by time although the oldest were requested first; the position in this window is saved \
             only at its end"
        );
        self.poller
            .context
            .board
            .update(|status| status.backwards += 1);
    }
}
