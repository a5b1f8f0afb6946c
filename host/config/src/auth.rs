//! `auth`: how the host authenticates to a receiver, by one of seven methods.

use lockgate_model::Secret;
use toml::de::DeValue;

use crate::issues::Issue;
use crate::reading::{Allowed, Reading};
use crate::signed::{self, AwsAuth, HmacAuth, OAuth2Auth};
use crate::sink::{SECRET_HINT, header_name, header_value};
use crate::table::{Table, list, nearest};
use crate::value::Value;

#[derive(Clone, Debug, PartialEq)]
pub enum Auth {
    /// `Authorization: Bearer …`
    Bearer(Secret),
    /// `Authorization: Basic …`
    Basic {
        user: String,
        password: Secret,
    },
    /// A header of the receiver's own, or `Authorization` with another scheme.
    Header {
        name: String,
        value: Secret,
    },
    /// A parameter in the query of the URL.
    Query {
        name: String,
        value: Secret,
    },
    Hmac(HmacAuth),
    Aws(AwsAuth),
    OAuth2(OAuth2Auth),
}

impl Auth {
    /// Without what may be read from a file.
    pub(crate) fn without_secrets(&self) -> Auth {
        let (user, secret) = (String::new(), Secret::default());
        match self {
            Auth::Bearer(_) => Auth::Bearer(secret),
            Auth::Basic { .. } => Auth::Basic {
                user,
                password: secret,
            },
            Auth::Header { name, .. } => Auth::Header {
                name: name.clone(),
                value: secret,
            },
            Auth::Query { name, .. } => Auth::Query {
                name: name.clone(),
                value: secret,
            },
            Auth::Hmac(auth) => Auth::Hmac(HmacAuth {
                secret,
                ..auth.clone()
            }),
            Auth::Aws(auth) => Auth::Aws(AwsAuth {
                access_key: secret.clone(),
                secret_key: secret.clone(),
                session_token: auth.session_token.as_ref().map(|_| secret),
                ..auth.clone()
            }),
            Auth::OAuth2(auth) => Auth::OAuth2(OAuth2Auth {
                token_url: secret.clone(),
                client_id: user,
                client_secret: secret,
                ..auth.clone()
            }),
        }
    }
}

const METHODS: [&str; 7] = [
    "bearer", "basic", "header", "query", "hmac", "aws", "oauth2",
];
const EXAMPLE: &str = "auth = { bearer = \"${env:NAME}\" }";

/// `headers`: the sink's, which `auth` must not set again. `allow_plaintext`: credentials may be
/// sent without TLS.
pub(crate) fn read(
    r: &mut Reading<'_>,
    value: &Value<'_>,
    headers: &[(String, Secret)],
    allow_plaintext: bool,
) -> Option<Auth> {
    let mut table = value.table(r)?;
    let given: Vec<Value<'_>> = METHODS
        .into_iter()
        .filter_map(|way| table.optional(way))
        .collect();
    if let [first, second, ..] = given.as_slice() {
        let (first, second) = if first.key_span.start < second.key_span.start {
            (first, second)
        } else {
            (second, first)
        };
        let message = format!(
            "`{}` has two methods, `{}` and `{}`.",
            value.path, first.name, second.name
        );
        r.issue(
            Issue::new(
                second.key_span.clone(),
                message,
                "second",
                "keep one of them",
            )
            .also(first.key_span.clone(), "first"),
        );
    }
    let unknown: Vec<Value<'_>> = table
        .named()
        .into_iter()
        .filter(|value| !METHODS.contains(&value.name.as_str()))
        .collect();
    for way in &unknown {
        let hint = match nearest(&way.name, &METHODS) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("use one of {}, for example `{EXAMPLE}`", list(&METHODS)),
        };
        r.issue(Issue::new(
            way.key_span.clone(),
            format!("Unknown authentication method `{}`.", way.name),
            "unknown",
            hint,
        ));
    }
    if given.is_empty() && unknown.is_empty() {
        r.issue(Issue::new(
            value.whole_span(),
            format!("`{}` is empty.", value.path),
            "empty",
            format!("write `{EXAMPLE}`"),
        ));
    }
    r.known
        .extend(METHODS.map(|way| format!("{}.{way}", table.pattern)));
    let ways: Vec<_> = given
        .iter()
        .map(|way| one(r, way, headers, allow_plaintext))
        .collect();
    ways.into_iter().next()?
}

