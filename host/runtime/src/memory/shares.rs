//! Who may hold how much. Pure.

use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShareId(u64);

#[derive(Debug)]
pub(super) struct Shares {
    total: usize,
    held: BTreeMap<ShareId, usize>,
    next_id: u64,
}

impl Shares {
    pub(super) fn new(total: usize) -> Shares {
        Shares {
            total,
            held: BTreeMap::new(),
            next_id: 0,
        }
    }

    pub(super) fn add(&mut self) -> ShareId {
        let id = ShareId(self.next_id);
        self.next_id += 1;
        self.held.insert(id, 0);
        id
    }

    pub(super) fn remove(&mut self, id: ShareId) {
        self.held.remove(&id);
    }

    pub(super) fn hold(&mut self, id: ShareId, bytes: usize) {
        let held = self.held.entry(id).or_default();
        *held = held.saturating_add(bytes);
    }

    pub(super) fn release(&mut self, id: ShareId, bytes: usize) {
        if let Some(held) = self.held.get_mut(&id) {
            *held = held.saturating_sub(bytes);
        }
    }

    pub(super) fn held(&self, id: ShareId) -> usize {
        self.held.get(&id).copied().unwrap_or(0)
    }

    pub(super) fn used(&self) -> usize {
        self.held.values().sum()
    }

    /// Whether a share may hold so many bytes more: as the only ones it holds, within its own part,
    /// or within what is left of the common half.
    pub(super) fn has_room(&self, id: ShareId, bytes: usize) -> bool {
        let held = self.held(id);
        let own = self.own_part();
        let after = held.saturating_add(bytes);
        if held == 0 || after <= own {
            return true;
        }
        let common = self.total - self.total / 2;
        let beyond = |held: usize| held.saturating_sub(own);
        let taken: usize = self.held.values().copied().map(beyond).sum();
        taken - beyond(held) + beyond(after) <= common
    }

    fn own_part(&self) -> usize {
        self.total / 2 / self.held.len().max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_is_divided_and_half_is_for_whoever_asks_first() {
        let mut shares = Shares::new(100);
        let (first, second) = (shares.add(), shares.add());
        shares.hold(first, 75);
        assert!(!shares.has_room(first, 1), "25 of its own, and all 50");
        shares.hold(second, 20);
        assert!(shares.has_room(second, 5) && !shares.has_room(second, 6));
        shares.release(first, 10);
        assert!(shares.has_room(second, 15) && !shares.has_room(second, 16));
    }

    proptest! {
        #[test]
        fn a_share_gets_its_part_whatever_the_others_hold(
            steps in proptest::collection::vec((0usize..6, 1usize..40, any::<bool>()), 0..200),
        ) {
            let mut shares = Shares::new(240);
            let ids: Vec<_> = (0..6).map(|_| shares.add()).collect();
            for (share, bytes, release) in steps {
                let id = ids[share];
                if release {
                    shares.release(id, bytes);
                } else if shares.has_room(id, bytes) {
                    shares.hold(id, bytes);
                }
                // 20 of 240 for each. The only excess is a share's first request.
                for &id in &ids {
                    let held = shares.held(id);
                    prop_assert!(held >= 20 || shares.has_room(id, 20 - held));
                }
                prop_assert!(shares.used() <= 240 + 6 * 20, "{shares:?}");
            }
        }
    }
}
