//! Requests as sinks return them: what passes can change neither the message's framing nor the path
//! it goes to.
#![no_main]

use lockgate_model::request::{Body, Part, Request, RequestRules, check_indexes};

#[derive(Debug, arbitrary::Arbitrary)]
struct Input {
    method: String,
    path_suffix: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    tag: String,
    parts: Vec<(Option<u32>, String)>,
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
        tag,
        parts,
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
        body: Body::Parts(
            parts
                .into_iter()
                .map(|(document, text)| document.map_or(Part::Text(text), Part::Document))
                .collect(),
        ),
        tag,
        carries,
    };
    let rules = RequestRules {
        operator_headers: vec!["x-tenant".into()],
        allowed_headers: vec!["x-request-id".into(), "x-tenant".into(), "host".into()],
        operator_query: vec!["token".into()],
    };
    match request.check(&rules) {
        Ok(request) => {
            let path = request.path_suffix();
            assert!(
                path.is_ascii()
                    && (path.is_empty() || path.starts_with(['/', '.']))
                    && !path.contains("..")
                    && !path.contains("//")
                    && !path.contains(['?', '#', '@', '\\', '%'])
            );
            assert!(!request.carries().is_empty());
            assert!(request.query().iter().all(|(name, _)| name != "token"));
            let assembled = request.body().assemble(|index| {
                assert!(request.carries().contains(&index));
                "{}"
            });
            assert_eq!(assembled.len(), request.body().len(|_| "{}"));
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
