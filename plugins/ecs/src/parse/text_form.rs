//! Prints a value like Java, because Elastic's pipeline compares and stores that text.

use std::borrow::Cow;

use crate::value::Value;

/// `{a=1, b=[x, null]}`.
pub fn plain<'a>(value: &mut Value<'a>) -> Cow<'a, str> {
    if let Some(text) = value.as_text() {
        return text;
    }
    let mut out = String::new();
    write(&mut out, value);
    Cow::Owned(out)
}

/// Like [`plain`], but a list is `{0=x, 1=null}`, as a template prints it.
pub fn rendered<'a>(value: &mut Value<'a>) -> Cow<'a, str> {
    let Some(list) = value.as_list() else {
        return plain(value);
    };
    let mut out = String::from("{");
    for (at, value) in list.iter_mut().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        out.push_str(&at.to_string());
        out.push('=');
        write(&mut out, value);
    }
    out.push('}');
    Cow::Owned(out)
}

fn write(out: &mut String, value: &mut Value<'_>) {
    if let Some(text) = value.as_text() {
        out.push_str(&text);
    } else if let Some(plain) = value.as_plain() {
        out.push_str(plain);
    } else if let Some(list) = value.as_list() {
        out.push('[');
        for (at, value) in list.iter_mut().enumerate() {
            out.push_str(if at > 0 { ", " } else { "" });
            write(out, value);
        }
        out.push(']');
    } else if let Some(object) = value.as_object() {
        out.push('{');
        for (at, (key, value)) in object.members.iter_mut().enumerate() {
            out.push_str(if at > 0 { ", " } else { "" });
            out.push_str(key.text());
            out.push('=');
            write(out, value);
        }
        out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_printed_like_in_java() {
        let value = Value::raw(r#"[{"a":1,"b":["x",null,{}]},true,"\u00e9"]"#);
        assert_eq!(
            plain(&mut value.clone()),
            "[{a=1, b=[x, null, {}]}, true, é]"
        );
        assert_eq!(
            rendered(&mut value.clone()),
            "{0={a=1, b=[x, null, {}]}, 1=true, 2=é}"
        );
    }
}
