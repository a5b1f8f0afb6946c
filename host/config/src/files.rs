//! Sinks whose `url` names a file: what else makes sense next to it.

use std::time::Duration;

use lockgate_model::{FileTarget, FileTargetError};

use crate::defaults::{ROTATE_AGE, ROTATE_BYTES};
use crate::issues::Issue;
use crate::pipeline::Pipeline;
use crate::reading::Reading;
use crate::table::Table;
use crate::value::Value;

/// `url` and `session-url`, if they name files. Both do, or neither does.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    pub url: FileTarget,
    pub session_url: Option<FileTarget>,
    pub rotate: Rotate,
}

/// `rotate`: when a file is closed and another begins. Default: when its path changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotate {
    /// The most bytes of a file.
    pub bytes: Option<u64>,
    pub age: Option<Duration>,
}

impl Files {
    /// All that is written to.
    pub fn targets(&self) -> impl Iterator<Item = &FileTarget> {
        [Some(&self.url), self.session_url.as_ref()]
            .into_iter()
            .flatten()
    }
}

/// Keys that say how to reach a server, and mean nothing to a file.
const OF_SERVERS: [&str; 7] = [
    "tls",
    "headers",
    "allow-headers",
    "auth",
    "allow-plaintext",
    "proxy",
    "allow-link-local",
];

/// What a URL names.
pub(crate) enum Named {
    Server,
    File(FileTarget),
    /// A file, by a URL whose problem is reported.
    Unusable,
}

impl Named {
    fn is_file(&self) -> bool {
        !matches!(self, Named::Server)
    }
}

/// Whether a URL names a file; its problem is reported.
pub(crate) fn named(r: &mut Reading<'_>, value: &Value<'_>, url: &str) -> Named {
    match FileTarget::parse(url) {
        None => Named::Server,
        Some(Ok(target)) => Named::File(target),
        Some(Err(error)) => {
            r.issue(Issue::new(
                value.key_span.clone(),
                format!("`{}` {error}.", value.path),
                "",
                hint(error),
            ));
            Named::Unusable
        }
    }
}

fn hint(error: FileTargetError) -> &'static str {
    match error {
        FileTargetError::Placeholder => {
            "`{date}` and `{hour}` are those of the time of writing; in place of others, let \
             several pipelines with filters write to several files"
        }
        FileTargetError::Character => {
            "write `%20` for a space, `%25` for `%`, `%7B` and `%7D` for braces"
        }
        _ => {
            "write an absolute path after `file://`, such as \
             `file:///var/log/teleport/{date}.ndjson`, or `-` for standard output"
        }
    }
}

