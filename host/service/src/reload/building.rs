//! Builds the pipelines of a reload, and waits for memory that the others have.

use std::collections::HashMap;
use std::pin::{Pin, pin};

use lockgate_config::{Issue, Issues, Pipeline};
use lockgate_model::contract::{CallError, Holder};
use lockgate_runtime::Room;
use tokio::time::{Sleep, sleep, timeout};

use crate::build::{BuiltPipeline, PipelineBuilder, Unbuilt};
use crate::limits::{RELOAD_MEMORY_WAIT, START_INTERVAL};
use crate::status::Board;

/// The message names no more of those that have memory.
const HOLDERS_NAMED: usize = 3;

/// Builds them one after the other: those that run need the processor. One that finds no memory is
/// tried again, as at a start, but not for ever: whoever asked for the reload waits for the answer.
pub(super) async fn build_all(
    pipelines: impl Iterator<Item = &Pipeline>,
    can_look_up: bool,
    builder: &PipelineBuilder,
    board: &Board,
    issues: &mut Issues,
) -> HashMap<String, BuiltPipeline> {
    let mut built = HashMap::new();
    let mut patience = pin!(sleep(RELOAD_MEMORY_WAIT));
    for pipeline in pipelines {
        let mut has_waited = false;
        let mut room = None;
        loop {
            let outcome = builder.build(pipeline, can_look_up, issues, |_| {}).await;
            drop(room.take());
            let why = match outcome {
                Ok(one) => {
                    built.insert(pipeline.name.clone(), one);
                    break;
                }
                Err(Unbuilt::Reported | Unbuilt::Files(_)) => break,
                Err(Unbuilt::NoRoom(why)) => why,
            };
            let holders = holders_text(&builder.memory_holders(), &pipeline.name);
            // A file with problems is refused whatever room there is.
            let waits = !issues.has_problems() && !patience.is_elapsed();
            if waits && !has_waited {
                has_waited = true;
                tracing::warn!(
                    pipeline = pipeline.name,
                    "the reload waits for memory: {why}{holders}"
                );
            }
            let waits_for = format!(
                "memory for the pipeline `{}`: {why}{holders}",
                pipeline.name
            );
            board.configuration(|status| {
                status.reloading_waits_for = waits.then_some(waits_for);
            });
            if waits {
                room = wait_for_room(builder, &why, patience.as_mut()).await;
                if !patience.is_elapsed() {
                    continue;
                }
            }
            let within = match has_waited {
                true => format!(" within {} s", RELOAD_MEMORY_WAIT.as_secs()),
                false => String::new(),
            };
            issues.push(Issue::new(
                pipeline.span.clone(),
                format!(
                    "This pipeline cannot be prepared{within} while the others run: {why}{holders}."
                ),
                "its components",
                "reload again when others have released memory, or raise `memory` in `[limits]` and \
                 restart the host",
            ));
            break;
        }
        board.configuration(|status| status.reloading_waits_for = None);
    }
    built
}

/// Waits until there may be room, or the time is up. The room has to live until the components
/// have been tried again.
async fn wait_for_room(
    builder: &PipelineBuilder,
    why: &CallError,
    patience: Pin<&mut Sleep>,
) -> Option<Room> {
    let room = async {
        match why {
            CallError::NoRoom(shortage) => {
                let found = timeout(START_INTERVAL, builder.room_for(shortage.clone()));
                found.await.ok()
            }
            _ => {
                sleep(START_INTERVAL).await;
                None
            }
        }
    };
    tokio::select! {
        room = room => room,
        () = patience => None,
    }
}

/// Who has most of the memory, as the end of a sentence. `own`: the pipeline that finds none.
fn holders_text(holders: &[Holder], own: &str) -> String {
    let others = holders.iter().filter(|holder| *holder.pipeline != *own);
    let named = others.take(HOLDERS_NAMED).map(|holder| {
        let mib = holder.bytes.div_ceil(1 << 20);
        format!("`{}`, {}, {mib} MiB", holder.pipeline, holder.stage)
    });
    let named: Vec<String> = named.collect();
    match named.as_slice() {
        [] => String::new(),
        named => format!(" (most of it: {})", named.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_components_that_have_most_of_the_memory_are_named() {
        let holder = |(pipeline, mib): (&str, usize)| Holder {
            pipeline: pipeline.into(),
            stage: "stage 1 (x)".into(),
            bytes: mib << 20,
        };
        let all = [("new", 50), ("a", 40), ("b", 30), ("c", 20), ("d", 10)].map(holder);
        assert_eq!(
            holders_text(&all, "new"),
            " (most of it: `a`, stage 1 (x), 40 MiB; `b`, stage 1 (x), 30 MiB; `c`, stage 1 (x), \
             20 MiB)"
        );
        assert_eq!(holders_text(&all[..1], "new"), "");
    }
}
