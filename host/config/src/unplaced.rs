//! A configuration without its places in the text: two files that say the same are equal, however
//! they are written.

use std::collections::BTreeMap;

use crate::{Database, LagLimit, Lookup, Pipeline, Plugin, Sink, Source, Stage, With};

impl Source {
    /// The same source without its places in the text.
    pub fn unplaced(&self) -> Source {
        Source {
            types_span: 0..0,
            start_time_span: 0..0,
            span: 0..0,
            credentials_span: 0..0,
            key_span: 0..0,
            ca_span: 0..0,
            proxy_ca_span: 0..0,
            ..self.clone()
        }
    }
}

impl Lookup {
    /// The same look-ups without their places in the text.
    pub fn unplaced(&self) -> Lookup {
        let unplaced = |database: &Database| Database {
            path: database.path.clone(),
            span: 0..0,
        };
        Lookup {
            city: self.city.as_ref().map(unplaced),
            asn: self.asn.as_ref().map(unplaced),
            user_agents: self.user_agents,
        }
    }
}

impl Pipeline {
    /// The same pipeline without its places in the text, and without its credentials: what their
    /// files hold is no part of it.
    pub fn unplaced(&self) -> Pipeline {
        let stage = |stage: &Stage| Stage {
            plugin: plugin(&stage.plugin),
            with: with(&stage.with),
        };
        Pipeline {
            stages: self.stages.iter().map(stage).collect(),
            sink: Sink {
                plugin: plugin(&self.sink.plugin),
                with: with(&self.sink.with),
                url_span: 0..0,
                tls_span: 0..0,
                ..self.sink.without_credentials()
            },
            lag_limit: LagLimit {
                bytes_span: 0..0,
                ..self.lag_limit.clone()
            },
            span: 0..0,
            ..self.clone()
        }
    }
}

fn plugin(plugin: &Plugin) -> Plugin {
    Plugin {
        span: 0..0,
        ..plugin.clone()
    }
}

fn with(with: &With) -> With {
    With {
        json: with.json.clone(),
        places: BTreeMap::new(),
        span: 0..0,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Config, REFERENCE, parse};

    struct Variables;

    impl crate::Environment for Variables {
        fn variable(&self, name: &str) -> Result<String, std::env::VarError> {
            match name.starts_with("TELEPORT_") {
                true => Err(std::env::VarError::NotPresent),
                false => Ok("value".to_owned()),
            }
        }

        fn read_file(&self, _: &Path) -> std::io::Result<Vec<u8>> {
            Ok(b"value".to_vec())
        }
    }

    fn config(text: &str) -> Config {
        parse("lockgate.toml", text, Path::new("/etc"), &Variables).expect("it has no problems")
    }

    /// A place that is left in the comparison would restart every pipeline below an added comment.
    #[test]
    fn a_comment_at_the_top_changes_nothing() {
        let (before, after) = (
            config(REFERENCE),
            config(&format!("# Moved.\n\n{REFERENCE}")),
        );
        let unplaced = |config: &Config| -> (Vec<Source>, Vec<Pipeline>, Lookup) {
            let sources = config.sources.iter().map(Source::unplaced);
            let pipelines = config.pipelines.iter().map(Pipeline::unplaced);
            (
                sources.collect(),
                pipelines.collect(),
                config.lookup.unplaced(),
            )
        };
        assert_eq!(unplaced(&before), unplaced(&after));
        assert_ne!(before.pipelines, after.pipelines);
    }

    #[test]
    fn a_changed_value_is_a_difference() {
        let before = config(REFERENCE);
        for (from, to) in [
            ("skip = [\"session.data\", \"print\"]", "skip = [\"print\"]"),
            ("timeout = \"30s\"", "timeout = \"31s\""),
            ("X-Source = \"lockgate\"", "X-Source = \"other\""),
            (
                "source = \"file:plugins/noise.wasm\"",
                "source = \"file:b.wasm\"",
            ),
        ] {
            assert!(REFERENCE.contains(from), "{from}");
            let after = config(&REFERENCE.replacen(from, to, 1));
            assert_ne!(
                before.pipelines[0].unplaced(),
                after.pipelines[0].unplaced(),
                "{to}"
            );
            assert_eq!(
                before.pipelines[1].unplaced(),
                after.pipelines[1].unplaced(),
                "{to}"
            );
        }
    }
}
