//! A terminal's size, `80:25`.

/// The first `N:N` in the text. A decimal fraction is not a size.
pub fn parse(text: &str) -> Option<(i64, i64)> {
    for (start, _) in text.char_indices() {
        // A number must not begin inside another one.
        if text[..start].ends_with(|last: char| last.is_ascii_digit() || "+-.".contains(last)) {
            continue;
        }
        let Some((columns, rest)) = number(&text[start..]) else {
            continue;
        };
        let Some((rows, _)) = rest.strip_prefix(':').and_then(number) else {
            continue;
        };
        return Some((columns.parse().ok()?, rows.parse().ok()?));
    }
    None
}

/// A number as text, and the rest.
fn number(text: &str) -> Option<(&str, &str)> {
    let digits = |from: usize| from + text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let sign = usize::from(text.starts_with(['+', '-']));
    let mut end = digits(sign);
    if text[end..].starts_with('.') && digits(end + 1) > end + 1 {
        end = digits(end + 1);
    }
    (end > sign).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_two_whole_numbers() {
        for (text, expected) in [
            ("80:25", Some((80, 25))),
            ("+80:-25", Some((80, -25))),
            ("size 80:25 é", Some((80, 25))),
            ("é80:25", Some((80, 25))),
            ("80.5:25", None),
            ("80:25.5", None),
            ("80:", None),
            ("", None),
            ("99999999999999999999:1", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
