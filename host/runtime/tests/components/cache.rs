//! Compiled code that is kept for the next start.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lockgate_runtime::{
    Code, CodeCache, Component, DigestsInMemory, Engine, EngineOptions, KeptCode, Kind, Limits,
};

use crate::support::{identity, logged, wasm};

/// Files that anybody may have changed, and digests that only the host writes.
#[derive(Default)]
struct Kept {
    files: Arc<Files>,
    digests: Arc<DigestsInMemory>,
}

#[derive(Default)]
struct Files {
    values: Mutex<BTreeMap<String, Vec<u8>>>,
    loads: Mutex<u32>,
    saves: Mutex<u32>,
}

impl CodeCache for Files {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        *self.loads.lock().unwrap() += 1;
        self.values.lock().unwrap().get(key).cloned()
    }

    fn save(&self, key: &str, code: &[u8]) {
        *self.saves.lock().unwrap() += 1;
        let mut values = self.values.lock().unwrap();
        values.insert(key.to_owned(), code.to_vec());
    }
}

impl Kept {
    fn engine(&self, fuel: bool) -> Engine {
        Engine::new(EngineOptions {
            threads: 1,
            kept_code: Some(KeptCode {
                files: self.files.clone(),
                digests: self.digests.clone(),
            }),
            fuel,
            ..EngineOptions::default()
        })
        .unwrap()
    }

    /// Files read and files written so far.
    fn counts(&self) -> (u32, u32) {
        let Files { loads, saves, .. } = &*self.files;
        (*loads.lock().unwrap(), *saves.lock().unwrap())
    }

    fn damage(&self, damage: impl FnMut(&mut Vec<u8>)) {
        let mut values = self.files.values.lock().unwrap();
        values.values_mut().for_each(damage);
    }
}

/// Compiles a component, unless its code is kept. Returns the warnings, and the kind of the
/// component that would run.
fn compile(engine: &Engine, name: &str) -> (Vec<String>, Kind) {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (code, lines) = logged(|| {
        let bytes = wasm(name);
        let compile = || tokio.block_on(Code::compile(engine, name, bytes.clone().into()));
        Code::kept(engine, &bytes).unwrap_or_else(|| compile().unwrap())
    });
    let component = Component::new(engine, name, code, &Limits::default(), identity(name)).unwrap();
    let warnings = lines.into_iter().filter(|line| line.starts_with("WARN"));
    (warnings.collect(), component.kind())
}

#[test]
fn a_component_is_compiled_once() {
    let kept = Kept::default();
    let first = kept.engine(false);
    let bytes = wasm("hostile_filter");
    assert!(Code::kept(&first, &bytes).is_none());
    let fine = (vec![], Kind::Filter);
    assert_eq!(compile(&first, "hostile_filter"), fine);
    assert_eq!(kept.counts(), (0, 1));
    assert!(Code::kept(&first, &bytes).is_some());
    assert_eq!(compile(&first, "hostile_filter"), fine);
    // A second engine stands for another process.
    assert_eq!(compile(&kept.engine(false), "hostile_filter"), fine);
    assert_eq!(kept.counts(), (3, 1));

    // Code for other settings has another key.
    assert_eq!(compile(&kept.engine(true), "hostile_filter"), fine);
    assert_eq!(kept.counts(), (3, 2));
    assert_eq!(kept.files.values.lock().unwrap().len(), 2);
}

/// The digest used to be in the file, so that whoever wrote the file could write the digest, too.
#[test]
fn code_that_this_host_did_not_write_is_never_run() {
    let kept = Kept::default();
    let engine = kept.engine(false);
    let fine = (vec![], Kind::Filter);
    compile(&engine, "hostile_mapper");
    let foreign = kept.files.values.lock().unwrap().values().next().cloned();
    let foreign = foreign.expect("code that loads, of another component");
    kept.files.values.lock().unwrap().clear();
    compile(&engine, "hostile_filter");

    type Damage = Box<dyn Fn(&mut Vec<u8>)>;
    let damages: [(&str, Damage); 4] = [
        ("a flipped bit", Box::new(|code| code[5000] ^= 1)),
        ("a cut file", Box::new(|code| code.truncate(5000))),
        ("an empty file", Box::new(Vec::clear)),
        (
            "valid code of another component",
            Box::new(move |code| *code = foreign.clone()),
        ),
    ];
    for (what, damage) in damages {
        kept.damage(damage);
        let (_, saves) = kept.counts();
        let (warnings, kind) = compile(&engine, "hostile_filter");
        assert_eq!(kind, Kind::Filter, "{what}");
        assert!(
            warnings.len() == 1 && warnings[0].contains("not what this host wrote"),
            "{what}: {warnings:?}"
        );
        assert_eq!(kept.counts().1, saves + 1, "{what}: it is compiled again");
        assert_eq!(compile(&engine, "hostile_filter"), fine, "{what}");
    }
}

/// For example after copying a cache from elsewhere, or restoring a store.
#[test]
fn code_without_a_digest_is_not_even_read() {
    let Kept { files, .. } = Kept::default();
    let kept = |files: &Arc<Files>| Kept {
        files: files.clone(),
        ..Kept::default()
    };
    compile(&kept(&files).engine(false), "hostile_filter");
    let restored = kept(&files);
    let (warnings, _) = compile(&restored.engine(false), "hostile_filter");
    assert!(warnings.is_empty());
    assert_eq!(restored.counts(), (0, 2), "none read, compiled twice");
}
