//! Credentials of a sink that are in files, which change while a host runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockgate_model::Secret;
use toml::de::DeTable;

use crate::document::Document;
use crate::environment::Environment;
use crate::plugin;
use crate::reading::{Reading, ValueOrigin};
use crate::sink::{self, Sink};
use crate::table::Table;

/// Where the credentials of a sink come from. Equal ones are written alike, whatever the files
/// hold.
#[derive(Clone)]
pub(crate) struct CredentialOrigin {
    document: Arc<Document>,
    base_dir: PathBuf,
    pipeline: String,
    values: Vec<ValueOrigin>,
}

/// A sink whose files were read again.
#[derive(Clone, Debug)]
pub struct RenewedSink {
    pub sink: Sink,
    /// The values of its references, for masking.
    pub secrets: Vec<Secret>,
}

impl CredentialOrigin {
    /// `values`: those of the sink alone.
    pub fn new(r: &Reading<'_>, pipeline: &str, values: Vec<ValueOrigin>) -> CredentialOrigin {
        CredentialOrigin {
            document: r.document.clone(),
            base_dir: r.base_dir().to_owned(),
            pipeline: pipeline.to_owned(),
            values,
        }
    }
}

impl PartialEq for CredentialOrigin {
    fn eq(&self, other: &CredentialOrigin) -> bool {
        self.values == other.values
    }
}

impl fmt::Debug for CredentialOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.values.iter().flat_map(|value| &value.files);
        f.debug_set().entries(files).finish()
    }
}

impl Sink {
    /// The files that `url`, `session-url`, `headers` and `auth` refer to by `${file:…}`.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        let values = self.origin.values.iter();
        values.flat_map(|value| value.files.iter().map(PathBuf::as_path))
    }

    /// All files of credentials: also the certificates and the key in `tls`.
    pub fn credential_files(&self) -> impl Iterator<Item = &Path> {
        let client = self.tls.client.iter();
        let client = client.flat_map(|client| [&client.cert, &client.key]);
        let tls = self.tls.ca.iter().chain(client).map(PathBuf::as_path);
        self.secret_files().chain(tls)
    }

    /// Reads the files of `url`, `headers` and `auth` again, and checks the values as at a start.
    /// The text of the configuration is the one of then. The error is the first problem.
    pub fn read_again(&self, environment: &dyn Environment) -> Result<RenewedSink, String> {
        let origin = &self.origin;
        let (root, _) = DeTable::parse_recoverable(&origin.document.text);
        let mut r = Reading::new(origin.document.clone(), environment, &origin.base_dir);
        let mut root = Table::new(String::new(), String::new(), 0..0, root.get_ref());
        let declared = plugin::read(&mut r, &mut root);
        let pipelines = root
            .optional("pipelines")
            .and_then(|value| value.table(&mut r));
        let pipelines = pipelines.map(|table| table.named()).unwrap_or_default();
        let mut pipelines = pipelines.into_iter();
        let pipeline = pipelines.find(|value| value.name == origin.pipeline);
        let mut table = pipeline.and_then(|value| value.table(&mut r));
        let sink = table.as_mut().and_then(|table| table.optional("sink"));
        let in_flight = self.rate.in_flight;
        let sink = sink
            .and_then(|value| sink::read(&mut r, &value, &origin.pipeline, &declared, in_flight));
        match (sink, r.issues.first()) {
            (Some(sink), None) => Ok(RenewedSink {
                sink,
                secrets: r.secrets,
            }),
            (_, Some(issue)) => Err(issue.message.trim_end_matches('.').to_owned()),
            (None, None) => Err("the sink cannot be read again".to_owned()),
        }
    }

    /// Whether the other sink has the same credentials, certificates aside.
    pub fn has_credentials_of(&self, other: &Sink) -> bool {
        self.url == other.url
            && self.session_url == other.session_url
            && self.headers == other.headers
            && self.auth == other.auth
            && self.proxy == other.proxy
    }

    /// The same sink without its credentials: only how they are written is left.
    pub(crate) fn without_credentials(&self) -> Sink {
        let headers = self.headers.iter();
        Sink {
            url: Secret::default(),
            session_url: self.session_url.as_ref().map(|_| Secret::default()),
            headers: headers
                .map(|(name, _)| (name.clone(), Secret::default()))
                .collect(),
            auth: self.auth.as_ref().map(|auth| auth.without_secrets()),
            proxy: self.proxy.clone().filter(|proxy| proxy.variable != "proxy"),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::env::VarError;
    use std::io;

    use super::*;
    use crate::{Auth, Config, parse};

    /// The content of `token`; there is no other file.
    struct Files<'a>(&'a str);

    impl Environment for Files<'_> {
        fn variable(&self, name: &str) -> Result<String, VarError> {
            match name {
                "HOST" => Ok("logs.example.com".to_owned()),
                _ => Err(VarError::NotPresent),
            }
        }

        fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
            match path.to_str() {
                Some("/etc/lockgate/token") => Ok(self.0.into()),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    fn config(token: &str, sink: &str) -> Config {
        let text = format!(
            "[teleport]\naddr = \"localhost:3025\"\nidentity = \"identity\"\n\
             [store]\npath = \"store\"\n\
             [pipelines.siem.sink]\nplugin = \"builtin:fluentd\"\n{sink}"
        );
        let base = Path::new("/etc/lockgate");
        parse("lockgate.toml", &text, base, &Files(token)).expect("it has no problems")
    }

    const SINK: &str = "url = \"https://${env:HOST}/${file:token}\"\n\
                        auth = { bearer = \"${file:token}\" }\nheaders = { x-a = \"b\" }\n\
                        tls = { ca = \"ca.crt\" }\n";

    #[test]
    fn a_sink_is_read_again_with_the_present_content_of_its_files() {
        let sink = config("first\n", SINK).pipelines[0].sink.clone();
        let files: Vec<_> = sink.credential_files().collect();
        let (token, ca) = ("/etc/lockgate/token", "/etc/lockgate/ca.crt");
        assert_eq!(files, [token, token, ca].map(Path::new));
        let renewed = sink.read_again(&Files("second\n")).expect("it is good");
        let second = Secret::new("second");
        assert_eq!(renewed.sink.auth, Some(Auth::Bearer(second.clone())));
        assert_eq!(renewed.sink.url.expose(), "https://logs.example.com/second");
        assert!(renewed.secrets.contains(&second));
        for (content, problem) in [
            ("", "The file `token` is empty"),
            (
                "two\nlines",
                "`pipelines.siem.sink.url` contains a character",
            ),
        ] {
            let refused = sink.read_again(&Files(content)).expect_err(content);
            assert!(refused.starts_with(problem), "{content:?}: {refused}");
        }
    }

    /// A reload must not replace a pipeline for a secret that it has read by itself.
    #[test]
    fn a_changed_file_changes_no_identity_and_a_changed_text_does() {
        let unplaced = |token, sink: &str| config(token, sink).pipelines[0].unplaced();
        let before = unplaced("first", SINK);
        assert_eq!(before, unplaced("second", SINK));
        for (from, to) in [
            ("x-a = \"b\"", "x-a = \"c\""),
            ("bearer = \"${file:token}\"", "bearer = \"first\""),
            ("${env:HOST}", "other.example.com"),
            ("/${file:token}", "/"),
            ("tls = { ca = \"ca.crt\" }", ""),
        ] {
            assert!(SINK.contains(from), "{from}");
            assert_ne!(
                before,
                unplaced("first", &SINK.replacen(from, to, 1)),
                "{to}"
            );
        }
    }
}
