//! Numbers with bounds, read from TOML.

use std::time::Duration;

use lockgate_model::show_size;

use crate::units::{self, UnitIssue};

/// A plain whole number.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Count(pub u64);

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Bytes(pub u64);

/// A share of a whole, in thousandths: `"1%"` is 10.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Share(pub u32);

/// The default of a key, and its bounds, which are inclusive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds<Q> {
    pub default: Q,
    pub least: Q,
    pub most: Q,
}

/// A quantity that TOML holds as a whole number, or as a string with a unit.
pub(crate) trait Quantity: Copy + PartialOrd {
    /// Completes "must be", for example "a duration".
    const WHAT: &'static str;
    /// The units that messages list. Empty: the quantity is a plain number.
    const UNITS: &'static str;
    fn of_number(number: u64) -> Option<Self>;
    /// What a number with a fraction may have been meant as.
    fn of_fraction(_: f64) -> Vec<Self> {
        Vec::new()
    }
    fn of_text(text: &str) -> Result<Self, UnitIssue>;
    /// As TOML writes it.
    fn show(self) -> String;
}

impl Quantity for Count {
    const WHAT: &'static str = "a whole number";
    const UNITS: &'static str = "";
    fn of_number(number: u64) -> Option<Self> {
        Some(Count(number))
    }
    fn of_text(text: &str) -> Result<Self, UnitIssue> {
        text.trim()
            .parse()
            .map(Count)
            .map_err(|_| UnitIssue::NoNumber)
    }
    fn show(self) -> String {
        self.0.to_string()
    }
}

impl Quantity for Bytes {
    const WHAT: &'static str = "a size";
    const UNITS: &'static str = units::SIZE_UNITS;
    fn of_number(_: u64) -> Option<Self> {
        None
    }
    fn of_text(text: &str) -> Result<Self, UnitIssue> {
        units::size(text).map(Bytes)
    }
    fn show(self) -> String {
        format!("\"{}\"", show_size(self.0))
    }
}

impl Quantity for Share {
    const WHAT: &'static str = "a percentage";
    const UNITS: &'static str = units::SHARE_UNITS;
    fn of_number(_: u64) -> Option<Self> {
        None
    }
    /// Of one, or of a hundred: `0.5` may stand for `"50%"` or `"0.5%"`.
    fn of_fraction(number: f64) -> Vec<Self> {
        let thousandths = [number * 1000.0, number * 10.0].map(|it| (it, it.round()));
        let shares = thousandths.into_iter().filter(|(exact, round)| {
            (1.0..=1000.0).contains(round) && (exact - round).abs() < 1e-6
        });
        shares.map(|(_, round)| Share(round as u32)).collect()
    }
    fn of_text(text: &str) -> Result<Self, UnitIssue> {
        units::share(text).map(Share)
    }
    fn show(self) -> String {
        format!("\"{}\"", units::show_share(self.0))
    }
}

impl Quantity for Duration {
    const WHAT: &'static str = "a duration";
    const UNITS: &'static str = units::TIME_UNITS;
    fn of_number(_: u64) -> Option<Self> {
        None
    }
    fn of_text(text: &str) -> Result<Self, UnitIssue> {
        units::duration(text)
    }
    fn show(self) -> String {
        format!("\"{}\"", units::show_duration(self))
    }
}
