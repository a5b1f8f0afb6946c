//! What fuzzing found worth keeping, one input for each place of the code it reaches:
//! `corpus/payloads.ndjson`, each line a payload as a JSON string, mapped here in every
//! configuration. `fuzz/README.md` says how it is written anew.

#[path = "support/promise.rs"]
mod promise;

#[test]
fn what_fuzzing_found_keeps_the_promise() {
    let mappings = promise::mappings();
    let mut payloads = 0;
    for line in include_str!("corpus/payloads.ndjson").lines() {
        let payload: String = serde_json::from_str(line).unwrap();
        for mapping in &mappings {
            promise::check(&payload, mapping)
                .unwrap_or_else(|broken| panic!("line {}: {broken}", payloads + 1));
        }
        payloads += 1;
    }
    assert!(payloads > 100, "the corpus has {payloads} payloads");
}
