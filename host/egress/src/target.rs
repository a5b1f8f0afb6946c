//! An operator's URL, and the parts that a request may add to it.

use lockgate_model::percent_encoded;
use url::Url;

use crate::EndpointError;
use crate::address::is_of_link;

/// An operator's URL, parsed once. The parts that a request adds are inserted as text; relative
/// references are never resolved.
#[derive(Clone)]
pub struct Target {
    /// `https://host:port`, as configured.
    origin: String,
    path: String,
    /// Without the `?`, credentials included.
    query: Option<String>,
    /// The names in `query`, decoded.
    names: Vec<String>,
}

impl Target {
    /// `setting`: the key to name in messages. `credential`: a query parameter to append.
    pub fn parse(
        setting: &'static str,
        url: &str,
        credential: Option<(&str, &str)>,
    ) -> Result<Target, EndpointError> {
        let url =
            Url::parse(url).map_err(|error| EndpointError::Url(setting, error.to_string()))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(EndpointError::Scheme(setting));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::Userinfo(setting));
        }
        if url.fragment().is_some() {
            return Err(EndpointError::Fragment(setting));
        }
        let host = url
            .host_str()
            .ok_or_else(|| EndpointError::Url(setting, "it has no host".into()))?;
        let port = url
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        let names = url
            .query_pairs()
            .map(|(name, _)| name.into_owned())
            .chain(credential.map(|(name, _)| name.to_owned()))
            .collect();
        let credential = credential
            .map(|(name, value)| format!("{}={}", percent_encoded(name), percent_encoded(value)));
        let query: Vec<String> = url
            .query()
            .filter(|query| !query.is_empty())
            .map(str::to_owned)
            .into_iter()
            .chain(credential)
            .collect();
        Ok(Target {
            origin: format!("{}://{host}{port}", url.scheme()),
            path: url.path().to_owned(),
            query: (!query.is_empty()).then(|| query.join("&")),
            names,
        })
    }

    /// The root of its server, without path, query and credentials.
    pub fn root(&self) -> Result<Url, String> {
        Url::parse(&self.origin).map_err(|error| error.to_string())
    }

    /// Its host is written as a link-local address, or that of a metadata service.
    pub fn is_of_link(&self) -> bool {
        let host = self.root().ok();
        let host = host.as_ref().and_then(Url::host_str).unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        address.parse().is_ok_and(is_of_link)
    }

    pub fn is_https(&self) -> bool {
        self.origin.starts_with("https:")
    }

    /// Names of the operator's query parameters, decoded, credentials included.
    pub fn query_names(&self) -> &[String] {
        &self.names
    }

    /// The URL of a request: the operator's path, then `suffix`; the operator's query, then the
    /// guest's.
    ///
    /// # Errors
    /// Returns the rule that the request breaks. A parameter of the operator's query cannot be
    /// repeated: some receivers use the first of two parameters with the same name, and a guest
    /// must not choose the token.
    pub fn join(&self, suffix: &str, query: &[(String, String)]) -> Result<Url, String> {
        if let Some((name, _)) = query.iter().find(|(name, _)| self.names.contains(name)) {
            return Err(format!(
                "the query parameter `{name}` is set by the operator"
            ));
        }
        let suffix = if self.path.ends_with('/') {
            suffix.strip_prefix('/').unwrap_or(suffix)
        } else {
            suffix
        };
        let path = format!("{}{suffix}", self.path);
        let guests = query
            .iter()
            .map(|(name, value)| format!("{}={}", percent_encoded(name), percent_encoded(value)));
        let query: Vec<String> = self.query.clone().into_iter().chain(guests).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let url = Url::parse(&format!("{}{path}{mark}{}", self.origin, query.join("&")))
            .map_err(|error| error.to_string())?;
        // Two harmless parts can together form `..` or `.`, which parsing resolves.
        if url.path() != path || url.fragment().is_some() {
            return Err(
                "the path suffix and the end of the operator's path form `.` or `..`".into(),
            );
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn join(base: &str, suffix: &str, query: &[(&str, &str)]) -> Result<String, String> {
        let query: Vec<_> = query
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        Target::parse("url", base, None)
            .unwrap()
            .join(suffix, &query)
            .map(String::from)
    }

    #[test]
    fn suffixes_and_queries_follow_the_operators() {
        for (base, suffix, query, url) in [
            ("https://h", "", &[][..], "https://h/"),
            ("https://h", "/test.log", &[], "https://h/test.log"),
            ("https://h/", "/test.log", &[], "https://h/test.log"),
            (
                "https://Bücher.faß.example",
                "/x",
                &[],
                "https://xn--bcher-kva.xn--fa-hia.example/x",
            ),
            // Without a path, text appended to `https://h` would name another host.
            ("https://h", ".evil.example", &[], "https://h/.evil.example"),
            (
                "https://h:8443/session",
                ".7f3.log",
                &[],
                "https://h:8443/session.7f3.log",
            ),
            (
                "https://h/a/?key=t%20k",
                "b",
                &[("q", "x y&z=ü"), ("r", "")],
                "https://h/a/b?key=t%20k&q=x%20y%26z%3D%C3%BC&r=",
            ),
            (
                "http://[::1]:80/a?",
                "",
                &[("q", "#@/?")],
                "http://[::1]/a?q=%23%40%2F%3F",
            ),
            (
                "https://h/a",
                "",
                &[("user", "${secret:token}")],
                "https://h/a?user=%24%7Bsecret%3Atoken%7D",
            ),
        ] {
            assert_eq!(
                join(base, suffix, query).as_deref(),
                Ok(url),
                "{base} {suffix}"
            );
        }
    }

    #[test]
    fn requests_can_neither_leave_the_path_nor_repeat_the_operators_parameters() {
        for (base, suffix, query) in [
            ("https://h/a/.", "./b", &[][..]),
            ("https://h/a/%2e", "./b", &[]),
            ("https://h/a/", ".", &[]),
            ("https://h/a/", "./b", &[]),
            ("https://h/a?tok%65n=x", "", &[("token", "y")]),
        ] {
            assert!(
                join(base, suffix, query).is_err(),
                "{base} {suffix}: {:?}",
                join(base, suffix, query)
            );
        }
        let target = Target::parse("url", "https://h/", Some(("api key", "s&s"))).unwrap();
        assert!(
            target
                .join("", &[("api key".into(), "mine".into())])
                .is_err()
        );
        assert_eq!(
            String::from(target.join("", &[]).unwrap()),
            "https://h/?api%20key=s%26s"
        );
    }

    #[test]
    fn misleading_urls_are_refused() {
        for (url, error) in [
            ("https://user:hunter22@h/", EndpointError::Userinfo("url")),
            ("https://token@h/", EndpointError::Userinfo("url")),
            ("ftp://h/", EndpointError::Scheme("url")),
            ("https://h/a#b", EndpointError::Fragment("url")),
            ("h:8888/test.log", EndpointError::Scheme("url")),
            ("https://", EndpointError::Url("url", "empty host".into())),
        ] {
            assert_eq!(Target::parse("url", url, None).err(), Some(error), "{url}");
        }
    }

    proptest! {
        #[test]
        fn no_request_changes_the_authority_or_leaves_the_path(
            base in "https://host(:8443)?(/[a-z.%/]{0,10})?(\\?[a-z=&]{0,8})?",
            suffix in "[A-Za-z0-9._~/-]{0,20}",
            query in prop::collection::vec((".{0,8}", ".{0,8}"), 0..4),
        ) {
            prop_assume!(!suffix.contains("..") && !suffix.contains("//"));
            let target = Target::parse("url", &base, None).unwrap();
            let operator = Url::parse(&base).unwrap();
            if let Ok(url) = target.join(&suffix, &query) {
                prop_assert_eq!(url.origin(), operator.origin());
                prop_assert!(url.path().starts_with(operator.path()));
                prop_assert!(url.username().is_empty() && url.fragment().is_none());
                let pairs: Vec<_> = url.query_pairs().map(|(a, b)| (a.into_owned(), b.into_owned())).collect();
                prop_assert_eq!(&pairs[pairs.len() - query.len()..], &query[..]);
            }
        }
    }
}