fn one(
    r: &mut Reading<'_>,
    way: &Value<'_>,
    headers: &[(String, Secret)],
    allow_plaintext: bool,
) -> Option<Auth> {
    match way.name.as_str() {
        "hmac" => signed::hmac(r, way, headers),
        "aws" => signed::aws(r, way),
        "oauth2" => signed::oauth2(r, way, allow_plaintext),
        "bearer" => {
            let token = header_value(r, way)?;
            warn_of_shell(r, way);
            let scheme = token.expose().get(..7);
            if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer ")) {
                r.warnings.push(Issue::warning(
                    way.span(),
                    format!("`{}` begins with `Bearer `.", way.path),
                    "sent as `Bearer Bearer …`",
                    "write the token alone: `Bearer ` is put before it",
                ));
            }
            Some(Auth::Bearer(token))
        }
        "basic" => {
            let mut table = way.table(r)?;
            let user = table
                .required("user", "user = \"lockgate\"")
                .and_then(|value| user(r, &value));
            let password = table
                .required("password", "password = \"${env:NAME}\"")
                .and_then(|value| {
                    warn_of_shell(r, &value);
                    value.secret(r, SECRET_HINT)
                });
            table.finish(r);
            Some(Auth::Basic {
                user: user?,
                password: password?,
            })
        }
        "header" => {
            let mut table = way.table(r)?;
            let name = table
                .required("name", "name = \"X-Api-Key\"")
                .and_then(|value| Some((value.text(r)?, value)));
            let value = table
                .required("value", "value = \"${env:NAME}\"")
                .and_then(|value| {
                    warn_of_shell(r, &value);
                    header_value(r, &value)
                });
            table.finish(r);
            let (name, place) = name?;
            // This method exists for `Authorization` with a scheme of the receiver's own.
            let good = name.eq_ignore_ascii_case("authorization")
                || header_name(r, &name, place.shown(), &place.key_span);
            if good
                && headers
                    .iter()
                    .any(|(header, _)| header.eq_ignore_ascii_case(&name))
            {
                let message = format!("The header `{}` is also set by `headers`.", place.shown());
                r.issue(Issue::new(
                    place.key_span,
                    message,
                    "duplicate",
                    "keep one of them",
                ));
            }
            Some(Auth::Header {
                name,
                value: value?,
            })
        }
        _ => {
            let mut table = way.table(r)?;
            let name = query_name(r, &mut table);
            let value = table
                .required("value", "value = \"${env:NAME}\"")
                .and_then(|value| value.secret(r, SECRET_HINT));
            table.finish(r);
            Some(Auth::Query {
                name: name?,
                value: value?,
            })
        }
    }
}

/// Warns of a variable as a shell has it: it is sent as it is.
fn warn_of_shell(r: &mut Reading<'_>, value: &Value<'_>) {
    let DeValue::String(text) = value.node() else {
        return;
    };
    let is_name = |name: &str| {
        let mut bytes = name.bytes();
        bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if text.strip_prefix('$').is_some_and(is_name) {
        r.warnings.push(Issue::warning(
            value.span(),
            format!(
                "`{}` looks like a variable of a shell, and is sent as it is.",
                value.path
            ),
            "not replaced",
            "write `${env:NAME}` for the value of the environment variable NAME",
        ));
    }
}

/// A user name is not a secret; a colon would end it (RFC 7617, 2).
fn user(r: &mut Reading<'_>, value: &Value<'_>) -> Option<String> {
    let user = value.text_with(r, Allowed::Files)?;
    if user.is_empty() || user.contains(':') || user.contains(char::is_control) {
        let message = format!(
            "`{}` is empty or contains a colon or a control character.",
            value.path
        );
        r.issue(Issue::new(
            value.key_span.clone(),
            message,
            "not a user name",
            "choose a user name without colons and control characters",
        ));
        return None;
    }
    Some(user)
}

fn query_name(r: &mut Reading<'_>, table: &mut Table<'_>) -> Option<String> {
    let value = table.required("name", "name = \"api_key\"")?;
    let name = value.text(r)?;
    if name.is_empty() {
        r.issue(Issue::new(
            value.key_span.clone(),
            format!("`{}` is empty.", value.path),
            "empty",
            "write `name = \"api_key\"`",
        ));
        return None;
    }
    Some(name)
}
