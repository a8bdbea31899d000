// SPDX-License-Identifier: MPL-2.0
//! Reads `method-options`: key=value pairs, where quotes keep commas together.

/// The pairs of `key=value,key="a, b"`, parted by commas or semicolons. Within quotes, single or
/// double, a backslash takes the next character as it is.
///
/// # Errors
/// The pair at fault and what is wrong with it.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, (String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start_matches(is_separator);
    while !rest.is_empty() {
        let end = rest.find(['=', ',', ';']).unwrap_or(rest.len());
        let (key, behind) = rest.split_at(end);
        let key = key.trim().to_owned();
        let Some(behind) = behind.strip_prefix('=') else {
            let remedy = "has no value; write method-options=\"key=value,key=value\"";
            return Err((key, remedy.into()));
        };
        let (value, behind) = value(behind.trim_start()).map_err(|fault| (key.clone(), fault))?;
        pairs.push((key, value));
        rest = behind.trim_start_matches(is_separator);
    }
    Ok(pairs)
}

fn is_separator(c: char) -> bool {
    c.is_whitespace() || matches!(c, ',' | ';')
}

/// The value at the start of `text`, and what is behind it.
fn value(text: &str) -> Result<(String, &str), String> {
    let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        let end = text.find([',', ';']).unwrap_or(text.len());
        let (value, behind) = text.split_at(end);
        return Ok((value.trim().to_owned(), behind));
    };
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c if c == quote => {
                let behind = text.get(index + c.len_utf8()..).unwrap_or_default();
                return match behind.trim_start().chars().next() {
                    None | Some(',' | ';') => Ok((value, behind)),
                    Some(_) => Err(format!(
                        "something follows the closing {quote}; a {quote} within the value is \\{quote}"
                    )),
                };
            }
            c => value.push(c),
        }
    }
    Err(format!("the quote {quote} is not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(text: &str, expected: &[(&str, &str)]) {
        let found = pairs(text).unwrap();
        let found: Vec<_> = found.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn pairs_are_parted_by_commas_and_semicolons() {
        read("", &[]);
        read(" a=1, b = 2 ;c=3,;", &[("a", "1"), ("b", "2"), ("c", "3")]);
        read("a=x=y,b=", &[("a", "x=y"), ("b", "")]);
        read("a=it's", &[("a", "it's")]);
    }

    #[test]
    fn quotes_keep_commas_together() {
        read("a=\"x, y; z\",b=2", &[("a", "x, y; z"), ("b", "2")]);
        read("a = 'say \"what\", now' ; b=2", &[("a", "say \"what\", now"), ("b", "2")]);
        read(r#"a="\"é\", \\""#, &[("a", r#""é", \"#)]);
        read("a=\"\"", &[("a", "")]);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        for (text, key, reason) in [
            ("a=1,retrieve", "retrieve", "has no value"),
            ("a=\"x, y", "a", "not closed"),
            ("a=\"x\\", "a", "not closed"),
            ("a='x' y,b=2", "a", "closing '"),
        ] {
            let (found, fault) = pairs(text).unwrap_err();
            assert!(found == key && fault.contains(reason), "{text}: {found} {fault}");
        }
    }
}
