//! What the answer of a bulk request says of each document.

use lockgate_plugin::{Delivery, Disposition, Response, Retry, Sent};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Answer {
    errors: bool,
    #[serde(default)]
    items: Vec<Item>,
}

/// The one operation of an item, `create`.
#[derive(Deserialize)]
struct Item {
    create: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    status: u16,
    #[serde(default)]
    error: Option<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    reason: Option<Value>,
}

/// Longest reason that is kept.
const REASON_MAX: usize = 500;

pub fn classify(sent: &Sent, response: &Response) -> Delivery {
    if !response.is_success() {
        return Delivery::ByStatus;
    }
    // Sending again does no harm: what exists already is a conflict, which counts as delivered.
    let again = |message: String| {
        Delivery::Retry(Retry {
            message,
            after: None,
        })
    };
    if response.truncated {
        return again("the answer to the bulk request is longer than 4 MiB".to_owned());
    }
    let answer: Answer = match serde_json::from_str(&response.body.text()) {
        Ok(answer) => answer,
        Err(_) => {
            let summary = response.summary();
            return again(format!(
                "this is not the answer of a bulk request: {summary}"
            ));
        }
    };
    if !answer.errors {
        return Delivery::Delivered;
    }
    if answer.items.len() != sent.carries.len() {
        let (items, sent) = (answer.items.len(), sent.carries.len());
        return again(format!("{items} answers came for {sent} documents"));
    }
    if let Some(problem) = answer.items.iter().find_map(Item::needs_operator)
        && answer.items.iter().all(|item| !item.is_delivered())
    {
        return Delivery::Hold(problem);
    }
    let items = answer.items.iter().zip(&sent.carries);
    let failed = items.filter_map(|(item, &index)| Some((index, item.disposition()?)));
    Delivery::Mixed(failed.collect())
}

impl Item {
    fn is_delivered(&self) -> bool {
        matches!(self.create.status, 200..=299 | 409)
    }

    /// What the operator has to do, if no document can be created before that.
    fn needs_operator(&self) -> Option<String> {
        matches!(self.create.status, 401 | 403 | 404).then(|| self.summary())
    }

    /// `None`: delivered.
    fn disposition(&self) -> Option<Disposition> {
        match self.create.status {
            _ if self.is_delivered() => None,
            // The document itself: a field that cannot be mapped, or no `@timestamp`.
            400 | 413 | 422 => Some(Disposition::Rejected(self.summary())),
            _ => Some(Disposition::Retry),
        }
    }

    fn summary(&self) -> String {
        let Outcome { status, error } = &self.create;
        let Some(error) = error else {
            return format!("status {status}");
        };
        let reason = match &error.reason {
            Some(Value::String(reason)) => reason.clone(),
            Some(reason) => reason.to_string(),
            None => String::new(),
        };
        let reason: String = reason.chars().take(REASON_MAX).collect();
        format!("status {status}, {}: {reason}", error.kind)
    }
}
