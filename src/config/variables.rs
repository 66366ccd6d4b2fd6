//! `${NAME}` in strings: variables of the environment.
//!
//! `$$` is a dollar sign, and a dollar sign before anything else is itself.

use std::env::{self, VarError};

/// Fills in the variables of a text.
///
/// # Errors
/// What is wrong with the first variable that cannot be filled in.
pub fn fill_in(text: &str) -> Result<String, String> {
    fill_in_with(text, |name| env::var(name))
}

/// True when a text holds a variable.
pub fn has_variable(text: &str) -> bool {
    text.replace("$$", "").contains("${")
}

fn fill_in_with(
    text: &str,
    get: impl Fn(&str) -> Result<String, VarError>,
) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        filled.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            filled.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let (name, after) = after
                .split_once('}')
                .ok_or("'${' has no '}' (a dollar sign is written $$)")?;
            filled.push_str(&value(name, &get)?);
            rest = after;
        } else {
            filled.push('$');
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

fn value(name: &str, get: impl Fn(&str) -> Result<String, VarError>) -> Result<String, String> {
    let is_name = |name: &str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
            && name.chars().all(legal)
    };
    // What names no variable is not repeated: it may be a piece of a password.
    if let Some((name, _)) = name.split_once(":-").filter(|(name, _)| is_name(name)) {
        return Err(format!(
            "'${{{name}:-...}}' is not understood: there are no defaults, set {name} instead"
        ));
    }
    if !is_name(name) {
        return Err("'${...}' does not name a variable (a dollar sign is written $$)".to_owned());
    }
    get(name).map_err(|error| match error {
        VarError::NotPresent => format!("the environment variable {name} is not set"),
        VarError::NotUnicode(_) => format!("the environment variable {name} is not UTF-8"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        fill_in_with(text, |name| match name {
            "HOST" => Ok("web1".to_owned()),
            "DOLLARS" => Ok("${HOST}".to_owned()),
            _ => Err(VarError::NotPresent),
        })
    }

    #[test]
    fn variables_are_filled_in_once() {
        for (text, expected) in [
            ("", ""),
            ("a${HOST}b${HOST}", "aweb1bweb1"),
            ("${DOLLARS}", "${HOST}"),
            ("$$${HOST}$${HOST}", "$web1${HOST}"),
            ("$HOST costs 5$", "$HOST costs 5$"),
        ] {
            assert_eq!(filled(text), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_escaped_dollar_sign_begins_no_variable() {
        for (text, has) in [
            ("${A}", true),
            ("$${A}", false),
            ("$$${A}", true),
            ("$A", false),
        ] {
            assert_eq!(has_variable(text), has, "{text}");
        }
    }

    #[test]
    fn a_variable_that_is_none_is_refused() {
        for (text, problem) in [
            ("${NONE}", "variable NONE is not set"),
            ("${HOST", "has no '}'"),
            ("${}", "'${...}' does not name a variable"),
            ("${a b}", "'${...}' does not name a variable"),
            ("${1}", "does not name"),
            ("${HOST:-x}", "there are no defaults, set HOST"),
        ] {
            let said = filled(text).unwrap_err();
            assert!(said.contains(problem), "{text}: {said}");
        }
    }
}
