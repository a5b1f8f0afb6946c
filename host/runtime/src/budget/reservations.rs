//! Memory that is reserved for the quick calls of a pipeline, so that calls that do not fit into
//! the memory together share the time, and do not take turns call by call.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lockgate_model::contract::Shortage;
use tokio::time::Instant;

use super::waiting::Waiting;
use super::{Account, InstanceMemory, PipelineName, is_large};
use crate::limits::{RESERVED_FROM_QUICK_MAX, RESERVED_UNUSED_MAX};

/// Memory that others leave to the quick calls of a pipeline, for as long as they have kept these
/// waiting before.
#[derive(Debug)]
pub(super) struct Reservation {
    /// What one of the quick calls needs.
    bytes: usize,
    /// From the slow calls of others.
    from_slow: Period,
    /// From the quick calls of others. It is short: these end soon.
    from_quick: Period,
    /// Since when the pipeline has had no instance in use.
    unused_since: Option<Instant>,
}

/// For how long the calls of others leave memory to a pipeline.
#[derive(Debug)]
struct Period {
    /// Since when the others have kept it waiting, if they do now.
    waits_since: Option<Instant>,
    ends: Instant,
}

impl Period {
    /// `longest`: it lasts no longer than this.
    fn update(&mut self, now: Instant, waits: bool, longest: Duration) {
        match (waits, self.waits_since) {
            (true, None) => self.waits_since = Some(now),
            (false, Some(since)) => {
                // While it waits, the time that is left does not pass.
                let left = self.ends.saturating_duration_since(since);
                self.ends = now + (left + (now - since)).min(longest);
                self.waits_since = None;
            }
            _ => {}
        }
    }
}

impl Reservation {
    /// When slow or quick calls may take the memory again, if the pipeline goes on as it does now.
    fn ends(&self, is_slow: bool) -> Instant {
        let ends = match is_slow {
            true => self.from_slow.ends,
            false => self.from_quick.ends,
        };
        let unused = self.unused_since.map(|since| since + RESERVED_UNUSED_MAX);
        unused.map_or(ends, |unused| unused.min(ends))
    }
}

impl InstanceMemory {
    /// Begins and ends reservations.
    pub(super) fn update_reservations(&self, account: &mut Account) {
        if account.reservations.is_empty() && account.waiting.is_empty() {
            return;
        }
        let now = Instant::now();
        let waiting = self.kept_waiting(account);
        for (pipeline, (bytes, _)) in &waiting {
            let begun = |ends| Period {
                waits_since: None,
                ends,
            };
            let reservation = account.reservations.entry(pipeline.clone());
            let reservation = reservation.or_insert(Reservation {
                bytes: *bytes,
                from_slow: begun(now),
                from_quick: begun(now),
                unused_since: None,
            });
            reservation.bytes = *bytes;
        }
        let pipelines = account.reservations.keys();
        let in_use = pipelines.filter(|pipeline| account.in_use_by(pipeline) > 0);
        let in_use: BTreeSet<PipelineName> = in_use.cloned().collect();
        // Those that wait no longer, and have got nothing, have left.
        let promises = &account.promises;
        account.reservations.retain(|pipeline, reservation| {
            let has_waited = reservation.from_quick.waits_since.is_some();
            let is_promised = promises.iter().any(|promise| promise.to == *pipeline);
            let is_waiting = waiting.contains_key(pipeline);
            !has_waited || is_promised || is_waiting || in_use.contains(pipeline)
        });
        for (pipeline, reservation) in &mut account.reservations {
            let waits = waiting.get(pipeline);
            let waits_for_slow = waits.is_some_and(|(_, by_slow)| *by_slow);
            reservation
                .from_slow
                .update(now, waits_for_slow, Duration::MAX);
            reservation
                .from_quick
                .update(now, waits.is_some(), RESERVED_FROM_QUICK_MAX);
            match waits.is_some() || in_use.contains(pipeline) {
                true => reservation.unused_since = None,
                false => _ = reservation.unused_since.get_or_insert(now),
            }
        }
        let is_needed = |one: &Reservation| {
            let ends = one.ends(false).max(one.ends(true));
            one.from_quick.waits_since.is_some() || ends > now
        };
        (account.reservations).retain(|_, reservation| is_needed(reservation));
        let reservations = account.reservations.values();
        let ends = reservations.flat_map(|one| [one.ends(false), one.ends(true)]);
        let next = ends.filter(|&ends| ends > now).min();
        self.reservation_ends
            .send_if_modified(|ends| std::mem::replace(ends, next) != next);
    }

