//! Maps the corpus of the fuzzer in every configuration. Each line of `corpus/payloads.ndjson` is a
//! payload as a JSON string, and each reaches new code. `fuzz/README.md` explains how to regenerate
//! it.

#[path = "support/promise.rs"]
mod promise;

#[test]
fn inputs_of_the_fuzz_corpus_keep_all_guarantees() {
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
