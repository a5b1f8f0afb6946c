//! Files that documents are appended to, as a sink's `url` names them.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use crate::{Day, Millis, percent_decoded};

/// Where a sink writes, if it does not send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileTarget {
    /// `-`, or `file:-`.
    StandardOutput,
    /// `file:///…`.
    Path(PathTemplate),
}

/// An absolute path with placeholders for the time of writing: `/var/log/teleport/{date}.ndjson`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    /// Its directories and its file, from the root on. At least one.
    components: Vec<Component>,
}

/// The name of a directory or a file. Without text next to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// `{date}`: `2026-01-31`, UTC.
    Date,
    /// `{hour}`: `00` to `23`, UTC.
    Hour,
}

/// Why a URL names no file that can be used. No message repeats it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FileTargetError {
    #[error("names a machine; a file is on this one")]
    Machine,
    #[error("is not an absolute path")]
    Relative,
    #[error("names a directory, not a file")]
    Directory,
    #[error("has a `.` or a `..` in its path, or two `/` in a row")]
    Segment,
    #[error("has a query or a fragment, which a file does not have")]
    Query,
    #[error("has a `%` without two hexadecimal digits, or a character that no path has")]
    Character,
    #[error("has a placeholder other than `{{date}}` and `{{hour}}`")]
    Placeholder,
    #[error("has `{{hour}}` without `{{date}}`: one file would hold the same hour of all days")]
    HourAlone,
}

impl FileTarget {
    /// `None`: it is an ordinary URL.
    pub fn parse(url: &str) -> Option<Result<FileTarget, FileTargetError>> {
        if url == "-" {
            return Some(Ok(FileTarget::StandardOutput));
        }
        let scheme = url.get(..5).filter(|it| it.eq_ignore_ascii_case("file:"))?;
        let rest = &url[scheme.len()..];
        Some(match rest {
            "-" => Ok(FileTarget::StandardOutput),
            _ => path(rest).map(FileTarget::Path),
        })
    }
}

impl fmt::Display for FileTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileTarget::StandardOutput => f.write_str("standard output"),
            FileTarget::Path(path) => write!(f, "`{path}`"),
        }
    }
}

impl PathTemplate {
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// Whether the file has another name at another time.
    pub fn has_placeholders(&self) -> bool {
        !self.components.iter().all(Component::is_constant)
    }

    /// The path at a time.
    pub fn at(&self, now: Millis) -> PathBuf {
        let names = self.components.iter().map(|component| component.at(now));
        PathBuf::from("/").join(names.collect::<PathBuf>())
    }

    /// The directory below which everything has a placeholder, but perhaps the file.
    pub fn constant_directory(&self) -> PathBuf {
        let directories = &self.components[..self.components.len() - 1];
        let constant = directories.iter().take_while(|it| it.is_constant());
        PathBuf::from("/").join(constant.map(|it| it.at(0)).collect::<PathBuf>())
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Component { pieces } in &self.components {
            f.write_str("/")?;
            for piece in pieces {
                match piece {
                    Piece::Text(text) => f.write_str(text)?,
                    Piece::Date => f.write_str("{date}")?,
                    Piece::Hour => f.write_str("{hour}")?,
                }
            }
        }
        Ok(())
    }
}

impl Component {
    pub fn is_constant(&self) -> bool {
        let mut pieces = self.pieces.iter();
        pieces.all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// The name at a time.
    pub fn at(&self, now: Millis) -> String {
        let day = Day::of(now);
        let mut name = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => name += text,
                Piece::Date => name += &day.to_string(),
                Piece::Hour => name += &format!("{:02}", (now - day.start()) / 3_600_000),
            }
        }
        name
    }

    /// Whether `name` begins with a name that this is at some time: what follows it.
    pub fn match_start<'a>(&self, name: &'a str) -> Option<&'a str> {
        let mut rest = name;
        for piece in &self.pieces {
            let shape = match piece {
                Piece::Text(text) => {
                    rest = rest.strip_prefix(text.as_str())?;
                    continue;
                }
                Piece::Date => "0000-00-00",
                Piece::Hour => "00",
            };
            let (found, after) = rest.split_at_checked(shape.len())?;
            let fits = |(byte, shape): (u8, u8)| match shape {
                b'0' => byte.is_ascii_digit(),
                _ => byte == shape,
            };
            if !found.bytes().zip(shape.bytes()).all(fits) {
                return None;
            }
            rest = after;
        }
        Some(rest)
    }
}

fn path(text: &str) -> Result<PathTemplate, FileTargetError> {
    let text = match text.strip_prefix("//") {
        Some(rest) if rest.starts_with('/') => rest,
        Some(rest) => match rest.split_once('/') {
            Some((machine, _)) if machine.eq_ignore_ascii_case("localhost") => {
                &rest[machine.len()..]
            }
            _ => return Err(FileTargetError::Machine),
        },
        None => text,
    };
    let names = text.strip_prefix('/').ok_or(FileTargetError::Relative)?;
    if text.contains(['?', '#']) {
        return Err(FileTargetError::Query);
    }
    if text.ends_with('/') {
        return Err(FileTargetError::Directory);
    }
    let components = names.split('/').map(component);
    let components = components.collect::<Result<Vec<_>, _>>()?;
    let has = |wanted: Piece| components.iter().any(|it| it.pieces.contains(&wanted));
    if has(Piece::Hour) && !has(Piece::Date) {
        return Err(FileTargetError::HourAlone);
    }
    Ok(PathTemplate { components })
}

