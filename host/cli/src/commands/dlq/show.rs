//! `lockgate dlq show`.

use clap::Args;
use lockgate_model::escape;
use lockgate_store::KeptLetter;
use serde_json::Value;

use super::address::Address;
use super::fate::not_a_letter;
use super::rfc3339;
use crate::failure::Failure;
use crate::place::Place;
use crate::print;

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// As `lockgate dlq list` prints it, such as `siem/teleport/audit/1234`.
    #[arg(value_name = "DEAD_LETTER")]
    address: Address,

    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(command: &Show) -> Result<(), Failure> {
    let Address {
        pipeline,
        stream,
        seq,
    } = &command.address;
    let inspector = command.place.inspector()?;
    let found = inspector.dead_letter(pipeline, stream, *seq);
    match found.map_err(Failure::failed)? {
        Some(kept) => print::data(&text(&command.address, &kept)),
        None => Err(not_a_letter(&inspector, &command.address)),
    }
}

fn text(address: &Address, kept: &KeptLetter) -> String {
    let letter = &kept.letter;
    let mut text = format!("{address}\n");
    for (name, value) in [
        ("since", rfc3339(kept.at)),
        ("cause", escape(&letter.cause, usize::MAX).into_owned()),
        ("reason", escape(&letter.reason, usize::MAX).into_owned()),
        ("type", escape(&letter.event_type, usize::MAX).into_owned()),
        ("code", escape(&letter.code, usize::MAX).into_owned()),
        ("time", rfc3339(letter.time)),
        ("read", rfc3339(letter.read_at)),
        ("session", escape(&letter.session, usize::MAX).into_owned()),
        ("key", escape(&letter.key, usize::MAX).into_owned()),
        ("generation", kept.generation.to_string()),
    ] {
        if !value.is_empty() {
            text += &format!("{name:10}  {value}\n");
        }
    }
    text.push('\n');
    let event: Option<Value> = if letter.raw {
        None
    } else {
        serde_json::from_slice(&letter.payload).ok()
    };
    match event {
        Some(event) => text += &format!("{event:#}\n"),
        None if letter.payload.is_empty() => text += "The event is not kept.\n",
        None => {
            text += &format!(
                "The event is not JSON. `lockgate dlq export` writes its {} bytes as base64.\n",
                letter.payload.len()
            );
        }
    }
    text
}
