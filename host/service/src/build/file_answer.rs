//! Whether a sink makes do with the answer that a file gives: 200, and an empty body. One that
//! does not would have each request appended again and again.

use std::sync::Arc;

use bytes::Bytes;
use lockgate_config::{Issue, Issues, Pipeline};
use lockgate_model::contract::{BatchContext, Inspect};
use lockgate_model::request::{Classification, Disposition, Method, Response, Sent};
use lockgate_runtime::Queue;

use super::Unbuilt;
use crate::components::classify;
use crate::plugins::BoundSink;

/// Asks the sink, if it inspects such answers at all.
pub(super) async fn check(
    queue: &Queue,
    sink: BoundSink,
    pipeline: &Pipeline,
    issues: &mut Issues,
) -> Result<(), Unbuilt> {
    if pipeline.sink.files.is_none() || sink.sink.setup().inspect != Inspect::Always {
        return Ok(());
    }
    let info = BatchContext {
        id: "check".into(),
        pipeline: pipeline.name.as_str().into(),
        source: "check".into(),
        read_at: 0,
    };
    let sent = Sent {
        method: Method::Post,
        path_suffix: String::new(),
        tag: String::new(),
        carries: vec![0],
    };
    let response = Response {
        status: 200,
        headers: Vec::new(),
        body: Bytes::new(),
        truncated: false,
        retry_after: None,
        place: None,
    };
    let is_delivered = match classify(queue, sink, info, sent, Arc::new(response)).await {
        Ok(Classification::ByStatus | Classification::Delivered) => true,
        Ok(Classification::Mixed(dispositions)) => {
            let mut dispositions = dispositions.iter();
            dispositions.all(|(_, it)| *it == Disposition::Delivered)
        }
        Ok(_) => false,
        // It may depend on the request.
        Err(_) => true,
    };
    if is_delivered {
        return Ok(());
    }
    let plugin = &pipeline.sink.plugin;
    let message = format!(
        "`{}` reads in the answer what was delivered, and a file gives none.",
        plugin.name
    );
    let hint = "use a sink that goes by the status of an answer, such as `builtin:http` with \
                `format = \"lines\"` and without `success`";
    let issue = Issue::new(plugin.span.clone(), message, "this sink", hint);
    issues.push(issue.also(pipeline.sink.url_span.clone(), "a file"));
    Err(Unbuilt::Reported)
}
