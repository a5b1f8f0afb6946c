//! The address of a dead letter, as `dlq` takes and prints it.

use std::fmt;
use std::str::FromStr;

use lockgate_model::Seq;
use lockgate_store::KeptLetter;

/// Names one dead letter: `siem/teleport/audit/1234` is entry 1234 of the stream `teleport/audit`
/// in the pipeline `siem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) pipeline: String,
    pub(crate) stream: String,
    pub(crate) seq: Seq,
}

impl Address {
    pub(crate) fn of(kept: &KeptLetter) -> Address {
        Address {
            pipeline: kept.pipeline.clone(),
            stream: kept.stream.clone(),
            seq: kept.letter.seq,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.pipeline, self.stream, self.seq)
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Address, &'static str> {
        let wrong =
            "a dead letter is named as `lockgate dlq list` prints it: `siem/teleport/audit/1234`";
        let (pipeline, rest) = text.split_once('/').ok_or(wrong)?;
        let (stream, seq) = rest.rsplit_once('/').ok_or(wrong)?;
        let (source, feed) = stream.split_once('/').ok_or(wrong)?;
        if [pipeline, source, feed].contains(&"") || feed.contains('/') {
            return Err(wrong);
        }
        Ok(Address {
            pipeline: pipeline.to_owned(),
            stream: stream.to_owned(),
            seq: seq.parse().map_err(|_| wrong)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn an_address_is_read_as_it_is_printed() {
        let address: Address = "siem/teleport/audit/1234".parse().unwrap();
        assert_eq!(
            (&*address.pipeline, &*address.stream, address.seq),
            ("siem", "teleport/audit", 1234)
        );
        assert_eq!(address.to_string(), "siem/teleport/audit/1234");
        for wrong in [
            "",
            "1234",
            "siem/1234",
            "siem/audit/1234",
            "siem/teleport/audit",
            "siem/teleport/audit/",
            "siem/teleport/audit/-1",
            "siem/teleport/audit/x/1",
            "/teleport/audit/1",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
