//! Tests of the sink, natively. Messages are decoded by a well-known library.

use lockgate_plugin::{Pair, test};
use prost::Message;

use super::*;

/// The messages of `opentelemetry/proto/{collector/logs,logs,resource,common}/v1`, with the members
/// that are used.
mod messages {
    use prost::{Message, Oneof};

    #[derive(Clone, PartialEq, Message)]
    pub struct ExportLogsServiceRequest {
        #[prost(message, repeated, tag = "1")]
        pub resource_logs: Vec<ResourceLogs>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct ResourceLogs {
        #[prost(message, optional, tag = "1")]
        pub resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub scope_logs: Vec<ScopeLogs>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct ScopeLogs {
        #[prost(message, optional, tag = "1")]
        pub scope: Option<InstrumentationScope>,
        #[prost(message, repeated, tag = "2")]
        pub log_records: Vec<LogRecord>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct InstrumentationScope {
        #[prost(string, tag = "1")]
        pub name: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct LogRecord {
        #[prost(fixed64, tag = "1")]
        pub time_unix_nano: u64,
        #[prost(int32, tag = "2")]
        pub severity_number: i32,
        #[prost(message, optional, tag = "5")]
        pub body: Option<AnyValue>,
        #[prost(message, repeated, tag = "6")]
        pub attributes: Vec<KeyValue>,
        #[prost(fixed64, tag = "11")]
        pub observed_time_unix_nano: u64,
        #[prost(string, tag = "12")]
        pub event_name: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct KeyValue {
        #[prost(string, tag = "1")]
        pub key: String,
        #[prost(message, optional, tag = "2")]
        pub value: Option<AnyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct AnyValue {
        #[prost(oneof = "Value", tags = "1")]
        pub value: Option<Value>,
    }

    #[derive(Clone, PartialEq, Oneof)]
    pub enum Value {
        #[prost(string, tag = "1")]
        StringValue(String),
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct ExportLogsServiceResponse {
        #[prost(message, optional, tag = "1")]
        pub partial_success: Option<ExportLogsPartialSuccess>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct ExportLogsPartialSuccess {
        #[prost(int64, tag = "1")]
        pub rejected_log_records: i64,
        #[prost(string, tag = "2")]
        pub error_message: String,
    }
}

use messages::*;

fn text(pairs: &[KeyValue]) -> Vec<(String, String)> {
    let text = |pair: &KeyValue| match pair.value.clone().and_then(|it| it.value) {
        Some(Value::StringValue(value)) => (pair.key.clone(), value),
        other => panic!("{other:?}"),
    };
    pairs.iter().map(text).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    expected.iter().map(owned).collect()
}

#[test]
fn each_document_is_the_body_of_a_record() {
    let payload = r#"{"uid":"k-1","event":"user.login","code":"T1000I","user":"zoë"}"#;
    let mut documents = [test::document(payload), test::session_document("s-1", "{}")];
    documents[1].attributes.push(Pair::new("tenant", "blue"));
    documents[1].time = -1;
    let with = r#"{"resource":{"deployment.environment":"prod"},
        "attributes":{"tenant":"{attributes.tenant}"}}"#;
    let request = &test::encode::<Otlp>(with, &documents).requests[0];
    let body = test::body(request, &documents);
    let message = ExportLogsServiceRequest::decode(body.as_slice()).unwrap();
    // Nothing else is in it.
    assert_eq!(message.encoded_len(), body.len());
    let [resource_logs] = &message.resource_logs[..] else {
        panic!("one resource")
    };
    let resource = resource_logs.resource.as_ref().unwrap();
    assert_eq!(
        text(&resource.attributes),
        pairs(&[
            ("deployment.environment", "prod"),
            ("service.name", "teleport")
        ])
    );
    let scope = resource_logs.scope_logs[0].scope.as_ref().unwrap();
    assert_eq!(scope.name, "lockgate");
    let records = &resource_logs.scope_logs[0].log_records;
    assert_eq!(records.len(), 2);
    let body = records[0].body.clone().and_then(|it| it.value);
    assert_eq!(body, Some(Value::StringValue(payload.into())));
    assert_eq!(records[0].severity_number, 9);
    assert_eq!(records[0].event_name, "user.login");
    assert_eq!(records[0].time_unix_nano, 1_767_600_000_000_000_000);
    assert_eq!(
        records[0].observed_time_unix_nano,
        1_767_600_000_000_000_000
    );
    assert_eq!(
        text(&records[0].attributes),
        pairs(&[("teleport.key", "k-1"), ("teleport.code", "T1000I")])
    );
    assert_eq!(records[1].time_unix_nano, 0);
    assert_eq!(
        text(&records[1].attributes),
        pairs(&[("session.id", "s-1"), ("tenant", "blue")])
    );
    assert_eq!(test::encode::<Otlp>("{}", &[]).requests, []);
}

#[test]
fn rejected_records_are_looked_for() {
    let (sink, _) = test::configure::<Otlp>("{}").unwrap();
    let delivery = |documents: usize, status, body: Vec<u8>| {
        let documents = vec![test::document("{}"); documents];
        let request = &test::encode::<Otlp>("{}", &documents).requests[0];
        let mut response = test::response(status, "");
        response.body = ResponseBody::Bytes(body);
        sink.classify(&test::batch(), &test::sent(request), &response)
    };
    let answer = |rejected_log_records| {
        let partial_success = Some(ExportLogsPartialSuccess {
            rejected_log_records,
            error_message: "too old".into(),
        });
        ExportLogsServiceResponse { partial_success }.encode_to_vec()
    };
    let reason = "the receiver rejected 1 log records: too old".to_owned();
    assert_eq!(delivery(2, 200, answer(1)), Delivery::Split(reason.clone()));
    assert_eq!(delivery(1, 200, answer(1)), Delivery::Rejected(reason));
    for body in [answer(0), vec![], b"{}".to_vec(), vec![0xff; 20]] {
        assert_eq!(delivery(2, 200, body), Delivery::ByStatus);
    }
    assert_eq!(delivery(2, 400, answer(1)), Delivery::ByStatus);
}
