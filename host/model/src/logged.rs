//! What the log says of a failure that lasts.

use std::time::Duration;

/// The log names a failure that has become another at most once in this time. It doubles each time:
/// a message may quote something that never repeats.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// It doubles so often, to 16 minutes.
const DOUBLED: u32 = 5;

/// A failure as the log named it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedMessage {
    message: String,
    /// Since a moment that the caller chose.
    at: Duration,
    times: u32,
}

impl LoggedMessage {
    /// The log names it now.
    pub fn new(message: &str, now: Duration) -> LoggedMessage {
        LoggedMessage {
            message: message.to_owned(),
            at: now,
            times: 0,
        }
    }

    /// Whether the log has to name it again because it has become another. Then it has.
    pub fn is_due(&mut self, message: &str, now: Duration) -> bool {
        let wait = AGAIN_AFTER * 2_u32.pow(self.times.min(DOUBLED));
        if self.message == message || now < self.at + wait {
            return false;
        }
        *self = LoggedMessage {
            message: message.to_owned(),
            at: now,
            times: self.times + 1,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_becomes_another_is_logged_again_but_not_at_each_attempt() {
        let mut logged = LoggedMessage::new("refused", Duration::ZERO);
        for (second, message, is_due) in [
            (1, "refused", false),
            (29, "denied", false),
            (30, "denied", true),
            (31, "refused", false),
            (89, "refused", false),
            (90, "refused", true),
            (9000, "refused", false),
        ] {
            let now = Duration::from_secs(second);
            assert_eq!(logged.is_due(message, now), is_due, "{second}: {message}");
        }
    }

    #[test]
    fn messages_that_never_repeat_do_not_fill_the_log() {
        let mut logged = LoggedMessage::new("", Duration::ZERO);
        let day = (0..86_400).filter(|second: &u64| {
            logged.is_due(&second.to_string(), Duration::from_secs(*second))
        });
        assert_eq!(day.count(), 94);
    }
}