fn component(text: &str) -> Result<Component, FileTargetError> {
    if matches!(text, "" | "." | "..") {
        return Err(FileTargetError::Segment);
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        if at > 0 {
            pieces.push(Piece::Text(decoded(&rest[..at])?));
        }
        let (piece, after) = if let Some(after) = rest[at..].strip_prefix("{date}") {
            (Piece::Date, after)
        } else if let Some(after) = rest[at..].strip_prefix("{hour}") {
            (Piece::Hour, after)
        } else {
            return Err(FileTargetError::Placeholder);
        };
        pieces.push(piece);
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(decoded(rest)?));
    }
    match &pieces[..] {
        [Piece::Text(name)] if matches!(name.as_str(), "." | "..") => Err(FileTargetError::Segment),
        _ => Ok(Component { pieces }),
    }
}

/// Without the percent-encoding of URLs.
fn decoded(text: &str) -> Result<String, FileTargetError> {
    let name = percent_decoded(text).ok_or(FileTargetError::Character)?;
    match name.contains(|char: char| char == '/' || char.is_control()) {
        true => Err(FileTargetError::Character),
        false => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-01-05T08:30:00Z.
    const MORNING: Millis = 1_767_601_800_000;

    fn template(url: &str) -> PathTemplate {
        match FileTarget::parse(url) {
            Some(Ok(FileTarget::Path(path))) => path,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn a_url_is_a_file_or_standard_output_or_another_url() {
        for (url, path) in [
            ("file:///var/log/a.ndjson", "/var/log/a.ndjson"),
            ("file:/var/log/a.ndjson", "/var/log/a.ndjson"),
            ("FILE://localhost/a", "/a"),
            ("file:///a%20b/%7bx%7D", "/a b/{x}"),
            (
                "file:///log/{date}/{hour}.ndjson",
                "/log/2026-01-05/08.ndjson",
            ),
            (
                "file:///log/{date}T{hour}-x{date}",
                "/log/2026-01-05T08-x2026-01-05",
            ),
        ] {
            assert_eq!(template(url).at(MORNING), PathBuf::from(path), "{url}");
        }
        for url in ["-", "file:-"] {
            assert_eq!(FileTarget::parse(url), Some(Ok(FileTarget::StandardOutput)));
        }
        for url in ["https://x/", "", "fil", "/var/log/a", "--"] {
            assert_eq!(FileTarget::parse(url), None, "{url}");
        }
    }

    #[test]
    fn a_url_that_names_no_file_is_refused() {
        use FileTargetError::{
            Character, Directory, HourAlone, Machine, Placeholder, Query, Relative, Segment,
        };
        for (url, error) in [
            ("file://server/share/a", Machine),
            ("file://a.ndjson", Machine),
            ("file:a.ndjson", Relative),
            ("file:", Relative),
            ("file:///", Directory),
            ("file:///var/log/", Directory),
            ("file:///a/../b", Segment),
            ("file:///a/%2e%2e/b", Segment),
            ("file:///a//b", Segment),
            ("file:///a?x=1", Query),
            ("file:///a#x", Query),
            ("file:///a%2", Character),
            ("file:///a%+2", Character),
            ("file:///a%e9", Character),
            ("file:///a%2fb", Character),
            ("file:///a%00", Character),
            ("file:///a\n", Character),
            ("file:///{event-type}", Placeholder),
            ("file:///{date", Placeholder),
            ("file:///date}", Placeholder),
            ("file:///{hour}", HourAlone),
        ] {
            assert_eq!(FileTarget::parse(url), Some(Err(error)), "{url}");
        }
    }

    #[test]
    fn the_constant_part_of_a_path_is_known() {
        for (url, directory, has_placeholders) in [
            ("file:///a", "/", false),
            ("file:///var/log/a", "/var/log", false),
            ("file:///var/log/{date}", "/var/log", true),
            ("file:///var/{date}/log/a", "/var", true),
        ] {
            let path = template(url);
            assert_eq!(path.constant_directory(), PathBuf::from(directory));
            assert_eq!(path.has_placeholders(), has_placeholders);
            assert_eq!(format!("file://{path}"), url);
        }
    }

    #[test]
    fn names_of_other_times_are_recognised() {
        let path = template("file:///log/a-{date}T{hour}.ndjson");
        let name = &path.components()[1];
        for (text, rest) in [
            ("a-2025-12-31T23.ndjson", Some("")),
            ("a-2025-12-31T23.ndjson.7", Some(".7")),
            ("a-2025-12-31T2x.ndjson", None),
            ("a-2025-12-3", None),
            ("a-2025-12-3é", None),
            ("b-2025-12-31T23.ndjson", None),
        ] {
            assert_eq!(name.match_start(text), rest, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_url_is_parsed_without_a_panic(url in "(file:)?/{0,3}[{}a-z%/é0-9.]{0,20}") {
            if let Some(Ok(FileTarget::Path(path))) = FileTarget::parse(&url) {
                let own = path.components().last().unwrap();
                let name = own.at(MORNING);
                prop_assert_eq!(own.match_start(&name), Some(""));
                prop_assert!(path.at(MORNING).is_absolute());
            }
        }
    }
}
