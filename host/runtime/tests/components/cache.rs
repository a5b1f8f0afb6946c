use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lockgate_runtime::{CodeCache, Component, Engine, EngineOptions};
use sha2::{Digest, Sha256};

use crate::support::{logged, wasm};

#[derive(Default)]
struct Kept {
    values: Mutex<BTreeMap<String, Vec<u8>>>,
    hits: Mutex<u32>,
    saves: Mutex<u32>,
}

impl CodeCache for Kept {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        let value = self.values.lock().unwrap().get(key).cloned();
        *self.hits.lock().unwrap() += u32::from(value.is_some());
        value
    }

    fn save(&self, key: &str, value: &[u8]) {
        *self.saves.lock().unwrap() += 1;
        self.values
            .lock()
            .unwrap()
            .insert(key.to_owned(), value.to_vec());
    }
}

#[test]
fn a_component_is_compiled_once_and_damaged_code_is_never_run() {
    let kept = Arc::new(Kept::default());
    let engine = |fuel| {
        Engine::new(EngineOptions {
            threads: 1,
            code_cache: Some(kept.clone()),
            fuel,
            ..EngineOptions::default()
        })
        .unwrap()
    };
    let counts = || (*kept.hits.lock().unwrap(), *kept.saves.lock().unwrap());
    let bytes = wasm("hostile_filter");
    let first = engine(false);
    let load = |engine: &Engine| logged(|| Component::load(engine, "f", &bytes).unwrap()).1;

    assert!(load(&first).is_empty());
    assert_eq!(counts(), (0, 1));
    assert!(load(&first).is_empty());
    assert!(
        load(&engine(false)).is_empty(),
        "another process would have the same engine"
    );
    assert_eq!(counts(), (2, 1));

    // Code for other settings is another value.
    load(&engine(true));
    assert_eq!((counts(), kept.values.lock().unwrap().len()), ((2, 2), 2));

    let sealed = |code: &[u8]| [Sha256::digest(code).as_slice(), code].concat();
    for (damage, word) in [
        (
            (|value: &mut Vec<u8>| value[5000] ^= 1) as fn(&mut Vec<u8>),
            "damaged",
        ),
        (|value| value.truncate(5000), "damaged"),
        (Vec::clear, "damaged"),
    ] {
        kept.values.lock().unwrap().values_mut().for_each(damage);
        let before = counts();
        let lines = load(&first);
        assert!(lines.len() == 1 && lines[0].contains(word), "{lines:?}");
        assert_eq!(
            counts(),
            (before.0 + 1, before.1 + 1),
            "compiled again, and saved again"
        );
        assert!(load(&first).is_empty());
    }
    kept.values
        .lock()
        .unwrap()
        .values_mut()
        .for_each(|value| *value = sealed(b"of another version"));
    assert!(load(&first)[0].contains("does not load"));
    assert!(load(&first).is_empty());
}
