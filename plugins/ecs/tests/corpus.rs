//! What fuzzing found worth keeping: `corpus/payloads.ndjson`, each line a payload as a JSON string. It is written by
//! `fuzz/keep-ecs-corpus.sh`, and mapped here in every configuration.

#[path = "support/promise.rs"]
mod promise;

#[test]
fn what_fuzzing_found_keeps_the_promise() {
    let mappings = promise::mappings();
    let mut payloads = 0;
    for line in include_str!("corpus/payloads.ndjson").lines() {
        let payload: String = serde_json::from_str(line).unwrap();
        for mapping in &mappings {
            promise::check(&payload, mapping).unwrap_or_else(|broken| panic!("line {}: {broken}", payloads + 1));
        }
        payloads += 1;
    }
    assert!(payloads > 100, "the corpus has {payloads} payloads");
}
