//! Requests as sinks return them: what passes can change neither the message's framing nor the path
//! it goes to.
#![no_main]

use lockgate_model::request::{Request, check_indexes};

#[derive(Debug, arbitrary::Arbitrary)]
struct Input {
    method: String,
    path_suffix: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    carries: Vec<u32>,
    rejected: Vec<u32>,
    documents: u8,
}

libfuzzer_sys::fuzz_target!(|input: Input| {
    let Input {
        method,
        path_suffix,
        query,
        headers,
        carries,
        rejected,
        documents,
    } = input;
    let documents = usize::from(documents);
    if check_indexes(
        documents,
        [carries.as_slice()].into_iter(),
        rejected.iter().copied(),
    )
    .is_ok()
    {
        assert_eq!(carries.len() + rejected.len(), documents);
    }
    let request = Request {
        method,
        path_suffix,
        query,
        headers,
        body: Default::default(),
        carries,
    };
    match request.check(&["x-tenant".to_owned()]) {
        Ok(request) => {
            let path = request.path_suffix();
            assert!(
                path.is_ascii()
                    && !path.contains("..")
                    && !path.contains("//")
                    && !path.contains(['?', '#', '@', '\\', '%'])
            );
            for (name, value) in request.headers() {
                assert!(!name.is_empty() && !name.contains([':', ' ', '\r', '\n']));
                assert!(
                    !["host", "content-length", "x-tenant"].contains(&name.to_lowercase().as_str())
                );
                assert!(!value.contains(['\r', '\n', '\0']));
            }
        }
        Err(violation) => assert!(!violation.to_string().is_empty()),
    }
});