/// Reads `rotate`, and checks that all keys of the table agree with what `url` and `session-url`
/// name. `None`: it is not given, or it cannot be read.
pub(crate) fn read(
    r: &mut Reading<'_>,
    table: &mut Table<'_>,
    url: Option<Named>,
    session_url: Option<(&Value<'_>, Named)>,
    compresses: bool,
) -> Option<Files> {
    let rotate_value = table.optional("rotate");
    let rotate = rotate_value.as_ref().map(|value| rotate(r, value));
    if let (Some(url), Some((value, session_url))) = (&url, &session_url)
        && url.is_file() != session_url.is_file()
    {
        r.issue(Issue::new(
            value.key_span.clone(),
            format!(
                "`{}` and `url` must both name files, or both servers.",
                value.path
            ),
            "not of the same kind",
            "send session recordings by a pipeline of their own",
        ));
        return None;
    }
    let no_effect = |r: &mut Reading<'_>, value: &Value<'_>, why: &str, hint: &str| {
        let message = format!("`{}` has no effect: {why}.", value.path);
        r.issue(Issue::new(
            value.key_span.clone(),
            message,
            "no effect",
            hint,
        ));
    };
    let url = match url {
        Some(Named::File(url)) => url,
        Some(Named::Server) => {
            if let Some(value) = &rotate_value {
                let hint = "write `file:///…` in `url`, or remove `rotate`";
                no_effect(r, value, "`url` is not a file", hint);
            }
            return None;
        }
        // A URL with a problem of its own may be meant to be one.
        Some(Named::Unusable) | None => return None,
    };
    for key in OF_SERVERS {
        if let Some(value) = table.optional(key) {
            let hint = format!("remove `{key}`: nothing is sent over a network");
            no_effect(r, &value, "`url` names a file", &hint);
        }
    }
    let files = Files {
        url,
        session_url: session_url.and_then(|(_, named)| match named {
            Named::File(target) => Some(target),
            Named::Server | Named::Unusable => None,
        }),
        rotate: rotate.unwrap_or_default(),
    };
    let compression_value = table.optional("compression").filter(|_| compresses);
    if files.targets().all(|it| *it == FileTarget::StandardOutput) {
        for value in [&rotate_value, &compression_value].into_iter().flatten() {
            let hint = "remove it, or name a file in `url`";
            no_effect(
                r,
                value,
                "standard output is neither rotated nor compressed",
                hint,
            );
        }
    } else if let Some(value) = compression_value
        && files.rotate == Rotate::default()
        && !files
            .targets()
            .any(|it| matches!(it, FileTarget::Path(path) if path.has_placeholders()))
    {
        let hint =
            "write `{date}` in the name of the file, or set `rotate = { bytes = \"1 GiB\" }`";
        no_effect(
            r,
            &value,
            "only closed files are compressed, and this one stays open",
            hint,
        );
    }
    Some(files)
}

fn rotate(r: &mut Reading<'_>, value: &Value<'_>) -> Rotate {
    let Some(mut table) = value.table(r) else {
        return Rotate::default();
    };
    let (least, most) = ROTATE_BYTES;
    let bytes = table.optional("bytes");
    let bytes = bytes.map(|value| value.quantity(r, least, most, None));
    let (least, most) = ROTATE_AGE;
    let age = table.optional("age");
    let age = age.map(|value| value.quantity(r, least, most, None));
    if bytes.is_none() && age.is_none() {
        r.issue(Issue::new(
            value.whole_span(),
            format!("`{}` has neither `bytes` nor `age`.", value.path),
            "never",
            "write `rotate = { bytes = \"1 GiB\" }`, for example, or leave it out",
        ));
    }
    table.finish(r);
    Rotate {
        bytes: bytes.flatten().map(|bytes| bytes.0),
        age: age.flatten(),
    }
}

/// Refuses two sinks, or two URLs of a sink, that write to one file: their lines would be mixed.
pub(crate) fn check_shared(r: &mut Reading<'_>, pipelines: &[Pipeline]) {
    let mut seen: Vec<(&FileTarget, &Pipeline)> = Vec::new();
    for pipeline in pipelines {
        let Some(files) = &pipeline.sink.files else {
            continue;
        };
        for target in files.targets() {
            let Some((_, other)) = seen.iter().find(|(other, _)| *other == target) else {
                seen.push((target, pipeline));
                continue;
            };
            let span = pipeline.sink.url_span.clone();
            let what = match target {
                FileTarget::StandardOutput => "standard output",
                FileTarget::Path(_) => "the same file",
            };
            r.issue(match other.name == pipeline.name {
                true => Issue::new(
                    span,
                    format!(
                        "`url` and `session-url` of `{}` name {what}.",
                        pipeline.name
                    ),
                    "twice",
                    "leave out `session-url`: then both go to `url`",
                ),
                false => Issue::new(
                    span,
                    format!(
                        "`{}` and `{}` would write to {what}.",
                        other.name, pipeline.name
                    ),
                    "and this one",
                    "give each pipeline a file of its own",
                )
                .also(other.sink.url_span.clone(), "this one writes to it"),
            });
        }
    }
}
