//! The prepared tables: paths as numbers, at compile time, and for one configuration the rows that
//! a key triggers and the kinds of each event type.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::keys::{COUNT, Key, Path};
use crate::kinds::{CATEGORIES, TYPES};
use crate::mapping::{GROUPS, INTAKE, LEFTOVERS};
use crate::row::{Kinds, Op, Row};

/// A row, and its paths.
#[derive(Debug)]
pub struct Ready {
    pub row: &'static Row,
    pub from: Path,
    pub to: Path,
    /// The paths of its tests.
    pub only: [Path; 2],
    /// The keys that trigger the row: without them it does nothing.
    triggers: [Option<Key>; 3],
}

pub static READY_INTAKE: [Ready; INTAKE.len()] = ready(INTAKE);
static READY_GROUPS: [Ready; GROUPS.len()] = ready(GROUPS);
static READY_LEFTOVERS: [Ready; LEFTOVERS.len()] = ready(LEFTOVERS);

/// Rows by number. The tables have fewer than 512.
#[derive(Clone, Copy, Debug, Default)]
pub struct Active([u64; 8]);

/// Words for `event.category` or `event.type`.
pub type Words = Option<&'static [&'static str]>;

#[derive(Debug)]
pub struct Rules {
    /// All rows of this configuration, in order.
    pub rows: Vec<&'static Ready>,
    /// Where the leftovers begin.
    pub leftovers: usize,
    /// `compat = "1.6"`.
    pub later: bool,
    /// `quirks = false`.
    pub corrected: bool,
    /// Rows that fail if there is no action.
    without_action: Active,
    /// The rows that keys trigger, key by key.
    woken: Vec<u16>,
    /// Start of each key's rows in `woken`.
    starts: Vec<u16>,
    /// A cache. There are few event types, and searching the tables takes longer than all the rest.
    kinds: RefCell<BTreeMap<String, (Words, Words)>>,
}

/// Most cached event types, because their names are foreign.
const CACHE_MAX: usize = 512;

impl Rules {
    pub fn new(later: bool, corrected: bool) -> Rules {
        let wanted = |ready: &&Ready| ready.row.edition.holds(later, corrected);
        let mut rows: Vec<&'static Ready> = READY_GROUPS.iter().filter(wanted).collect();
        let leftovers = rows.len();
        rows.extend(READY_LEFTOVERS.iter().filter(wanted));

        let mut starts = vec![0; COUNT + 1];
        rows.iter()
            .flat_map(|ready| ready.triggers())
            .for_each(|key| starts[key.number() + 1] += 1);
        for key in 0..COUNT {
            starts[key + 1] += starts[key];
        }
        let mut woken = vec![0; usize::from(starts[COUNT])];
        let mut free = starts.clone();
        let mut without_action = Active::default();
        for (number, ready) in rows.iter().enumerate() {
            if ready.row.only.iter().any(|test| test.needs_action()) {
                without_action.add(number);
            }
            for key in ready.triggers() {
                let place = &mut free[key.number()];
                woken[usize::from(*place)] = number as u16;
                *place += 1;
            }
        }
        Rules {
            rows,
            leftovers,
            later,
            corrected,
            without_action,
            woken,
            starts,
            kinds: RefCell::default(),
        }
    }

    /// Activates the rows of a key.
    #[inline]
    pub fn wake(&self, key: Key, active: &mut Active) {
        let of = |key: usize| usize::from(self.starts[key]);
        for row in &self.woken[of(key.number())..of(key.number() + 1)] {
            active.add(usize::from(*row));
        }
    }

    /// Activates the rows that fail without an action.
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
            let row = table
                .iter()
                .rev()
                .find(|row| row.edition.holds(self.later, self.corrected) && row.matches(action));
            row.map(|row| row.values)
                .filter(|values| !values.is_empty())
        };
        let found = (find(CATEGORIES), find(TYPES));
        let mut kinds = self.kinds.borrow_mut();
        if kinds.len() < CACHE_MAX {
            kinds.insert(action.to_owned(), found);
        }
        found
    }
}

impl Ready {
    const fn of(row: &'static Row) -> Ready {
        let (from, to) = (Path::of(row.from), Path::of(row.to));
        let only = [Path::of(row.only[0].path()), Path::of(row.only[1].path())];
        let source = match (row.op, row.literal_key()) {
            (Op::Undot, Some(literal)) => Some(Key::of(literal)),
            _ if from.inside => from.first(),
            _ => None,
        };
        let triggers = [
            source,
            tested(&only[0], source.is_none()),
            tested(&only[1], source.is_none()),
        ];
        Ready {
            row,
            from,
            to,
            only,
            triggers,
        }
    }

    pub fn triggers(&self) -> impl Iterator<Item = Key> {
        self.triggers.iter().copied().flatten()
    }
}

/// A test of a key itself cannot fail; a test inside it can, even if the source is absent.
const fn tested(path: &Path, no_source: bool) -> Option<Key> {
    if path.inside && (path.length() > 1 || no_source) {
        path.first()
    } else {
        None
    }
}

const fn ready<const N: usize>(rows: &'static [Row]) -> [Ready; N] {
    const NONE: Option<Key> = None;
    let mut all = [const {
        Ready {
            row: &INTAKE[0],
            from: Path::of(""),
            to: Path::of(""),
            only: [Path::of(""), Path::of("")],
            triggers: [NONE; 3],
        }
    }; N];
    let mut at = 0;
    while at < N {
        all[at] = Ready::of(&rows[at]);
        at += 1;
    }
    all
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_fit_and_every_row_can_be_triggered() {
        for (later, corrected) in [(false, false), (false, true), (true, false), (true, true)] {
            let rules = Rules::new(later, corrected);
            assert!(rules.rows.len() < 512, "{}", rules.rows.len());
            for (number, ready) in rules.rows.iter().enumerate() {
                let row = ready.row;
                assert!(
                    row.from.is_empty() == matches!(row.op, Op::Set(_) | Op::Add(_)),
                    "{}",
                    row.id
                );
                let key = ready
                    .triggers()
                    .next()
                    .unwrap_or_else(|| panic!("nothing triggers {}", row.id));
                let mut active = Active::default();
                rules.wake(key, &mut active);
                assert_eq!(active.next(number, number + 1), Some(number), "{}", row.id);
            }
        }
    }
}