    /// Whether a call fits into the memory together with the quick ones that some of it is
    /// reserved for.
    pub(super) fn fits_beside_reserved(&self, account: &Account, shortage: &Shortage) -> bool {
        let needs = shortage.needs;
        let pipeline = &shortage.holder.pipeline;
        let reservations = account.reservations_beside(pipeline, shortage.is_slow);
        let taken: usize = reservations.map(|(_, one)| one.bytes).sum();
        taken == 0 || taken + needs + self.kept_for_smaller(account, needs, taken) <= self.total
    }

    /// The pipelines with quick calls that others keep waiting, the most that one of these calls
    /// needs, and whether one would have room if it were not for slow ones.
    fn kept_waiting(&self, account: &Account) -> BTreeMap<PipelineName, (usize, bool)> {
        let by_slow = account.slow + account.exempt.as_ref().map_or(0, |exempt| exempt.bytes);
        let mut kept_waiting: BTreeMap<PipelineName, (usize, bool)> = BTreeMap::new();
        for Waiting { shortage, .. } in &account.waiting {
            let (needs, pipeline) = (shortage.needs, &shortage.holder.pipeline);
            if shortage.is_slow || !is_large(needs) {
                continue;
            }
            let Some(promised) = account.promised_by_quick(pipeline, needs) else {
                continue;
            };
            let others = account.in_use() - account.in_use_by(pipeline)
                + account.promised_to_others(pipeline, needs, false);
            // Otherwise only its own calls are in the way.
            if others + needs + self.kept_for_smaller(account, needs, others) <= self.total {
                continue;
            }
            let by_quick = promised + account.reserved_for_others(pipeline, false);
            let taken = account.in_use() - by_slow + by_quick;
            let kept = self.kept_for_smaller(account, needs, taken);
            let (most, has_room) = kept_waiting.entry(pipeline.clone()).or_default();
            *most = needs.max(*most);
            *has_room |= taken + needs + kept <= self.total;
        }
        kept_waiting
    }
}

impl Account {
    /// An instance of this pipeline is in use, and has memory.
    pub(super) fn note_use(&mut self, pipeline: &PipelineName) {
        if let Some(reservation) = self.reservations.get_mut(pipeline) {
            reservation.unused_since = None;
        }
    }

    /// Bytes that slow calls of a pipeline must leave to others, because they are reserved, and not
    /// in use or promised yet.
    pub(super) fn reserved_for_others(&self, pipeline: &PipelineName, is_slow: bool) -> usize {
        let reservations = self.reservations_beside(pipeline, is_slow);
        reservations
            .map(|(one, reservation)| {
                let promised = self.promise_to(one).map_or(0, |promise| promise.bytes);
                let has = promised.max(self.in_use_by(one));
                reservation.bytes.saturating_sub(has)
            })
            .sum()
    }

    /// What is reserved for others than this pipeline now.
    fn reservations_beside(
        &self,
        pipeline: &PipelineName,
        is_slow: bool,
    ) -> impl Iterator<Item = (&PipelineName, &Reservation)> {
        let now = (!self.reservations.is_empty()).then(Instant::now);
        let all = self.reservations.iter();
        all.filter(move |(one, reservation)| {
            *one != pipeline && Some(reservation.ends(is_slow)) > now
        })
    }
}
