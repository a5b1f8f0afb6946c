//! The configuration that a host runs with: a file of ours, or one of Teleport's Event Handler with
//! its options.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lockgate_config::{
    Config, Environment, HandlerOptions, Issue, Issues, ProcessEnvironment, load_with,
};
use lockgate_observe::Masks;
use lockgate_service::{HandlerStart, begin_where_the_handler_began, handler_start};
use tempfile::TempDir;

use crate::args::Start;
use crate::handler_arguments::HandlerArguments;

const DEFAULT: &str = "lockgate.toml";
/// Variables that only a configuration of the Event Handler without a file needs.
const HANDLER_VARIABLES: [&str; 2] = ["FDFWD_STORAGE", "FDFWD_FLUENTD_URL"];
/// Stands for them where a file is named.
const VARIABLES: &str = "FDFWD_*";
const HANDLER_FILE: [&str; 2] = ["FDFWD_CONFIG", "FDWRD_CONFIG"];
/// In the Event Handler's state directory: each dry run has a store of its own.
const DRY_RUN: &str = "dry_run";

/// Where the configuration comes from. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct ConfigFile {
    /// `None`: options and variables of the Event Handler, without a file.
    path: Option<PathBuf>,
    options: HandlerOptions,
    /// A host is to run with it. Other commands make no store for a dry run.
    keeps_store: bool,
    /// The directory of a dry run. It is removed with the last clone.
    dry_run: Arc<Mutex<Option<TempDir>>>,
    /// Found once, before the store is open in this process: a reload looks at neither the store
    /// nor the Event Handler's files.
    began: Arc<Mutex<Option<HandlerStart>>>,
}

impl ConfigFile {
    pub(crate) fn of(start: &Start) -> ConfigFile {
        ConfigFile {
            keeps_store: true,
            ..ConfigFile::new(start.config.as_deref(), &start.handler, DEFAULT)
        }
    }

    /// `default`: the file if neither a file nor options are given.
    pub(crate) fn new(
        config: Option<&Path>,
        handler: &HandlerArguments,
        default: &str,
    ) -> ConfigFile {
        let is_set = |name: &&str| variable(name).is_some();
        let options = handler.0.clone();
        let in_variable = || {
            HANDLER_FILE
                .into_iter()
                .find_map(variable)
                .map(PathBuf::from)
        };
        let named = config.map(Path::to_owned).or_else(in_variable);
        let path = match named {
            Some(path) => Some(path),
            None if !options.is_empty() => None,
            None if Path::new(default).exists() => Some(default.into()),
            None if HANDLER_VARIABLES.iter().any(is_set) => None,
            None => Some(default.into()),
        };
        ConfigFile {
            path,
            options,
            keeps_store: false,
            dry_run: Arc::default(),
            began: Arc::default(),
        }
    }

    /// A file without options, or [`VARIABLES`].
    pub(crate) fn named(path: &Path) -> ConfigFile {
        ConfigFile {
            path: Some(path.to_owned()).filter(|path| path != Path::new(VARIABLES)),
            options: HandlerOptions::default(),
            keeps_store: false,
            dry_run: Arc::default(),
            began: Arc::default(),
        }
    }

    /// The file; the empty path if there is none.
    pub(crate) fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// Whether the Event Handler's configuration asks for a detailed log. Says nothing of problems:
    /// there is no log yet.
    pub(crate) fn wants_debug(&self) -> bool {
        // What can be read only once is left for later.
        let is_regular = |path: &PathBuf| path.is_file();
        if !self.path.as_ref().is_none_or(is_regular) {
            return false;
        }
        let config = load_with(self.path.as_deref(), &self.options, &ProcessEnvironment);
        let handler = config.ok().and_then(|config| config.event_handler);
        handler.is_some_and(|handler| handler.debug)
    }

    /// Loads and checks the configuration, and masks the values of its references from now on.
    pub(crate) fn load(
        &self,
        masks: &Masks,
        environment: &dyn Environment,
    ) -> Result<Config, Issues> {
        let mut config = load_with(self.path.as_deref(), &self.options, environment)?;
        for secret in config.secrets() {
            masks.add(secret.expose());
        }
        let Some(handler) = &config.event_handler else {
            return Ok(config);
        };
        if handler.dry_run && !self.keeps_store {
            config.store.path = handler.state.join(DRY_RUN);
            return Ok(config);
        }
        if handler.dry_run {
            config.store.path = self.dry_run_store(&config, &handler.state)?;
            return Ok(config);
        }
        let mut kept = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_none() {
            *kept = Some(handler_start(&config)?);
        }
        if let Some(start) = &*kept {
            begin_where_the_handler_began(&mut config, start)?;
        }
        drop(kept);
        Ok(config)
    }

    fn dry_run_store(&self, config: &Config, state: &Path) -> Result<PathBuf, Issues> {
        let mut directory = self.dry_run.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = &*directory {
            return Ok(directory.path().to_owned());
        }
        let parent = state.join(DRY_RUN);
        let made = std::fs::create_dir_all(&parent).and_then(|()| {
            let mut name = tempfile::Builder::new();
            name.prefix("").rand_bytes(32).tempdir_in(&parent)
        });
        match made {
            Ok(made) => Ok(directory.insert(made).path().to_owned()),
            Err(error) => {
                let mut issues = config.no_issues();
                issues.push(Issue::new(
                    config.store.path_span.clone(),
                    format!(
                        "The dry run cannot keep its store in `{}`: {error}.",
                        parent.display()
                    ),
                    "",
                    "name a `storage` that this user may write to",
                ));
                Err(issues)
            }
        }
    }
}

/// The file of commands that take no options of the Event Handler: the one that `start` takes.
pub(crate) fn default_file() -> &'static OsStr {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    let found = FILE.get_or_init(|| {
        let file = ConfigFile::new(None, &HandlerArguments::default(), DEFAULT);
        file.path.unwrap_or_else(|| VARIABLES.into())
    });
    found.as_os_str()
}

/// The file, or the empty path for [`VARIABLES`].
pub(crate) fn file_or_none(path: &Path) -> &Path {
    match path == Path::new(VARIABLES) {
        true => Path::new(""),
        false => path,
    }
}

fn variable(name: &str) -> Option<String> {
    let value = ProcessEnvironment.variable(name).ok();
    value.filter(|value| !value.is_empty())
}
