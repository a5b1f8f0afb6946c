//! The rows of the tables.

/// A row: one fact of the mapping.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The rule's id, for error messages.
    pub id: &'static str,
    pub op: Op,
    /// Empty for rows that write a constant.
    pub from: &'static str,
    /// Empty for rows that change or delete in place.
    pub to: &'static str,
    /// The row runs only if all of these hold.
    pub only: [Test; 2],
    pub edition: Edition,
}

/// The operation of a row. It does nothing if its source does not exist. If `Try…` or a parser
/// fails, nothing changes; if another op fails, its stage ends, and `error.message` names the row.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Fails if the target exists or one of its parents is not an object.
    Move,
    TryMove,
    /// Moves if the target is free, or else deletes the source (V2).
    Claim,
    Delete,
    Set(&'static str),
    /// Appends the constant to a list, once.
    Add(&'static str),
    /// Appends the source's text to a list, once.
    AddText,
    /// Writes the source's text.
    Copy,
    /// The literal key with a dot becomes a nested one.
    Undot,
    /// `address:port` to the role `to`, such as `client`.
    Address,
    HostPort,
    /// `80x25`, written `80:25`.
    Size,
    Time,
    /// Like `Time`, but fails if the text is not a time.
    Timestamp,
    Uri,
    Json,
    Base64,
    Int,
    TryInt,
    Str,
    /// The name of a number; other values as text.
    Label(&'static [(i64, &'static str)]),
    /// The same for each element of a list.
    LabelList(&'static [(i64, &'static str)]),
    UserAgent,
}

/// A test fails, together with its row, if it has to look inside a value that is not an object, or
/// if it needs an action and there is none.
#[derive(Clone, Copy, Debug)]
pub enum Test {
    Always,
    /// Exists and is not null.
    Has(&'static str),
    /// Absent or null.
    No(&'static str),
    IsText(&'static str),
    /// An empty object.
    Empty(&'static str),
    /// `true` or `false`.
    Is(&'static str, &'static str),
    Number(&'static str, i64),
    Says(&'static str, &'static str),
    Action(&'static str),
    ActionStarts(&'static str),
    ActionEnds(&'static str),
    ActionContains(&'static str),
}

/// The configurations that a row belongs to. All by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edition {
    /// `Some(false)`: `compat = "0.1.0"`; `Some(true)`: `compat = "1.6"`.
    pub later: Option<bool>,
    /// `Some(false)`: `quirks = true`; `Some(true)`: `quirks = false`.
    pub corrected: Option<bool>,
}

/// Values for some event types.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    pub actions: &'static [&'static str],
    pub values: &'static [&'static str],
    pub edition: Edition,
}

pub const fn row(id: &'static str, op: Op, from: &'static str, to: &'static str) -> Row {
    Row {
        id,
        op,
        from,
        to,
        only: [Test::Always; 2],
        edition: Edition {
            later: None,
            corrected: None,
        },
    }
}

pub const fn kinds(actions: &'static [&'static str], values: &'static [&'static str]) -> Kinds {
    Kinds {
        actions,
        values,
        edition: Edition {
            later: None,
            corrected: None,
        },
    }
}

impl Row {
    /// Adds a test. At most two.
    pub const fn only(mut self, test: Test) -> Row {
        let free = if matches!(self.only[0], Test::Always) {
            0
        } else {
            1
        };
        assert!(
            matches!(self.only[free], Test::Always),
            "a row has at most two tests"
        );
        self.only[free] = test;
        self
    }

    /// With `compat = "0.1.0"`.
    pub const fn first(mut self) -> Row {
        self.edition.later = Some(false);
        self
    }

    /// With `compat = "1.6"`.
    pub const fn later(mut self) -> Row {
        self.edition.later = Some(true);
        self
    }

    /// With `quirks = true`. The quirk's id is for the reader.
    pub const fn quirk(mut self, _id: &str) -> Row {
        self.edition.corrected = Some(false);
        self
    }

    /// With `quirks = false`.
    pub const fn corrected(mut self, _id: &str) -> Row {
        self.edition.corrected = Some(true);
        self
    }

    /// The literal key with dots.
    pub const fn literal_key(&self) -> Option<&'static str> {
        match self.op {
            Op::Undot => Some(self.from.split_at(1).1),
            _ => None,
        }
    }
}

impl Test {
    /// Whether the test fails if there is no action.
    pub fn needs_action(self) -> bool {
        matches!(
            self,
            Test::ActionStarts(_) | Test::ActionEnds(_) | Test::ActionContains(_)
        )
    }

    /// The path that it tests. Empty if it does not test a path.
    pub const fn path(self) -> &'static str {
        match self {
            Test::Has(path) | Test::No(path) | Test::IsText(path) | Test::Empty(path) => path,
            Test::Is(path, _) | Test::Number(path, _) | Test::Says(path, _) => path,
            _ => "",
        }
    }
}

impl Edition {
    pub fn holds(self, later: bool, corrected: bool) -> bool {
        self.later.is_none_or(|wanted| wanted == later)
            && self.corrected.is_none_or(|wanted| wanted == corrected)
    }
}

impl Kinds {
    pub const fn later(mut self) -> Kinds {
        self.edition.later = Some(true);
        self
    }

    pub const fn corrected(mut self) -> Kinds {
        self.edition.corrected = Some(true);
        self
    }

    pub fn matches(&self, action: &str) -> bool {
        let first = action.as_bytes().first();
        self.actions.iter().any(|pattern| {
            // Most differ in their first letter.
            match pattern.as_bytes().first() {
                Some(b'*') => {}
                other if other == first => {}
                _ => return false,
            }
            match pattern.split_once('*') {
                None => action == *pattern,
                Some((start, end)) => action
                    .strip_prefix(start)
                    .is_some_and(|rest| rest.ends_with(end)),
            }
        })
    }
}
