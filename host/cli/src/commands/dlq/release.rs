//! `lockgate dlq release`, which asks the running host.

use clap::Args;
use lockgate_admin::control::Request;

use super::holder;
use crate::failure::Failure;
use crate::place::Place;
use crate::print;

#[derive(Debug, Args)]
pub(crate) struct Release {
    /// The pipeline.
    pipeline: String,

    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(command: &Release) -> Result<(), Failure> {
    let directory = command.place.directory()?;
    let request = Request::Release {
        pipeline: command.pipeline.clone(),
    };
    match holder::call(&directory, &request)? {
        Some(message) => print::data(&format!("{message}\n")),
        None => match command.place.missing(&command.pipeline)? {
            Some(failure) => Err(failure),
            None => Err(command.place.no_host(&directory)),
        },
    }
}
