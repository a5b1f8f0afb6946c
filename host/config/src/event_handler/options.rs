//! The options of the Event Handler: their names, environment variables and keys.

/// What was given on the command line, in the words of the Event Handler's `start`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandlerOptions {
    given: Vec<(&'static str, String)>,
}

/// One option, such as `fluentd-session-url`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandlerOption {
    /// Without `--`.
    pub name: &'static str,
    /// Its environment variable, as the Event Handler spells it.
    pub variable: &'static str,
}

/// Both spellings of the prefix of variables. Some of the Event Handler's variables have the
/// second one, and its documentation has the first for all.
const PREFIXES: [&str; 2] = ["FDFWD_", "FDWRD_"];

const fn option(name: &'static str, variable: &'static str) -> HandlerOption {
    HandlerOption { name, variable }
}

/// All options of `start`, and `debug`.
pub const HANDLER_OPTIONS: [HandlerOption; 29] = [
    option("debug", "FDFWD_DEBUG"),
    option("fluentd-url", "FDFWD_FLUENTD_URL"),
    option("fluentd-session-url", "FDFWD_FLUENTD_SESSION_URL"),
    option("fluentd-cert", "FDWRD_FLUENTD_CERT"),
    option("fluentd-key", "FDWRD_FLUENTD_KEY"),
    option("fluentd-ca", "FDWRD_FLUENTD_CA"),
    option("fluentd-max-connections", "FDWRD_MAX_CONNECTIONS"),
    option("teleport-addr", "FDFWD_TELEPORT_ADDR"),
    option("teleport-identity", "FDFWD_TELEPORT_IDENTITY"),
    option("teleport-refresh-enabled", "FDFWD_TELEPORT_REFRESH_ENABLED"),
    option(
        "teleport-refresh-interval",
        "FDFWD_TELEPORT_REFRESH_INTERVAL",
    ),
    option("teleport-ca", "FDFWD_TELEPORT_CA"),
    option("teleport-cert", "FDWRD_TELEPORT_CERT"),
    option("teleport-key", "FDFWD_TELEPORT_KEY"),
    option("storage", "FDFWD_STORAGE"),
    option("batch", "FDFWD_BATCH"),
    option("types", "FDFWD_TYPES"),
    option("skip-event-types", "FDFWD_SKIP_EVENT_TYPES"),
    option("skip-session-types", "FDFWD_SKIP_SESSION_TYPES"),
    option("start-time", "FDFWD_START_TIME"),
    option("timeout", "FDFWD_TIMEOUT"),
    option("dry-run", "FDFWD_DRY_RUN"),
    option("exit-on-last-event", "FDFWD_EXIT_ON_LAST_EVENT"),
    option("concurrency", "FDFWD_CONCURRENCY"),
    option("window-size", "FDFWD_WINDOW_SIZE"),
    option("lock-enabled", "FDFWD_LOCKING_ENABLED"),
    option(
        "lock-failed-attempts-count",
        "FDFWD_LOCKING_FAILED_ATTEMPTS",
    ),
    option("lock-period", "FDFWD_LOCKING_PERIOD"),
    option("lock-for", "FDFWD_LOCKING_FOR"),
];

/// Lists, for which an empty value means something: no types.
const LISTS: [&str; 3] = ["types", "skip-event-types", "skip-session-types"];

// === impl HandlerOption ===

impl HandlerOption {
    pub(super) fn named(name: &str) -> HandlerOption {
        let found = HANDLER_OPTIONS.iter().find(|option| option.name == name);
        *found.expect("every option is in the list")
    }

    /// Its variables: as the Event Handler reads it, then with the other spelling.
    pub(super) fn variables(self) -> [String; 2] {
        let rest = &self.variable[PREFIXES[0].len()..];
        let other = PREFIXES.iter().find(|it| !self.variable.starts_with(**it));
        let other = other.expect("two prefixes differ");
        [self.variable.to_owned(), format!("{other}{rest}")]
    }

    /// Its key in the file, in both forms, the preferred one first. The parts of a path are tables.
    pub(super) fn keys(self) -> [Vec<&'static str>; 2] {
        let (tables, rest) = match self.name.strip_prefix("fluentd-") {
            Some(rest) => (&["forward", "fluentd"][..], rest),
            None => (&[][..], self.name),
        };
        let of = |parts: Vec<&'static str>| [tables, &parts[..]].concat();
        [of(rest.split('-').collect()), of(vec![rest])]
    }

    /// The key as the Event Handler's own files have it, for messages.
    pub(super) fn key(self) -> String {
        let [nested, plain] = self.keys();
        let is_nested = self.name.starts_with("teleport-");
        if is_nested { nested } else { plain }.join(".")
    }

    pub(super) fn is_list(self) -> bool {
        LISTS.contains(&self.name)
    }
}

// === impl HandlerOptions ===

impl HandlerOptions {
    /// `name`: without `--`. An option that is given again adds to a list, and replaces else.
    pub fn give(&mut self, option: HandlerOption, value: impl Into<String>) {
        let value = value.into();
        let before = self.given.iter_mut().find(|(name, _)| *name == option.name);
        match before {
            Some((_, before)) if option.is_list() => *before = format!("{before},{value}"),
            Some((_, before)) => *before = value,
            None => self.given.push((option.name, value)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// The names of those that were given, in their order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.given.iter().map(|(name, _)| *name)
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let found = self.given.iter().find(|(given, _)| *given == name);
        found.map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_has_two_keys_and_two_variables() {
        for (name, keys, variables) in [
            (
                "fluentd-session-url",
                ["forward.fluentd.session.url", "forward.fluentd.session-url"],
                ["FDFWD_FLUENTD_SESSION_URL", "FDWRD_FLUENTD_SESSION_URL"],
            ),
            (
                "teleport-cert",
                ["teleport.cert", "teleport-cert"],
                ["FDWRD_TELEPORT_CERT", "FDFWD_TELEPORT_CERT"],
            ),
            (
                "skip-event-types",
                ["skip.event.types", "skip-event-types"],
                ["FDFWD_SKIP_EVENT_TYPES", "FDWRD_SKIP_EVENT_TYPES"],
            ),
        ] {
            let option = HandlerOption::named(name);
            assert_eq!(option.keys().map(|key| key.join(".")), keys);
            assert_eq!(option.variables(), variables);
        }
    }

    #[test]
    fn a_list_that_is_given_again_grows() {
        let mut options = HandlerOptions::default();
        for (name, value) in [
            ("types", "a"),
            ("types", "b,c"),
            ("batch", "1"),
            ("batch", "2"),
        ] {
            options.give(HandlerOption::named(name), value);
        }
        assert_eq!(options.value("types"), Some("a,b,c"));
        assert_eq!(options.value("batch"), Some("2"));
    }
}
