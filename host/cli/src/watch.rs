//! The files of a configuration, and whether one of them has changed: the file itself and its
//! components.

use std::cell::RefCell;
use std::env::VarError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockgate_config::{Config, Environment, Issues, PluginSource, ProcessEnvironment};
use lockgate_observe::Masks;
use lockgate_service::Host;
use lockgate_stamps::{Look, Stamps, Watched};

use crate::config_file::ConfigFile;

/// Time between two looks. A change is taken when a second look finds the same: by then whoever
/// writes several files, or one slowly, has mostly finished.
const INTERVAL: Duration = Duration::from_secs(1);

/// The files as they were when the configuration was read last. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct WatchedFiles(Arc<Mutex<Watched>>);

impl WatchedFiles {
    /// Loads and checks the configuration, and remembers its files.
    pub(crate) fn load(&self, file: &ConfigFile, masks: &Masks) -> Result<Config, Issues> {
        let recorder = Recorder::default();
        let loaded = file.load(masks, &recorder);
        // Each was looked at before it was read: a change after that is seen.
        let mut stamps = recorder.stamps.into_inner();
        let mut watched = self.lock();
        match &loaded {
            Ok(config) => {
                for named in files_of(config, file.path().parent().unwrap_or(Path::new(""))) {
                    stamps.add(named);
                }
                // The host reads those by itself once they change.
                for pipeline in &config.pipelines {
                    pipeline
                        .sink
                        .secret_files()
                        .for_each(|file| stamps.remove(file));
                }
            }
            // The files that a broken file names are not known.
            Err(_) => {
                for named in watched.taken().paths() {
                    stamps.add(named.to_owned());
                }
            }
        }
        watched.take(stamps);
        loaded
    }

    /// Asks the host for a reload after each change, for as long as it is polled.
    pub(crate) async fn watch(self, host: Host) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let files = self.clone();
            let found = tokio::task::spawn_blocking(move || files.lock().look()).await;
            if !matches!(found, Ok(Look::Changed(_))) {
                continue;
            }
            tracing::info!("the configuration file, or a file that it names, has changed");
            let _ = host.reload().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Components. Credentials and databases are not among them: the host picks up renewed ones without
/// a reload.
fn files_of(config: &Config, base: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for pipeline in &config.pipelines {
        let stages = pipeline.stages.iter().map(|stage| &stage.plugin);
        for plugin in stages.chain([&pipeline.sink.plugin]) {
            if let PluginSource::File(path) = &plugin.source {
                files.push(base.join(path));
            }
        }
    }
    files
}

/// The environment of this process. Remembers which files were read.
#[derive(Default)]
struct Recorder {
    stamps: RefCell<Stamps>,
}

impl Environment for Recorder {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        ProcessEnvironment.variable(name)
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut stamps = self.stamps.borrow_mut();
        stamps.add(path.to_owned());
        ProcessEnvironment.read_file(path)
    }

    fn working_directory(&self) -> PathBuf {
        ProcessEnvironment.working_directory()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const CONFIG: &str = r#"
        [teleport]
        addr = "localhost:3025"
        identity = "identity"
        [store]
        path = "store"
        [pipelines.siem.sink]
        plugin = "sink.wasm"
        url = "https://localhost/${file:secrets/token}"
        tls = { ca = "ca.crt" }
    "#;

    #[test]
    fn the_file_and_components_are_watched_and_credentials_only_if_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        // Kubernetes mounts secrets so: `..data` is exchanged.
        for version in ["1", "2"] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("token"), "secret").unwrap();
        }
        symlink("1", path("..data")).unwrap();
        symlink("..data", path("secrets")).unwrap();
        for name in ["sink.wasm", "ca.crt", "identity"] {
            fs::write(path(name), "text").unwrap();
        }
        let file = path("lockgate.toml");
        fs::write(&file, CONFIG).unwrap();
        let files = WatchedFiles::default();
        let named = ConfigFile::named(&file);
        let read = || files.load(&named, &Masks::default());
        let has_changed = || files.lock().look() != Look::Unchanged;
        let changes = |what: &str, change: &dyn Fn()| {
            assert!(!has_changed(), "before {what}");
            change();
            assert!(has_changed(), "{what}");
        };
        read().unwrap();
        changes("a component", &|| {
            fs::remove_file(path("sink.wasm")).unwrap()
        });
        read().unwrap();
        changes("the file", &|| fs::write(&file, "broken = ").unwrap());
        read().unwrap_err();
        // A broken file names nothing; what the one before named still counts.
        changes("a component that is back", &|| {
            fs::write(path("sink.wasm"), "text").unwrap();
        });
        read().unwrap_err();
        changes("the mended file", &|| fs::write(&file, CONFIG).unwrap());
        read().unwrap();
        for name in ["identity", "ca.crt", "2/token"] {
            fs::write(path(name), "renewed").unwrap();
        }
        symlink("2", path("..new")).unwrap();
        fs::rename(path("..new"), path("..data")).unwrap();
        assert!(
            !has_changed(),
            "readers and pipelines see that by themselves"
        );
        fs::remove_file(path("2/token")).unwrap();
        changes("the file of a secret that is gone", &|| {
            fs::write(&file, CONFIG.to_owned() + "\n").unwrap();
        });
        read().unwrap_err();
        changes("the file of the secret", &|| {
            fs::write(path("2/token"), "secret").unwrap();
        });
    }
}
