//! RunReveal's schema of structured events.

use std::net::{IpAddr, SocketAddr};

use lockgate_plugin::json::{self, Malformed};
use lockgate_plugin::time::Rfc3339;
use lockgate_plugin::{Document, Part};

/// The body for a document, which is the one resource of it.
pub fn body(index: u32, document: &Document) -> Result<Vec<Part>, Malformed> {
    let text = |path: &str| -> Result<Option<String>, Malformed> {
        let value = json::find(&document.payload, path)?.and_then(json::text);
        Ok(value.map(String::from).filter(|value| !value.is_empty()))
    };
    let mut out = String::from("{\"eventName\":");
    json::write_text(&mut out, &document.event_type);
    out.push_str(",\"eventTime\":");
    json::write_text(&mut out, &Rfc3339(document.time).to_string());
    // Teleport does not say which events only read.
    out.push_str(",\"readOnly\":false,\"actor\":");
    let user = text("user")?;
    let email = user.clone().filter(|user| user.contains('@'));
    members(&mut out, [("username", user), ("email", email)]);
    if let Some((ip, port)) = text("addr.remote")?.as_deref().and_then(address) {
        out.push_str(&format!(",\"src\":{{\"ip\":\"{ip}\""));
        if let Some(port) = port {
            out.push_str(&format!(",\"port\":{port}"));
        }
        out.push('}');
    }
    out.push_str(",\"service\":{\"name\":\"teleport\"},\"tags\":");
    let written = |value: &str| Some(value.to_owned()).filter(|value| !value.is_empty());
    members(
        &mut out,
        [
            ("key", written(&document.key)),
            ("code", written(&document.code)),
            ("cluster", text("cluster_name")?),
            ("session", text("sid")?),
        ],
    );
    out.push_str(",\"resources\":[");
    Ok(vec![
        Part::Text(out),
        Part::Document(index),
        Part::Text("]}".into()),
    ])
}

/// Appends an object of texts.
fn members<const N: usize>(out: &mut String, members: [(&str, Option<String>); N]) {
    let present = members
        .iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)));
    for (at, (name, value)) in present.clone().enumerate() {
        out.push_str(if at == 0 { "{\"" } else { ",\"" });
        out.push_str(name);
        out.push_str("\":");
        json::write_text(out, value);
    }
    out.push_str(if present.count() == 0 { "{}" } else { "}" });
}

/// An address with or without its port.
fn address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    match text.parse::<SocketAddr>() {
        Ok(address) => Some((address.ip(), Some(address.port()))),
        Err(_) => Some((text.parse().ok()?, None)),
    }
}
