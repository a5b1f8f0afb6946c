//! The tables, made ready for one configuration: which rows a key sets off, and the kinds of an event type.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::kinds::{CATEGORIES, TYPES};
use crate::mapping::{GROUPS, LEFTOVERS};
use crate::row::{Kinds, Row, Test};

/// Rows by number. The tables have fewer than 512.
#[derive(Clone, Copy, Debug, Default)]
pub struct Active([u64; 8]);

/// Words for `event.category` or `event.type`.
pub type Words = Option<&'static [&'static str]>;

#[derive(Debug)]
pub struct Rules {
    /// All rows of this configuration, in order.
    pub rows: Vec<&'static Row>,
    /// Where the leftovers begin.
    pub leftovers: usize,
    /// `compat = "1.6"`.
    pub later: bool,
    /// `quirks = false`.
    pub mended: bool,
    /// Rows that fail where there is no action, whatever else is there.
    without_action: Active,
    /// An open hash table from a key to the rows it sets off.
    slots: Vec<Option<(&'static str, Vec<u16>)>>,
    /// There are few event types, and looking one up in the tables takes longer than all the rest.
    kinds: RefCell<BTreeMap<String, (Words, Words)>>,
}

const SLOTS: usize = 1024;

/// Event types that are remembered at most: their names are foreign.
const REMEMBERED: usize = 512;

impl Rules {
    pub fn new(later: bool, mended: bool) -> Rules {
        let wanted = |row: &&Row| row.edition.holds(later, mended);
        let mut rows: Vec<_> = GROUPS.iter().filter(wanted).collect();
        let leftovers = rows.len();
        rows.extend(LEFTOVERS.iter().filter(wanted));
        let mut rules = Rules {
            rows,
            leftovers,
            later,
            mended,
            without_action: Active::default(),
            slots: vec![None; SLOTS],
            kinds: RefCell::default(),
        };
        for (number, row) in rules.rows.clone().into_iter().enumerate() {
            if row.only.into_iter().any(Test::needs_action) {
                rules.without_action.add(number);
            }
            for key in row.triggers() {
                rules.trigger(key, number);
            }
        }
        rules
    }

    /// Sets off the rows of a key.
    pub fn wake(&self, key: &str, active: &mut Active) {
        let mut at = slot(key);
        while let Some((name, rows)) = &self.slots[at] {
            if *name == key {
                rows.iter().for_each(|row| active.add(usize::from(*row)));
                return;
            }
            at = (at + 1) % SLOTS;
        }
    }

    /// Sets off what fails in an event that has no action.
    pub fn wake_without_action(&self, active: &mut Active) {
        for (word, more) in active.0.iter_mut().zip(self.without_action.0) {
            *word |= more;
        }
    }

    /// `event.category` and `event.type`.
    pub fn kinds(&self, action: &str) -> (Words, Words) {
        if let Some(known) = self.kinds.borrow().get(action) {
            return *known;
        }
        let find = |table: &'static [Kinds]| -> Words {
            let row = table.iter().rev().find(|row| row.edition.holds(self.later, self.mended) && row.matches(action));
            row.map(|row| row.values).filter(|values| !values.is_empty())
        };
        let found = (find(CATEGORIES), find(TYPES));
        let mut kinds = self.kinds.borrow_mut();
        if kinds.len() < REMEMBERED {
            kinds.insert(action.to_owned(), found);
        }
        found
    }

    fn trigger(&mut self, key: &'static str, row: usize) {
        let Ok(row) = u16::try_from(row) else { return };
        let mut at = slot(key);
        loop {
            match &mut self.slots[at] {
                Some((name, rows)) if *name == key => {
                    if rows.last() != Some(&row) {
                        rows.push(row);
                    }
                    return;
                }
                Some(_) => at = (at + 1) % SLOTS,
                free => {
                    *free = Some((key, vec![row]));
                    return;
                }
            }
        }
    }
}

impl Active {
    fn add(&mut self, row: usize) {
        self.0[row / 64] |= 1 << (row % 64);
    }

    /// The first row from `from` on and before `end`.
    pub fn next(&self, from: usize, end: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.0.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.0.get(word)?;
        }
        let row = word * 64 + bits.trailing_zeros() as usize;
        (row < end).then_some(row)
    }
}

/// A key's place in the table: its ends and its length tell Teleport's names apart well enough.
fn slot(key: &str) -> usize {
    let bytes = key.as_bytes();
    let (start, end) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(start), Some(end)) => (u64::from_le_bytes(*start), u64::from_le_bytes(*end)),
        _ => bytes.iter().fold((0, 0), |(start, _), byte| (start << 8 | u64::from(*byte), 0)),
    };
    let mixed = (start ^ end.rotate_left(29) ^ bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 54) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Op;

    #[test]
    fn the_tables_fit_and_every_row_can_be_set_off() {
        for (later, mended) in [(false, false), (false, true), (true, false), (true, true)] {
            let rules = Rules::new(later, mended);
            assert!(rules.rows.len() < 512, "{}", rules.rows.len());
            assert!(rules.slots.iter().flatten().count() < SLOTS / 2);
            for row in &rules.rows {
                assert!(row.triggers().next().is_some(), "{}", row.id);
                assert!(row.from.is_empty() == matches!(row.op, Op::Set(_) | Op::Add(_)), "{}", row.id);
            }
        }
    }
}
